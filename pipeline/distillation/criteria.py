"""The table of criteria: the losses L(student, teacher) by which a student is compared with its teacher.

To add one: a function in ``models/losses.py`` or a file of its own, and an entry here. Nothing here imports PyTorch
before an entry is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from models.core.table import Entry, Table
from pipeline.core.settings import NonNegative, Positive, Section, settings_faults

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[..., Tensor]
    """From student's and teacher's tensors, and the settings by their names, to a scalar."""

Transfer = Literal["logits", "features", "features_and_logits"]
"""What can be transferred."""
LOGITS: Transfer = "logits"
FEATURES: Transfer = "features"
FEATURES_AND_LOGITS: Transfer = "features_and_logits"
TRANSFERS = (LOGITS, FEATURES, FEATURES_AND_LOGITS)
COMPARED = (LOGITS, FEATURES)
"""What a criterion compares."""


@dataclass(frozen=True, kw_only=True)
class CriterionEntry(Entry):
    """A criterion in the table."""

    load: Callable[[], Loss]
    applies_to: tuple[str, ...]
    """What it compares, of ``COMPARED``."""
    settings: type[Section] | None = None
    """Its settings; they go to the function by their names. None: it has none.

    A setting ``warmup_epochs`` is not the function's: over so many epochs the loss grows linearly to its full weight.
    """
    takes_labels: bool = False
    """Whether the function takes the labels (B,) as its third argument."""
    whole_from_classes: int = 2
    """The number of classes from which on every part of it has a gradient."""
    idle_part: str = ""
    """The part that has none with fewer classes, in words."""

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with this entry."""
        yield from super().faults()
        yield from transfer_faults("applies to", self.applies_to, COMPARED)
        if self.settings is not None:
            yield from settings_faults(self.settings)


def transfer_faults(what: str, transfers: object, known: tuple[str, ...]) -> Iterator[str]:
    """Yield what is wrong with ``transfers``, some of the ``known``, which an entry says by ``what``."""
    if not isinstance(transfers, tuple) or not transfers or not set(transfers) <= set(known):
        yield f"{what} {transfers or 'nothing'}; give a tuple of {', '.join(known)}"


class KdSettings(Section):
    """Settings of ``kd``."""

    temperature: Positive = Field(4.0, description="softens both distributions")


class DkdSettings(Section):
    """Settings of ``dkd``."""

    alpha: NonNegative = Field(1.0, description="weight of target against the other classes")
    beta: NonNegative = Field(2.0, description="weight of the classes among the others")
    temperature: Positive = Field(4.0, description="softens both distributions")
    warmup_epochs: Annotated[int, Field(ge=0)] = Field(20, description="epochs until the loss has its full weight")


class DistSettings(Section):
    """Settings of ``dist``."""

    beta: NonNegative = Field(2.0, description="weight of the correlation of classes")
    gamma: NonNegative = Field(2.0, description="weight of the correlation of images")
    temperature: Positive = Field(1.0, description="softens both distributions")


def _kd() -> Loss:
    from models.losses import kd_loss

    return kd_loss


def _dkd() -> Loss:
    from models.losses import dkd_loss

    return dkd_loss


def _dist() -> Loss:
    from models.losses import dist_loss

    return dist_loss


def _pkd() -> Loss:
    from models.losses import pkd_loss

    return pkd_loss


def _mse() -> Loss:
    from models.losses import mse_loss

    return mse_loss


CRITERIA = Table(
    "criterion",
    CriterionEntry(
        name="kd",
        description="softened cross-entropy (Hinton et al. 2015)",
        load=_kd,
        applies_to=(LOGITS,),
        settings=KdSettings,
    ),
    CriterionEntry(
        name="dkd",
        description="target and other classes decoupled (Zhao et al. 2022)",
        load=_dkd,
        applies_to=(LOGITS,),
        settings=DkdSettings,
        takes_labels=True,
        whole_from_classes=3,
        idle_part="its part on the classes among the others (beta)",
    ),
    CriterionEntry(
        name="dist",
        description="correlation of classes and of images (Huang et al. 2022)",
        load=_dist,
        applies_to=(LOGITS,),
        settings=DistSettings,
        whole_from_classes=3,
        idle_part="its correlation of classes (beta)",
    ),
    CriterionEntry(
        name="pkd",
        description="correlation of feature maps, channel by channel (Cao et al. 2022)",
        load=_pkd,
        applies_to=(FEATURES,),
    ),
    CriterionEntry(name="mse", description="mean squared difference", load=_mse, applies_to=(LOGITS, FEATURES)),
)
