"""A schedule: a quarter of a circle from student to teacher."""

import math

from torch import Tensor

from models.flow_paths.base import Schedule


class QuarterCircle(Schedule):
    """alpha = sin(pi t / 2), sigma = cos(pi t / 2)."""

    def alpha(self, t: Tensor) -> Tensor:
        """Return the weight of the student's end."""
        return (t * math.pi / 2).sin()

    def sigma(self, t: Tensor) -> Tensor:
        """Return the weight of the teacher's end."""
        return (t * math.pi / 2).cos()

    def d_alpha(self, t: Tensor) -> Tensor:
        """Return d alpha / dt."""
        return (t * math.pi / 2).cos() * math.pi / 2

    def d_sigma(self, t: Tensor) -> Tensor:
        """Return d sigma / dt."""
        return -(t * math.pi / 2).sin() * math.pi / 2
