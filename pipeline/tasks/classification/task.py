"""Classification: one class for an image, the one with the largest logit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.arrays import Outputs, Truth
from pipeline.core.errors import GateError
from pipeline.core.signature import Signature, TensorSpec, image_input
from pipeline.tasks.base import Parity, Prediction, Scores, Task
from pipeline.tasks.classification.metrics import confusion_rows, log_softmax, score

if TYPE_CHECKING:
    from pipeline.data.splits import ImageSet
    from pipeline.tasks.training import TaskTraining

LOGITS = "logits"
LABELS = "labels"

USAGE = """\
logits = session.run(["logits"], {"image": pixels})[0]
print(labels[int(logits.argmax())])"""


class Classification(Task):
    """The task ``classification``."""

    name = "classification"
    primary = "accuracy"
    primary_title = "top-1 accuracy"
    truth_names = (LABELS,)
    classification_output = LOGITS
    prediction_columns = ("label", "probability", "rank")
    mistake_columns = ("actual", "predicted")

    def encode_truth(self, images: ImageSet, kept: Sequence[int]) -> Truth:
        """Return the labels (len(kept),): the categories of the images."""
        return {LABELS: images.categories[np.asarray(kept, dtype=np.int64)]}

    def signature(self, *, image_size: tuple[int, int], input_dtype: str, class_names: Sequence[str]) -> Signature:
        """Return the input ``image`` and the output ``logits`` (num_classes)."""
        return Signature(image_input(image_size, input_dtype), (TensorSpec(LOGITS, "float32", (len(class_names),)),))

    def score(self, outputs: Outputs, truth: Truth) -> Scores:
        """Return accuracy, nll and ece; see ``pipeline.tasks.classification.metrics``."""
        return score(outputs[LOGITS], truth[LABELS])._asdict()

    def compare(self, outputs: Outputs, reference: Outputs) -> Parity:
        """Return the difference of the logits (N, num_classes), and the share of images with the same largest one."""
        found, wanted = outputs[LOGITS], reference[LOGITS]
        if found.shape != wanted.shape:
            raise GateError(f"the logits have shape {found.shape}, the reference has {wanted.shape}")
        if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
            raise GateError("the logits are not all finite, so they cannot be compared")
        difference = float(np.abs(found.astype(np.float64) - wanted).max())
        largest = float(np.abs(wanted).max())
        agreement = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
        return Parity(difference, difference / largest if largest else 0.0, largest, agreement)

    def predictions(
        self, names: Sequence[str], outputs: Outputs, class_names: Sequence[str], *, top: int
    ) -> list[Prediction]:
        """Return the ``top`` most probable labels of each image with their probabilities."""
        found = []
        for name, row in zip(names, np.exp(log_softmax(outputs[LOGITS])), strict=True):
            best = [(class_names[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:top]]
            labels = [{"label": label, "probability": round(p, 6)} for label, p in best]
            text = ", ".join(f"{label} {p:.2%}" for label, p in best)
            rows = [{**label, "rank": rank} for rank, label in enumerate(labels, start=1)]
            found.append(Prediction(name, {"labels": labels}, text, rows))
        return found

    def mistakes(self, outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[dict[str, str]]:
        """Return actual and predicted class of each image."""
        return confusion_rows(outputs[LOGITS], truth[LABELS], class_names)

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
