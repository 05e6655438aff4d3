"""The frozen teacher: what it says of images, and how it is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from models.backbones.token_maps import TokenClassifier
from models.backbones.tracing import UntraceableError
from models.classifier import Classifier
from models.core.calling import call
from pipeline.core.errors import UserError
from pipeline.core.files import Json
from pipeline.data.batch import Batch
from pipeline.networks.saved import NETWORK_KINDS, load_network
from pipeline.tasks.training import Predicted

OUTPUTS = 0
"""Among the teacher's feature maps, which are counted from 1: what it answers."""


@runtime_checkable
class HasStages(Protocol):
    """A network whose feature maps can be transferred."""

    map_name: str
    """What returns a feature map: a stage, a level."""

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Return the channels of each feature map."""

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps, (B, C, H, W) each."""

    def with_maps(self, images: Tensor) -> tuple[Predicted, list[Tensor]]:
        """Return what the network predicts, and its feature maps."""


def with_stages(teacher: nn.Module) -> HasStages:
    """Return ``teacher``, whose feature maps can be transferred; of a whole vision transformer its last tokens are one.

    Raises:
        UserError: it shows none.
    """
    if isinstance(teacher, Classifier) and not teacher.backbone.widths:
        return _with_tokens(teacher)
    if not isinstance(teacher, HasStages):
        raise UserError(
            "distill_student.transfer: got features, but the teacher shows none of them; set it to logits, or take "
            "a teacher of this pipeline's backbones"
        )
    return teacher


def _with_tokens(teacher: Classifier) -> HasStages:
    backbone = teacher.backbone
    try:
        shown = TokenClassifier(
            teacher.normalize, teacher.head, image_size=backbone.image_size, untraced=backbone.untraced
        )
    except UntraceableError as error:
        reasons = "; ".join(dict.fromkeys((backbone.why_uncut, str(error))))
        raise UserError(
            f"distill_student.transfer: got features, but the network shows no feature map ({reasons}); set it to "
            "logits, or choose another backbone"
        ) from error
    return shown.to(next(teacher.parameters()).device)


class FrozenTeacher(nn.Module):
    """A teacher that stays as it is: in eval mode whatever is called on it, without gradients, never updated.

    Args:
        network: from images (B, 3, H, W) to outputs (B, ...).
        stages: the stages, counted from 1, whose feature maps are transferred, and ``OUTPUTS`` behind them where the
            outputs are too; empty: these alone.
    """

    num_views: int | None = None
    """After so many epochs it must be shown the same batches again; None: it takes any."""

    def __init__(self, network: nn.Module, stages: Sequence[int] = ()) -> None:
        super().__init__()
        network.requires_grad_(requires_grad=False)
        network = network.to(memory_format=torch.channels_last)
        shown = with_stages(network) if stages else network
        assert isinstance(shown, nn.Module)
        self.network = shown
        self.stages = tuple(stages)
        super().train(mode=False)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002, FBT001, FBT002  (signature of nn.Module)
        """Stay in eval mode."""
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the targets X_T: a feature map (B, C, H, W) for each stage, and the outputs (B, ...), as asked for."""
        with torch.inference_mode():
            chosen = self._through_maps(images) if self.stages else [call(self.network, images)]
        return [target.clone() for target in chosen]  # what is cloned out here may take part in a student's gradient

    def _through_maps(self, images: Tensor) -> list[Tensor]:
        network = self.network
        assert isinstance(network, HasStages)
        if OUTPUTS not in self.stages:
            maps = network.feature_maps(images)
            return [maps[stage - 1] for stage in self.stages]
        outputs, maps = network.with_maps(images)
        return [outputs if stage == OUTPUTS else maps[stage - 1] for stage in self.stages]

    def targets(self, batch: Batch) -> list[Tensor]:
        """Return the targets X_T of a batch of training."""
        return self(batch.images)  # type: ignore[no-any-return]

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, counted from 0, begins; what it returns does not depend on that."""


def load_teacher(folder: Path) -> nn.Module:
    """Return the teacher in ``folder``.

    Raises:
        UserError: there is no teacher, or something else.
    """
    network, about = load_network(folder)
    if not NETWORK_KINDS[about["kind"]].teaches:
        raise UserError(f"{folder}: holds a {about['kind']}, which cannot teach; give the teacher's folder")
    return network


def load_frozen_teacher(folder: Path, about: Json, device: torch.device) -> FrozenTeacher | None:
    """Return what the student described by ``about`` learnt from, on ``device``; None where it had no teacher.

    Raises:
        UserError: the teacher is missing, or something else.
    """
    stages = about["teacher_stages"]
    return None if stages is None else FrozenTeacher(load_teacher(folder), stages).to(device)
