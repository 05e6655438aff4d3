"""The student of logit-based FM-KT: a feature trunk, and the flow whose averaged estimates are the logits."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.factory import build_trunk, trunk_channels
from models.flow import FlowTransfer
from models.meta_encoders import build_meta_encoder
from models.normalize import Normalize
from models.schedules import get_schedule
from models.shape_transform import LogitTransform


class FlowStudent(nn.Module):
    """Normalisation, feature trunk, and the flow whose averaged estimates are the logits.

    There is no separate head: the flow's shape transform is the classifier (arXiv 2402.02012, logit-based FM-KT).
    """

    def __init__(self, trunk: nn.Module, flow: FlowTransfer, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.trunk = trunk
        self.flow = flow

    def features(self, images: Tensor) -> Tensor:
        """Return X_S, the last feature map (B, C, H', W')."""
        return self.trunk(self.normalize(images))  # type: ignore[no-any-return]

    def step_logits(self, images: Tensor, num_steps: int) -> list[Tensor]:
        """Return the logits (B, num_classes) that each of ``num_steps`` steps estimates."""
        return self.flow.step_outputs(self.features(images), num_steps)

    def forward(self, images: Tensor, num_steps: int) -> Tensor:
        """Return the mean over the steps of their logits (B, num_classes)."""
        return self.flow(self.features(images), num_steps)  # type: ignore[no-any-return]


def build_flow_student(
    *,
    backbone: str,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    schedule: str,
    meta_encoder: str,
    time_scale: float,
) -> FlowStudent:
    """Return a logit-based FM-KT student with random weights.

    Raises:
        ValueError: a name is unknown, or the backbone has no feature map.
    """
    trunk = build_trunk(backbone)
    channels = trunk_channels(trunk)
    flow = FlowTransfer(
        velocity=build_meta_encoder(meta_encoder, channels, time_scale=time_scale),
        schedule=get_schedule(schedule),
        transform=LogitTransform(channels, num_classes),
    )
    return FlowStudent(trunk, flow, mean=mean, std=std)
