"""The task ``hits``, which calls nothing by the names of classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.arrays import Outputs, Truth
from pipeline.core.signature import Signature, TensorSpec, image_input
from pipeline.tasks.base import Parity, Prediction, Scores, Task

if TYPE_CHECKING:
    from pipeline.data.splits import ImageSet
    from pipeline.tasks.training import TaskTraining


class Hits(Task):
    """The task ``hits``."""

    name = "hits"
    primary = "hit_rate"
    primary_title = "share of hits"
    truth_names = ("right",)
    prediction_columns = ("thing",)
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

    def compare(self, outputs: Outputs, reference: Outputs) -> Parity:
        """Return the difference of the points."""
        found, wanted = outputs["points"], reference["points"]
        difference, largest = float(np.abs(found - wanted).max()), float(np.abs(wanted).max())
        same = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
        return Parity(difference, difference / largest, largest, same)

    def predictions(
        self, names: Sequence[str], outputs: Outputs, class_names: Sequence[str], *, top: int
    ) -> list[Prediction]:
        """Return the ``top`` things of each image."""
        order = np.argsort(-outputs["points"], axis=1)[:, :top]
        things = [[class_names[i] for i in row] for row in order]
        return [
            Prediction(name, {"things": words}, ", ".join(words), [{"thing": word} for word in words])
            for name, words in zip(names, things, strict=True)
        ]

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
