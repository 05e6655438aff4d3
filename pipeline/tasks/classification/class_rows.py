"""The outputs of a classifier, brought into another order or cut down to some of them."""

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.core.errors import UserError


def take_classes(network: nn.Module, whole: nn.Module, outputs: Sequence[int], num_classes: int) -> None:
    """Put the weights of ``whole``, of ``num_classes`` classes, into ``network``, of its ``outputs`` in this order.

    Raises:
        UserError: no layer of the network has an output for each class.
    """
    name = last_layer(whole, num_classes)
    rows = torch.tensor(outputs)
    state = {
        key: value[rows] if key.rpartition(".")[0] == name and value.shape[:1] == (num_classes,) else value
        for key, value in whole.state_dict().items()
    }
    network.load_state_dict(state)


def last_layer(network: nn.Module, num_classes: int) -> str:
    """Return the name of the last linear or convolutional layer with ``num_classes`` outputs.

    Raises:
        UserError: there is none.
    """
    layers: list[str] = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.shape[0] == num_classes
    ]
    if not layers:
        raise UserError(
            "train_teacher.classes: no layer of the backbone has an output for each class; reorder the file itself"
        )
    return layers[-1]
