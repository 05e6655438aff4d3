"""The seam: what a task decides, so that no other room knows what is predicted.

A task has two sides. The one here works on NumPy arrays and runs wherever a package does. The other,
``TaskTraining``, is loaded when networks are built or trained; it works on PyTorch's tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs, Truth
from pipeline.core.errors import UserError
from pipeline.core.signature import Signature
from pipeline.tasks.parity import Parity, Scale

if TYPE_CHECKING:
    from typing import Self

    from models.detections import Detections
    from pipeline.data.decoding import Resize
    from pipeline.data.splits import ImageSet
    from pipeline.tasks.training import TaskTraining

Scores = Mapping[str, float]
"""Figures of merit by their names."""


class Placement(NamedTuple):
    """An image that a network was given, and how large it lies in the network's input."""

    name: str
    """Of its file."""
    size: tuple[int, int]
    """Height and width as it is shown, in its own pixels."""
    scale: float
    """Pixels of the input for one of its own."""


class Classes(NamedTuple):
    """What can be seen, by its number in the outputs."""

    names: tuple[str, ...]
    ids: tuple[int, ...] | None = None
    """Their numbers in the user's own files; None: these have none."""


class Prediction(NamedTuple):
    """What is seen on one image."""

    image: str
    """The name of its file."""
    found: dict[str, Any]
    """What the task finds, the surest first, as the fields of a JSON object."""
    text: str
    """The same on one line."""
    rows: Sequence[Mapping[str, object]]
    """The same as rows of a table, one for each thing, of the task's ``prediction_columns``."""
    lines: Sequence[str] = ()
    """The same for a person, a line for each thing; none where ``text`` is read at a glance."""


Row = Mapping[str, str]
"""A row of a table, by its columns, as it stands in a CSV file."""
Image = NDArray[np.uint8]
"""(H, W, 3)."""
Painter = Callable[[Image, Prediction], Image]
"""From an image as it is shown to a copy with what is seen on it drawn in."""


class Confusion(NamedTuple):
    """How often what is right is taken for what."""

    names: tuple[str, ...]
    """Of all classes, also of those that never occur."""
    counts: NDArray[np.int64]
    """(len(names), len(names)): rows are what is right, columns what is found."""
    counted: str
    """What is counted: "images"."""


class Gallery(NamedTuple):
    """Images that teach the same."""

    name: str
    """Of its file, without the ending."""
    title: str
    positions: list[int]
    """Those of the rows, the most telling ones first."""
    empty: str
    """What it says where there is none."""


class CurvePoint(NamedTuple):
    """A point of a curve of precision over recall."""

    curve: str
    """The curve that it lies on."""
    recall: float
    precision: float


class Review(NamedTuple):
    """What the rows of a split teach."""

    summary: str
    """How much is right and wrong, in a sentence without its full stop."""
    mistake_columns: tuple[str, ...]
    """The columns of ``mistakes``."""
    mistakes: list[Row]
    """A row for each mistake, the surest first."""
    wrong: list[int]
    """The positions of the rows that are not all right."""
    galleries: list[Gallery]
    class_columns: tuple[str, ...]
    """The columns of ``classes``; the first is ``class``."""
    classes: list[Row]
    """A row for each class, in their order; a figure that is not defined is empty."""
    worst_first: list[int]
    """The positions of ``classes``, the one that is recognised worst first."""
    class_note: str
    """What the figures of classes mean."""
    confusion: Confusion
    precision_recall: list[CurvePoint]
    """Curve by curve, by rising recall."""
    least_score: float = 0.0
    """The score from which on what is found counts as an answer."""


class GivenClasses(NamedTuple):
    """The classes of a network that was trained elsewhere."""

    names: tuple[str, ...]
    """In the order of its outputs."""
    outputs: list[int]
    """The output of each class of the data."""


class Tile(NamedTuple):
    """An image of a gallery."""

    pixels: Image
    lines: tuple[str, ...]
    """What stands under it."""
    is_right: bool


