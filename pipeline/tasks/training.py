"""The side of a task that builds and trains networks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from models.core.calling import as_tuple
from pipeline.core.arrays import Outputs, Pixels
from pipeline.core.errors import UserError
from pipeline.data.batch import Batch, Mix, Targets
from pipeline.data.dataset import DataInfo, Split
from pipeline.data.settings import Augment
from pipeline.networks.spec import NetworkSpec
from pipeline.networks.weights import Weights

Predicted = Any
"""What a network returns in training; its task alone looks into it."""


class Validation(NamedTuple):
    """What is found of a network on images that it was not trained on."""

    scores: Mapping[str, float]
    """The task's primary one first."""
    standard_error: float | None
    """Of the primary score, from the number of images; None where none is known."""
    doubts: Sequence[str]
    """Why the network is of no use, as predicates: "answers 'cat' for each of 60 images"."""


class Supervision(ABC):
    """What the targets themselves teach, and how training is watched."""

    loss_name: str
    """The loss against the targets, as it is reported."""
    fresh_loss: float
    """That loss of a network that knows nothing."""
    guess_loss: float | None
    """That loss of a network that has learned how frequent each answer is, and nothing of the images.

    None: it is not known."""

    @abstractmethod
    def loss(self, predicted: Predicted, batch: Batch) -> Tensor:
        """Return the loss against the targets of ``batch``, a scalar.

        ``predicted`` may have a leading dimension of sampling steps, each of which is compared with the same targets.
        """

    @abstractmethod
    def batch_scores(self, predicted: Predicted, batch: Batch) -> dict[str, Tensor]:
        """Return what is reported of a training step beside its losses, scalars on the device."""

    @abstractmethod
    def validate(self, predict: Callable[[Tensor], Predicted], split: Split, device: torch.device) -> Validation:
        """Return what is found of ``predict`` on ``split``; processes share the work."""


class GivenCheck(NamedTuple):
    """What is found of a network that was trained elsewhere."""

    figures: Mapping[str, float] = {}
    """For the report: its score on the calibration images."""
    explanation: str | None = None
    """Why it is wrong here, and what to do; None: nothing was found."""
    remark: str = ""
    """What was tried in vain."""
    proposed_classes: Sequence[str] = ()
    """The classes of its outputs, in their order, where another than that of the data fits."""


NOTHING_FOUND = GivenCheck()


class ExportParts(NamedTuple):
    """A network in the two parts in which it is exported."""

    body: nn.Module
    """Images to tensors that may be rewritten, rounded and quantized."""
    body_outputs: tuple[str, ...]
    """Their names."""
    tail: nn.Module | None
    """From those tensors to the outputs: exported once, and float32 in every precision. None: they are the outputs."""

    def whole(self) -> nn.Module:
        """Return the network from images to outputs."""
        return self.body if self.tail is None else _Joined(self.body, self.tail)


