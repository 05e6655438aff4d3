"""Running statistics of batch normalisation that keep up with a short training."""

import logging
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.core.distributed import is_main

logger = logging.getLogger(__name__)

PYTORCH_MOMENTUM = 0.1
"""PyTorch's own share of each batch in the running statistics; no network is given more."""
WINDOWS = 50
"""So many times the running statistics are renewed in a training, or oftener.

They average over about 1 / momentum steps. Some networks bring a momentum of 0.01 and less, made for millions of
steps; within some hundred it leaves the deployed network with the statistics of weights that are long gone.
"""


def keep_up_batch_norms(network: nn.Module, *, num_steps: int, frozen: Sequence[_BatchNorm] = ()) -> None:
    """Raise the momentum of the batch normalisations in ``network`` as far as a training of ``num_steps`` needs it.

    Args:
        frozen: those that keep their running statistics; nothing needs to follow there.
    """
    needed = min(PYTORCH_MOMENTUM, WINDOWS / num_steps)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module not in frozen]
    slow = [norm for norm in norms if _momentum(norm) < needed]
    if slow and is_main():
        logger.info(
            "the momentum of %d batch normalisations is %.3g for this training, not %.3g: their running statistics "
            "could not follow the weights in %d steps",
            len(slow),
            needed,
            min(map(_momentum, slow)),
            num_steps,
        )
    for module in slow:
        module.momentum = needed


def _momentum(module: _BatchNorm) -> float:
    """Return the share of a batch in the running statistics; without one they are plain means over all batches."""
    return 0.0 if module.momentum is None else float(module.momentum)