class ScoreChange(NamedTuple):
    """What a network loses against another on the same images."""

    score: float
    """The primary score."""
    reference: float
    """That of the other."""
    drop: float
    """By how much the first lies below the second, as a fraction."""
    standard_errors_above: float
    """By how many standard errors the drop exceeds what is allowed, at least 0."""
    counted: str
    """On what that rests: "3 images lost, 1 gained"."""


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
    cpp_answer: str | None = None
    """What a package's C++ programs print, of ``pipeline.package.clients.ANSWERS``; None: it has no such programs."""
    resize: Resize = "central_square"
    """What images of other sizes are brought to: ``central_square``, or ``letterbox``: the whole image, padded."""
    scored_on_samples: bool = True
    """Whether the primary score of the few images that go along with a package says anything."""

    batch_size: int = 256
    """Images that a network answers at once where no setting says otherwise; what they need at once is the limit."""

    @property
    def primary_error(self) -> str:
        """Return the key of the primary score's standard error in reports."""
        return f"{self.primary}_standard_error"

    @property
    def primary_in_words(self) -> str:
        """Return what the primary score is called within a sentence."""
        return self.primary

    def configured(self, detections: Detections, network: Mapping[str, Any]) -> Self:  # noqa: ARG002  (for others)
        """Return the task whose deployed networks answer as ``detections`` say, where that is a choice.

        Args:
            network: how the network is made, which decides what the settings leave open; empty: not known.
        """
        return self

    @abstractmethod
    def encode_truth(self, images: ImageSet, kept: Sequence[int], image_size: tuple[int, int]) -> Truth:
        """Return what is right about the images at the positions ``kept``, by ``truth_names``, to be stored.

        Args:
            image_size: (H, W) that the images are brought to.
        """

    def given_classes(self, path: Path, class_names: Sequence[str]) -> GivenClasses:  # noqa: ARG002  (for others)
        """Return the classes of a network that was trained elsewhere, which the user's file ``path`` names.

        Args:
            class_names: those of the data, whose outputs are looked for.

        Raises:
            UserError: the file is no such list, or lacks a class; or the outputs of this task have no such order.
        """
        raise UserError(
            f"train_teacher.classes: got {path}, but the task {self.name} takes no such file; set it to null"
        )

    @abstractmethod
    def signature(self, *, image_size: tuple[int, int], input_dtype: str, class_names: Sequence[str]) -> Signature:
        """Return what a deployed network takes and returns."""

    @abstractmethod
    def score(self, outputs: Outputs, truth: Truth) -> Scores:
        """Return the scores of ``outputs`` of N images against their ``truth``, the primary one among them."""

    @abstractmethod
    def standard_error(self, outputs: Outputs, truth: Truth) -> float:
        """Return the standard error of the primary score, as of a sample of images."""

    @abstractmethod
    def change(self, outputs: Outputs, reference: Outputs, truth: Truth, *, allowed: float) -> ScoreChange:
        """Return how the primary score of ``outputs`` lies below that of ``reference`` on the same images.

        Args:
            allowed: by how much it may.
        """

    def doubts(self, outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[str]:  # noqa: ARG002
        """Return why ``outputs`` are of no use whatever they were exported from, as predicates; a task may know none.

        For example: "answers 'cat' for each of 60 images".
        """
        return []

    def scale(self, reference: Outputs) -> Scale:
        """Return by what differences from the outputs ``reference`` are measured, (N,); see ``pipeline.tasks.parity``.

        It is 1 where a task compares no outputs value by value, as those with a tail do not.
        """
        return np.ones(len(next(iter(reference.values()))))

    @abstractmethod
    def compare(self, outputs: Outputs, reference: Outputs, scale: Scale) -> Parity:
        """Return how far ``outputs`` are from ``reference``, of the same images, by the ``scale`` of each.

        The agreement counts whatever the task's answers consist of: images, detections.

        Raises:
            GateError: the shapes differ, or a value is not finite.
        """

    def require_truth(self, truth: Truth, count: int, class_names: Sequence[str]) -> None:  # noqa: ARG002  (for others)
        """Check what a file says to be right about ``count`` images.

        Raises:
            ValueError: it cannot be; says why.
        """
        for name, values in truth.items():
            if len(values) != count:
                raise ValueError(f"{name} are those of {len(values)} images, there are {count}")

    def require_signature(self, signature: Signature, class_names: Sequence[str]) -> None:
        """Check what a package says that its network returns.

        Raises:
            ValueError: networks of this task, with these classes, return something else.
        """
        _, height, width = signature.input.shape
        right = self.signature(image_size=(height, width), input_dtype=signature.input.dtype, class_names=class_names)
        if set(signature.outputs) != set(right.outputs):
            raise ValueError(
                f"its signature has the outputs {_shapes(signature)}; of {self.name} with {len(class_names)} classes "
                f"they are {_shapes(right)}"
            )

    def require_answers(self, outputs: Outputs, class_names: Sequence[str]) -> None:  # noqa: B027  (a task may know none)
        """Check that ``outputs`` answer nothing but ``class_names``, where their shapes do not say it.

        Raises:
            ValueError: they do.
        """

    @abstractmethod
    def predictions(
        self,
        images: Sequence[Placement],
        outputs: Outputs,
        classes: Classes,
        *,
        top: int | None,
        min_score: float | None = None,
    ) -> list[Prediction]:
        """Return what is seen on each image.

        Args:
            top: how many things to say of an image at most, the surest first; None: all.
            min_score: score from which on a thing counts, not below ``least_score``; None: what the network was
                exported with.
        """

    prediction_columns: tuple[str, ...]
    """The columns of the rows of a prediction."""
    top: int | None = 3
    """How many things are said of an image where nobody asks for a number; None: all."""
    top_in_table: int | None = 1
    """The same in a table."""

    @property
    def least_score(self) -> float | None:
        """Return the score below which the outputs hold nothing; None: they hold no things with scores."""
        return None

    def painter(self) -> Painter | None:
        """Return what draws a prediction onto its image; None: it says nothing that has a place on it."""
        return None

    def preprocessing(self) -> Mapping[str, Any]:
        """Return how images are brought to the input's size, as a package's ``preprocessing.json`` must say it.

        Empty: in words alone, as packages have said it from the first.
        """
        return {}

    image_columns: tuple[str, ...]
    """The columns of ``image_rows``; the first is ``file``."""

    @abstractmethod
    def image_rows(self, names: Sequence[str], outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[Row]:
        """Return a row for each image, by ``image_columns``: its name, what is right, what is found and how surely."""

    @abstractmethod
    def review(self, rows: Sequence[Row], class_names: Sequence[str]) -> Review:
        """Return what ``rows``, those of a whole split, teach of the network."""

    @abstractmethod
    def tile(self, pixels: Image, row: Row, review: Review) -> Tile:
        """Return an image (H, W, 3) with what is found on it, for a gallery; ``review`` is that of its split."""

    headline_scores: tuple[str, ...] = ()
    """The scores that stand beside the primary one among the few figures by which runs are compared."""

    @abstractmethod
    def card_rows(self, scores: Scores) -> list[tuple[str, str]]:
        """Return title and value of each score for a model card, the primary one left out."""

    @abstractmethod
    def card_usage(self) -> str:
        """Return the Python lines that end a model card's example: from ``session`` and ``pixels`` to an answer."""

    def output_facts(self) -> Mapping[str, Any]:
        """Return what users of a file must know of its outputs, beside the signature, as JSON; none by default."""
        return {}

    @abstractmethod
    def training(self) -> TaskTraining:
        """Return the side that builds and trains networks; imports PyTorch."""


def _shapes(signature: Signature) -> str:
    return ", ".join(f"{output.name} {output.dtype} {list(output.shape)}" for output in signature.outputs)
