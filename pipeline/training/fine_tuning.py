"""How the backbone of a network that starts from given weights goes on learning."""

from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.training.settings import FineTuning


class TunedBackbone:
    """The part of ``network`` that given weights brought, and what ``settings`` let it learn in which epoch.

    While it is frozen no gradient of its parameters is computed, so that no optimizer moves them or keeps a state of
    them, and its batch normalisations keep their running statistics.

    Args:
        names: of its tensors. They stand for the tensors themselves, whose modules may be exchanged on the way. Those
            that the network's author has frozen stay so.
    """

    def __init__(self, network: nn.Module, names: Collection[str], settings: FineTuning) -> None:
        self.network = network
        self.names = frozenset(names)
        self.settings = settings
        self.fixed = frozenset(name for name, tensor in network.named_parameters() if not tensor.requires_grad)
        self.is_frozen = False

    def parameters(self) -> list[nn.Parameter]:
        """Return its parameters, but for those that never learn."""
        learning = self.names - self.fixed
        return [parameter for name, parameter in self.network.named_parameters() if name in learning]

    def batch_norms(self) -> list[_BatchNorm]:
        """Return its batch normalisations."""
        return [
            module
            for name, module in self.network.named_modules()
            if isinstance(module, _BatchNorm)
            and self.names.intersection(f"{name}.{own}" for own in module.state_dict())
        ]

    def set_epoch(self, epoch: int) -> None:
        """Freeze it in the first epochs, counted from 0, as the settings say, and free it in the others."""
        self.is_frozen = epoch < self.settings.frozen_epochs
        for parameter in self.parameters():
            parameter.requires_grad_(not self.is_frozen)

    def hold_batch_norms(self) -> None:
        """Put its batch normalisations into eval mode, where they keep their statistics in this epoch."""
        if self.is_frozen or self.settings.batch_norm == "frozen":
            for norm in self.batch_norms():
                norm.eval()
