"""The table of methods: the ways of training a student.

To add one: a ``pipeline.distillation.method.Method`` in a file of its own, and an entry here. Nothing here imports
PyTorch before an entry is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.core.table import Entry, Table
from pipeline.distillation.criteria import FEATURES, LOGITS, TRANSFERS, transfer_faults

if TYPE_CHECKING:
    from pipeline.distillation.method import Method


@dataclass(frozen=True, kw_only=True)
class MethodEntry(Entry):
    """A method in the table."""

    load: Callable[[], Method]
    needs_teacher: bool = True
    needs_feature_map: bool = True
    """Whether the student's backbone must pool a feature map, also where logits are transferred."""
    transfers: tuple[str, ...] = (LOGITS,)
    """What it can transfer, of ``TRANSFERS``."""
    uses_criterion: bool = True
    """Whether ``distill_student.loss`` means something to it."""
    takes_given: bool = False
    """Whether its student may be a given network as it is: there is nothing that only training could bring."""

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with this entry."""
        yield from super().faults()
        yield from transfer_faults("transfers", self.transfers, TRANSFERS)


def _fm_kt() -> Method:
    from pipeline.distillation.fm_kt import FlowMatchingTransfer

    return FlowMatchingTransfer()


def _fm_kt_theta() -> Method:
    from pipeline.distillation.fm_kt_theta import ThetaTransfer

    return ThetaTransfer()


def _ofm_kt() -> Method:
    from pipeline.distillation.ofm_kt import OnlineTransfer

    return OnlineTransfer()


def _none() -> Method:
    from pipeline.distillation.controls import LabelsAlone

    return LabelsAlone()


def _metric() -> Method:
    from pipeline.distillation.controls import CriterionAlone

    return CriterionAlone()


def _metric_meta() -> Method:
    from pipeline.distillation.controls import CriterionWithMetaEncoder

    return CriterionWithMetaEncoder()


METHODS = Table(
    "method",
    MethodEntry(
        name="fm_kt",
        description="FM-KT: the student takes sampling steps towards the teacher, also when deployed",
        load=_fm_kt,
        transfers=TRANSFERS,
    ),
    MethodEntry(
        name="fm_kt_theta",
        description="FM-KT^Theta: a plain student learns from a flow that does not deploy",
        load=_fm_kt_theta,
    ),
    MethodEntry(
        name="ofm_kt",
        description="OFM-KT: the flow learns from the mean of its own steps, without a teacher",
        load=_ofm_kt,
        needs_teacher=False,
    ),
    MethodEntry(
        name="none",
        description="control: labels alone",
        load=_none,
        needs_teacher=False,
        needs_feature_map=False,
        transfers=TRANSFERS,
        uses_criterion=False,
        takes_given=True,
    ),
    MethodEntry(
        name="metric",
        description="control: the criterion alone, without a flow",
        load=_metric,
        needs_feature_map=False,
        transfers=TRANSFERS,
    ),
    MethodEntry(
        name="metric_meta",
        description="control: the criterion, and the meta-encoder as ordinary layers",
        load=_metric_meta,
        transfers=(LOGITS, FEATURES),
    ),
)
