"""Classification: one class for an image, the one with the largest logit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs, Truth
from pipeline.core.printable import printable
from pipeline.core.signature import Signature, TensorSpec, image_input
from pipeline.core.text_table import in_columns
from pipeline.tasks.base import Classes, GivenClasses, Image, Placement, Prediction, Review, Row, Scores, Tile
from pipeline.tasks.classification.class_names import find_classes, read_classes
from pipeline.tasks.classification.doubts import doubts
from pipeline.tasks.classification.image_rows import IMAGE_COLUMNS, image_rows
from pipeline.tasks.classification.metrics import log_softmax, score
from pipeline.tasks.mean_score import MeanScoreTask
from pipeline.tasks.parity import Parity, Scale, compare_values, output_scale, require_comparable

if TYPE_CHECKING:
    from pipeline.data.splits import ImageSet
    from pipeline.tasks.training import TaskTraining

LOGITS = "logits"
LABELS = "labels"
GLANCE = 3
"""Labels of an image that are read at a glance, on one line."""

USAGE = """\
logits = session.run(["logits"], {"image": pixels})[0]
print(labels[int(logits.argmax())])"""


class Classification(MeanScoreTask):
    """The task ``classification``."""

    name = "classification"
    primary = "accuracy"
    primary_title = "top-1 accuracy"
    truth_names = (LABELS,)
    classification_output = LOGITS
    cpp_answer = "labels"
    prediction_columns = ("label", "probability", "rank")
    image_columns = IMAGE_COLUMNS

    def encode_truth(self, images: ImageSet, kept: Sequence[int], image_size: tuple[int, int]) -> Truth:  # noqa: ARG002
        """Return the labels (len(kept),): the categories of the images."""
        return {LABELS: images.categories[np.asarray(kept, dtype=np.int64)]}

    def given_classes(self, path: Path, class_names: Sequence[str]) -> GivenClasses:
        """Return the classes in the file ``path``; see ``pipeline.tasks.classification.class_names``."""
        known = read_classes(path)
        return GivenClasses(tuple(names[0] for names in known), find_classes(class_names, known, path))

    def signature(self, *, image_size: tuple[int, int], input_dtype: str, class_names: Sequence[str]) -> Signature:
        """Return the input ``image`` and the output ``logits`` (num_classes)."""
        return Signature(image_input(image_size, input_dtype), (TensorSpec(LOGITS, "float32", (len(class_names),)),))

    def score(self, outputs: Outputs, truth: Truth) -> Scores:
        """Return accuracy, nll and ece; see ``pipeline.tasks.classification.metrics``."""
        return score(outputs[LOGITS], truth[LABELS])._asdict()

    def rightness(self, outputs: Outputs, truth: Truth) -> NDArray[np.float64]:
        """Return 1 where the largest logit is the label's, else 0."""
        right: NDArray[np.bool_] = outputs[LOGITS].argmax(axis=1) == truth[LABELS]
        return right.astype(np.float64)

    def doubts(self, outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[str]:
        """Return whether the labels are no better than guessed; see ``pipeline.tasks.classification.doubts``."""
        return doubts(outputs[LOGITS].argmax(axis=1), truth[LABELS], class_names)

    def scale(self, reference: Outputs) -> Scale:
        """Return the spread of each image's logits."""
        return output_scale(reference[LOGITS])

    def compare(self, outputs: Outputs, reference: Outputs, scale: Scale) -> Parity:
        """Return the difference of the logits (N, num_classes), and the share of images with the same largest one."""
        found, wanted = outputs[LOGITS], reference[LOGITS]
        require_comparable(found, wanted, LOGITS)
        return compare_values(found, wanted, scale, same=found.argmax(axis=1) == wanted.argmax(axis=1))

    def require_truth(self, truth: Truth, count: int, class_names: Sequence[str]) -> None:
        """Check that there is a label for each image, the number of one of ``class_names``."""
        super().require_truth(truth, count, class_names)
        labels, last = truth[LABELS], len(class_names) - 1
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(f"{LABELS} are {labels.dtype} {list(labels.shape)}, expected integers [{count}]")
        wrong = labels[(labels < 0) | (labels > last)]
        if len(wrong):
            raise ValueError(f"{LABELS} hold {wrong[0]}, expected 0 to {last}")

    def predictions(
        self,
        images: Sequence[Placement],
        outputs: Outputs,
        classes: Classes,
        *,
        top: int | None,
        min_score: float | None = None,  # noqa: ARG002  (a probability is no score of a thing)
    ) -> list[Prediction]:
        """Return the ``top`` most probable labels of each image with their probabilities."""
        found = []
        for image, row in zip(images, np.exp(log_softmax(outputs[LOGITS])), strict=True):
            best = [(classes.names[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:top]]
            labels = [{"label": label, "probability": round(p, 6)} for label, p in best]
            cells = [[printable(label), f"{p:.2%}"] for label, p in best]
            text = ", ".join(map(" ".join, cells))
            rows = [{**label, "rank": rank} for rank, label in enumerate(labels, start=1)]
            lines = in_columns(cells) if len(cells) > GLANCE else ()
            found.append(Prediction(image.name, {"labels": labels}, text, rows, lines))
        return found

    def image_rows(self, names: Sequence[str], outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[Row]:
        """Return truth and prediction of each image with their probabilities."""
        return image_rows(names, outputs[LOGITS], truth[LABELS], class_names)

    def review(self, rows: Sequence[Row], class_names: Sequence[str]) -> Review:
        """Return mistakes, precision and recall of each class, and the confusion."""
        from pipeline.tasks.classification.review import review

        return review(rows, class_names)

    def tile(self, pixels: Image, row: Row, review: Review) -> Tile:  # noqa: ARG002  (all of it stands in the row)
        """Return the image; under it file, truth and prediction."""
        from pipeline.tasks.classification.review import tile

        return tile(pixels, row)

    def card_rows(self, scores: Scores) -> list[tuple[str, str]]:
        """Return negative log-likelihood and expected calibration error."""
        return [
            ("negative log-likelihood, nats", f"{scores['nll']:.4f}"),
            ("expected calibration error, 15 bins", f"{scores['ece']:.4f}"),
        ]

    def card_usage(self) -> str:
        """Return how the logits become a label."""
        return USAGE

    def training(self) -> TaskTraining:
        """Return ``pipeline.tasks.classification.training.ClassificationTraining``."""
        from pipeline.tasks.classification.training import ClassificationTraining

        return ClassificationTraining()
