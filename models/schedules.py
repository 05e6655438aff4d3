"""The table of schedules: each is a path Z_t = alpha(t) X_S + sigma(t) X_T from student to teacher.

To add one: a class in a file of ``models/flow_paths``, and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .core.table import Entry, Table

if TYPE_CHECKING:
    from .flow_paths.base import Schedule


@dataclass(frozen=True, kw_only=True)
class ScheduleEntry(Entry):
    """A schedule in the table."""

    load: Callable[[], Schedule]


def _rectified() -> Schedule:
    from .flow_paths.rectified import RectifiedFlow

    return RectifiedFlow()


def _vp() -> Schedule:
    from .flow_paths.variance_preserving import VariancePreserving

    return VariancePreserving()


def _ve() -> Schedule:
    from .flow_paths.variance_exploding import VarianceExploding

    return VarianceExploding()


SCHEDULES = Table(
    "schedule",
    ScheduleEntry(name="rectified", description="the straight path, whose true velocity is constant", load=_rectified),
    ScheduleEntry(name="vp", description="variance preserving (Song et al. 2021)", load=_vp),
    ScheduleEntry(name="ve", description="variance exploding (Song et al. 2021)", load=_ve),
)


def get_schedule(name: str) -> Schedule:
    """Return the schedule called ``name``.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    return SCHEDULES[name].load()
