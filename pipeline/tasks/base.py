"""The seam: what a task decides, so that no other room knows what is predicted.

A task has two sides. The one here works on NumPy arrays and runs wherever a package does. The other,
``TaskTraining``, is loaded when networks are built or trained; it works on PyTorch's tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core.arrays import Outputs, Truth
from pipeline.core.signature import Signature

if TYPE_CHECKING:
    from pipeline.data.splits import ImageSet
    from pipeline.tasks.training import TaskTraining

Scores = Mapping[str, float]
"""Figures of merit by their names."""


class Parity(NamedTuple):
    """The difference between a network's outputs and their reference."""

    max_abs: float
    """Largest absolute difference of an output that is compared value by value."""
    max_relative: float
    """The same as a share of ``largest_logit``."""
    largest_logit: float
    """Largest absolute value of those outputs in the reference."""
    top1_agreement: float
    """Share of images with the reference's answer."""


class Prediction(NamedTuple):
    """What is seen on one image."""

    image: str
    """The name of its file."""
    found: dict[str, Any]
    """What the task finds, the surest first, as the fields of a JSON object."""
    text: str
    """The same for a terminal."""
    rows: Sequence[Mapping[str, object]]
    """The same as rows of a table, one for each thing, of the task's ``prediction_columns``."""


class Task(ABC):
    """What is particular to one kind of prediction."""

    name: str
    """As it stands in ``data.json`` and in a package's manifest."""
    primary: str
    """The score that decides."""
    primary_title: str
    """The same for tables and plots: "top-1 accuracy"."""
    truth_names: tuple[str, ...]
    """The arrays that the truth of a split consists of."""
    classification_output: str | None = None
    """The output whose largest values are classes, for clients that ask a server for names; None: there is none."""

    @abstractmethod
    def encode_truth(self, images: ImageSet, kept: Sequence[int]) -> Truth:
        """Return what is right about the images at the positions ``kept``, by ``truth_names``, to be stored."""

    @abstractmethod
    def signature(self, *, image_size: tuple[int, int], input_dtype: str, class_names: Sequence[str]) -> Signature:
        """Return what a deployed network takes and returns."""

    @abstractmethod
    def score(self, outputs: Outputs, truth: Truth) -> Scores:
        """Return the scores of ``outputs`` of N images against their ``truth``, the primary one among them."""

    @abstractmethod
    def compare(self, outputs: Outputs, reference: Outputs) -> Parity:
        """Return how far ``outputs`` are from ``reference``, of the same images.

        Raises:
            GateError: the shapes differ, or a value is not finite.
        """

    @abstractmethod
    def predictions(
        self, names: Sequence[str], outputs: Outputs, class_names: Sequence[str], *, top: int
    ) -> list[Prediction]:
        """Return what is seen on each image; at most ``top`` things on one."""

    prediction_columns: tuple[str, ...]
    """The columns of the rows of a prediction."""

    @abstractmethod
    def mistakes(self, outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[dict[str, str]]:
        """Return rows, of the columns ``mistake_columns``, from which it is seen what is taken for what."""

    mistake_columns: tuple[str, ...]
    """The columns of ``mistakes``."""

    @abstractmethod
    def card_rows(self, scores: Scores) -> list[tuple[str, str]]:
        """Return title and value of each score for a model card, the primary one left out."""

    @abstractmethod
    def card_usage(self) -> str:
        """Return the Python lines that end a model card's example: from ``session`` and ``pixels`` to an answer."""

    @abstractmethod
    def training(self) -> TaskTraining:
        """Return the side that builds and trains networks; imports PyTorch."""
