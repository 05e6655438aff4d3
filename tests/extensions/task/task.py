"""The task ``hits``, which calls nothing by the names of classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs, Truth
from pipeline.core.signature import Signature, TensorSpec, image_input
from pipeline.tasks.base import Prediction, Scores, Task
from pipeline.tasks.parity import Parity, Scale, compare_values, output_scale

if TYPE_CHECKING:
    from pipeline.data.splits import ImageSet
    from pipeline.tasks.training import TaskTraining


class Hits(Task):
    """The task ``hits``."""

    name = "hits"
    primary = "hit_rate"
    primary_title = "share of hits"
    truth_names = ("right",)
    mistake_columns = ("right", "guess")

    def encode_truth(self, images: ImageSet, kept: Sequence[int]) -> Truth:
        """Return the number of the right thing, (len(kept),)."""
        return {"right": images.categories[np.asarray(kept, dtype=np.int64)]}

    def signature(self, *, image_size: tuple[int, int], input_dtype: str, class_names: Sequence[str]) -> Signature:
        """Return the output ``points``, one of each thing."""
        return Signature(image_input(image_size, input_dtype), (TensorSpec("points", "float32", (len(class_names),)),))

    def score(self, outputs: Outputs, truth: Truth) -> Scores:
        """Return the share of images whose thing has the most points."""
        return {"hit_rate": float((outputs["points"].argmax(axis=1) == truth["right"]).mean())}

    def rightness(self, outputs: Outputs, truth: Truth) -> NDArray[np.float64]:
        """Return 1 where the thing with the most points is right, else 0."""
        right: NDArray[np.bool_] = outputs["points"].argmax(axis=1) == truth["right"]
        return right.astype(np.float64)

    def scale(self, reference: Outputs) -> Scale:
        """Return how far the points of each image lie apart."""
        return output_scale(reference["points"])

    def compare(self, outputs: Outputs, reference: Outputs, scale: Scale) -> Parity:
        """Return the difference of the points."""
        found, wanted = outputs["points"], reference["points"]
        return compare_values(found, wanted, scale, same=found.argmax(axis=1) == wanted.argmax(axis=1))

    def predictions(
        self, names: Sequence[str], outputs: Outputs, class_names: Sequence[str], *, top: int
    ) -> list[Prediction]:
        """Return the ``top`` things of each image."""
        order = np.argsort(-outputs["points"], axis=1)[:, :top]
        words = [", ".join(class_names[i] for i in row) for row in order]
        return [Prediction(name, {"things": text}, text) for name, text in zip(names, words, strict=True)]

    def mistakes(self, outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[dict[str, str]]:
        """Return the right thing and the guess for each image."""
        pairs = zip(truth["right"], outputs["points"].argmax(axis=1), strict=True)
        return [{"right": class_names[right], "guess": class_names[guess]} for right, guess in pairs]

    def card_rows(self, scores: Scores) -> list[tuple[str, str]]:  # noqa: ARG002  (there is no other)
        """Return none."""
        return []

    def card_usage(self) -> str:
        """Return how points are got."""
        return 'print(session.run(["points"], {"image": pixels})[0])'

    def training(self) -> TaskTraining:
        """Return how networks of this task are trained."""
        from pipeline.tasks.hits.training import HitsTraining

        return HitsTraining()