class _Joined(nn.Module):
    """A body with its tail."""

    def __init__(self, body: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.tail = tail

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs (B, ...) on images (B, 3, H, W)."""
        return as_tuple(self.tail(*as_tuple(self.body(images))))


class NetworkChoice(Protocol):
    """The settings that say which network is meant, where only its task knows more of them."""

    @property
    def backbone(self) -> str:
        """Return the name of the backbone."""

    @property
    def detector(self) -> BaseModel:
        """Return the section of what finds objects, for the task that needs it."""


class StudentKinds(NamedTuple):
    """The kinds of network, names of ``pipeline.networks.saved.NETWORK_KINDS``, that students of a task are.

    The first three are called as what is transferred; see ``pipeline.distillation.criteria.Transfer``.
    """

    features: str
    """With flows at feature maps."""
    logits: str | None = None
    """With a flow at the end; None: the task has none."""
    features_and_logits: str | None = None
    """With both; None: the task has none."""
    layers: str | None = None
    """With a meta-encoder as ordinary layers at the end; None: the task has none."""
    feature_layers: str | None = None
    """With one at each of some feature maps; None: the task has none."""


class TaskTraining(ABC):
    """What a task decides about networks and their training."""

    kinds: StudentKinds
    sums_pairs: bool = False
    """Whether the losses of pairs of feature maps are summed, without the last map's, where no weights are given; their
    mean counts otherwise."""

    @abstractmethod
    def read_targets(self, tensors: Mapping[str, Tensor]) -> Targets:
        """Return the targets in ``tensors``, as the task stored them; raises KeyError where one is missing."""

    @abstractmethod
    def build_mix(self, augment: Augment, info: DataInfo) -> Mix | None:
        """Return what mixes the images of a batch; None: nothing does."""

    @abstractmethod
    def supervision(self, info: DataInfo, *, label_smoothing: float, class_weights: str | None) -> Supervision:
        """Return the loss against the targets of the data ``info``.

        Args:
            class_weights: ``balanced`` where all classes weigh the same in it; None: all images do.
        """

    @abstractmethod
    def plain_network(
        self, settings: NetworkChoice, info: DataInfo, *, mean: list[float], std: list[float]
    ) -> NetworkSpec:
        """Return how a network without sampling steps is made, as teachers and plain students are."""

    @abstractmethod
    def build_plain(self, spec: NetworkSpec) -> nn.Module:
        """Return the network of a spec of ``plain_network``, with random weights.

        Raises:
            ValueError: the backbone is unknown.
        """

    def published_names(self, settings: NetworkChoice) -> Sequence[str]:  # noqa: ARG002
        """Return what libraries that publish more than its backbone call the whole network of ``settings``."""
        return ()

    def choose_outputs(self, weights: Weights, info: DataInfo) -> Weights:  # noqa: ARG002
        """Return ``weights`` with the outputs of the classes of ``info`` alone, in their order, where these are known.

        Raises:
            ValueError: it is known of them which classes their outputs are, and one of the data is not among them.
        """
        return weights

    def with_feature_map(self, spec: NetworkSpec) -> NetworkSpec:
        """Return how the network of ``spec``, one of ``plain_network``, is made with a feature map that can be refined.

        A vision transformer is whole otherwise.
        """
        return spec

    def of_any_size(self, spec: NetworkSpec) -> NetworkSpec:
        """Return how the network of ``spec``, one of ``plain_network``, is made before the images' size is known."""
        return spec

    def check_given(self, network: nn.Module, split: Split, info: DataInfo, device: torch.device) -> GivenCheck:  # noqa: ARG002
        """Return what is found of a ``network`` that was trained elsewhere on ``split`` of the data ``info``."""
        return NOTHING_FOUND

    def take_outputs(
        self,
        network: nn.Module,  # noqa: ARG002
        whole: nn.Module,  # noqa: ARG002
        outputs: Sequence[int],  # noqa: ARG002
        info: DataInfo,  # noqa: ARG002
        *,
        layers: Collection[str],  # noqa: ARG002
    ) -> None:
        """Put the weights of ``whole``, made for the classes of ``info``, into ``network``: its ``outputs`` in order.

        Args:
            layers: the names of the tensors that have another shape for another number of outputs.

        Raises:
            UserError: the task, or the network, has no outputs that can be told apart.
        """
        raise UserError(
            "train_teacher.classes: the outputs of this task have no order that a file could give; set null"
        )

    @abstractmethod
    def output_arguments(self, info: DataInfo) -> dict[str, Any]:
        """Return what builders of networks must know of the outputs: the arguments that say how many there are."""

    @abstractmethod
    def outputs(self, predicted: Predicted) -> Outputs:
        """Return what a network predicted as arrays, by the names of the task's signature."""

    def check_export(self, network: nn.Module, pixels: Pixels) -> None:  # noqa: ARG002
        """Check on images (N, 3, H, W) whether what is exported of ``network`` would answer as it does.

        Raises:
            UserError: a setting of the tail keeps it from that; names it.
        """
        return

    @abstractmethod
    def export_parts(self, network: nn.Module) -> ExportParts:
        """Return ``network``, a ``DeployableNetwork`` or a form of it, in the two parts in which it is exported."""
