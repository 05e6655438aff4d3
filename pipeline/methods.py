"""What each method needs and can do, as plain data."""

from typing import NamedTuple


class Method(NamedTuple):
    """A way of training a student."""

    student: str
    """Kind of network that deploys when logits are transferred; key of ``pipeline.artifacts.BUILDERS``."""
    needs_teacher: bool = True
    needs_feature_map: bool = True
    """Whether the student's backbone must pool a feature map, also where logits are transferred."""
    transfers: tuple[str, ...] = ("logits",)
    """What it can transfer."""


METHODS = {
    "fm_kt": Method("flow_student", transfers=("logits", "features")),
    "fm_kt_theta": Method("classifier"),
    "ofm_kt": Method("flow_student", needs_teacher=False),
    "metric": Method("classifier", needs_feature_map=False, transfers=("logits", "features")),
    "metric_meta": Method("classifier"),
    "none": Method("classifier", needs_teacher=False, needs_feature_map=False, transfers=("logits", "features")),
}
LOSSES_OF = {"logits": ("kd", "dkd", "dist", "mse"), "features": ("pkd", "mse")}
"""Metric losses that make sense for what is transferred."""
