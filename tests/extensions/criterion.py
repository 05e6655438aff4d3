"""A criterion: the mean power of the difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.core.settings import Positive, Section

if TYPE_CHECKING:
    from torch import Tensor


class PowerSettings(Section):
    """Settings of ``power``."""

    exponent: Positive = Field(1.5, description="to which differences are raised")


def power_loss(student: Tensor, teacher: Tensor, *, exponent: float) -> Tensor:
    """Return mean |student - teacher|^exponent; with leading steps of ``student`` it is the mean over them."""
    return (student - teacher).abs().pow(exponent).mean()
