"""The task ``hits``, which calls nothing by the names of classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs, Truth
from pipeline.core.signature import Signature, TensorSpec, image_input
from pipeline.tasks.base import Classes, Confusion, Gallery, Image, Placement, Prediction, Review, Row, Scores, Tile
from pipeline.tasks.mean_score import MeanScoreTask
from pipeline.tasks.parity import Parity, Scale, compare_values, output_scale

if TYPE_CHECKING:
    from pipeline.data.splits import ImageSet
    from pipeline.tasks.training import TaskTraining


class Hits(MeanScoreTask):
    """The task ``hits``."""

    name = "hits"
    primary = "hit_rate"
    primary_title = "share of hits"
    truth_names = ("right",)
    prediction_columns = ("thing",)
    image_columns = ("file", "right", "guess", "points")

    def encode_truth(self, images: ImageSet, kept: Sequence[int], image_size: tuple[int, int]) -> Truth:  # noqa: ARG002
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
        self,
        images: Sequence[Placement],
        outputs: Outputs,
        classes: Classes,
        *,
        top: int | None,
        min_score: float | None = None,  # noqa: ARG002  (its points are no scores that a file leaves out)
    ) -> list[Prediction]:
        """Return the ``top`` things of each image."""
        order = np.argsort(-outputs["points"], axis=1)[:, :top]
        things = [[classes.names[i] for i in row] for row in order]
        return [
            Prediction(image.name, {"things": words}, ", ".join(words), [{"thing": word} for word in words])
            for image, words in zip(images, things, strict=True)
        ]

    def image_rows(self, names: Sequence[str], outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[Row]:
        """Return the right thing, the guess and its points for each image."""
        columns = names, truth["right"], outputs["points"].argmax(axis=1), outputs["points"].max(axis=1)
        return [
            {"file": name, "right": class_names[right], "guess": class_names[guess], "points": f"{points:.6f}"}
            for name, right, guess, points in zip(*columns, strict=True)
        ]

    def review(self, rows: Sequence[Row], class_names: Sequence[str]) -> Review:
        """Return how often each thing is hit."""
        by_points = sorted(range(len(rows)), key=lambda i: float(rows[i]["points"]))
        missed = [i for i in reversed(by_points) if rows[i]["right"] != rows[i]["guess"]]
        pairs = [(class_names.index(row["right"]), class_names.index(row["guess"])) for row in rows]
        counts = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
        for pair in pairs:
            counts[pair] += 1
        things: list[Row] = [{"class": name, "hits": str(counts[i, i])} for i, name in enumerate(class_names)]
        return Review(
            summary=f"{len(missed)} of {len(rows)} images are missed",
            mistake_columns=self.image_columns,
            mistakes=[rows[i] for i in missed],
            wrong=missed,
            galleries=[
                Gallery("missed", f"{len(missed)} that are missed", missed, "none is missed"),
                Gallery("fewest_points", "those of the fewest points", by_points, "no images"),
            ],
            class_columns=("class", "hits"),
            classes=things,
            worst_first=list(range(len(things))),
            class_note="how often each thing is hit",
            confusion=Confusion(tuple(class_names), counts, "images"),
            precision_recall=[],
        )

    def tile(self, pixels: Image, row: Row, review: Review) -> Tile:  # noqa: ARG002  (all of it counts)
        """Return the image with the guess under it."""
        return Tile(pixels, (row["file"], row["guess"]), row["right"] == row["guess"])

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
