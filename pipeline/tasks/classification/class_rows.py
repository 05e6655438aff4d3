"""The outputs of a classifier, brought into another order or cut down to some of them."""

from collections.abc import Collection, Sequence

import torch
from torch import nn

from pipeline.core.errors import UserError


def take_classes(
    network: nn.Module, whole: nn.Module, outputs: Sequence[int], *, num_classes: int, layers: Collection[str]
) -> None:
    """Put the weights of ``whole``, of ``num_classes`` classes, into ``network``, of its ``outputs`` in this order.

    Args:
        layers: the names of the tensors that have a row for each class; a network may have several output layers.

    Raises:
        UserError: there are none, or not all of them begin with the classes.
    """
    state = whole.state_dict()
    if not layers or any(state[name].shape[:1] != (num_classes,) for name in layers):
        raise UserError(
            "train_teacher.classes: no layer of the backbone has an output for each class; reorder the file itself"
        )
    rows = torch.tensor(outputs)
    network.load_state_dict({name: value[rows] if name in layers else value for name, value in state.items()})
