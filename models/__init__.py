"""Networks, flows and losses of flow-matching knowledge transfer (FM-KT, arXiv 2402.02012) for PyTorch.

Installed on its own it is called ``fmkt``. What a training loop of one's own needs is offered here, and imported when
it is asked for; ``__all__`` lists it.

``core`` (tables, typed calls), ``layers``, ``backbones``, ``encoder_bodies`` and ``flow_paths`` hold the parts. Built
from them: ``integrate`` (Euler steps), ``schedules`` and ``meta_encoders`` (the tables), ``flow``, ``losses``,
``transfer_losses`` (what a batch costs by each method), ``classifier``, ``students``; ``factory`` builds by name,
``meta_encoder`` is what all encoders have in common, ``global_batch_norm`` serves training in several processes;
``folding`` and ``deploy`` give the forms in which a student ships; ``detections`` says what is reported of boxes. It
imports PyTorch and torchvision only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .deploy import fold
    from .flow import FlowTransfer, build_flow, build_logit_flow, start_at_rest
    from .integrate import Trajectory, euler
    from .likelihood import (
        categorical_figures,
        centred,
        flow_log_likelihood,
        gaussian_figures,
        squared_errors,
    )
    from .losses import dist_loss, dkd_loss, kd_loss, mse_loss, pkd_loss, step_cross_entropy
    from .meta_encoders import META_ENCODERS, build_meta_encoder
    from .schedules import SCHEDULES, get_schedule
    from .step_sampler import StepSampler
    from .transfer_losses import (
        FeatureTransferLoss,
        FlowTransferLoss,
        HeadTransferLoss,
        OnlineTransferLoss,
        ThetaTransferLoss,
        paired,
    )

_PLACES = {
    "deploy": ("fold",),
    "flow": ("FlowTransfer", "build_flow", "build_logit_flow", "start_at_rest"),
    "integrate": ("Trajectory", "euler"),
    "likelihood": ("categorical_figures", "centred", "flow_log_likelihood", "gaussian_figures", "squared_errors"),
    "losses": ("dist_loss", "dkd_loss", "kd_loss", "mse_loss", "pkd_loss", "step_cross_entropy"),
    "meta_encoders": ("META_ENCODERS", "build_meta_encoder"),
    "schedules": ("SCHEDULES", "get_schedule"),
    "step_sampler": ("StepSampler",),
    "transfer_losses": (
        "FeatureTransferLoss",
        "FlowTransferLoss",
        "HeadTransferLoss",
        "OnlineTransferLoss",
        "ThetaTransferLoss",
        "paired",
    ),
}
"""What each module offers here."""

__all__ = [
    "META_ENCODERS",
    "SCHEDULES",
    "FeatureTransferLoss",
    "FlowTransfer",
    "FlowTransferLoss",
    "HeadTransferLoss",
    "OnlineTransferLoss",
    "StepSampler",
    "ThetaTransferLoss",
    "Trajectory",
    "build_flow",
    "build_logit_flow",
    "build_meta_encoder",
    "categorical_figures",
    "centred",
    "dist_loss",
    "dkd_loss",
    "euler",
    "flow_log_likelihood",
    "fold",
    "gaussian_figures",
    "get_schedule",
    "kd_loss",
    "mse_loss",
    "paired",
    "pkd_loss",
    "squared_errors",
    "start_at_rest",
    "step_cross_entropy",
]

if not TYPE_CHECKING:  # a type checker would take any name to be there

    def __getattr__(name: str) -> Any:
        """Import what is offered by ``name`` as it is asked for: PyTorch is not needed to read a table."""
        for module, names in _PLACES.items():
            if name in names:
                return getattr(import_module(f".{module}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what is offered here."""
    return __all__
