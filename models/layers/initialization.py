"""First weights of networks."""

from torch import nn


def normal_by_fan_out(network: nn.Module) -> None:
    """Draw the weights of all convolutions with variance 2 / fan-out (He et al. 2015); their biases become 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
