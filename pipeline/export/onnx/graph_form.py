"""The smallest form of a student that is proved to compute what the student computes."""

import copy
import logging
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.deploy import deployable, smaller_forms
from pipeline.core.errors import GateError

logger = logging.getLogger(__name__)

TOLERANCE = 1e-9
"""Relative difference of logits in float64 that a rewriting may make: rounding alone stays far below."""
PROOF_IMAGES = 16


class Form(NamedTuple):
    """A network that is exported."""

    network: nn.Module
    """float32, in eval mode: images to logits."""
    name: str
    """``general``, or the last rewriting: ``folded`` or ``collapsed`` (see ``models.folding``)."""
    difference: float
    """Largest relative difference of its logits from the student's, both in float64."""


def smallest_form(student: nn.Module, num_steps: int | None, images: Tensor, *, collapse: bool) -> Form:
    """Return the smallest of the forms of ``student`` that ``models.deploy.smaller_forms`` offers.

    Each is computed in float64 on the first of ``images`` (uint8, (N, 3, H, W)) and compared with the student itself.

    Raises:
        GateError: a rewriting does not compute what the student computes.
    """
    precise = copy.deepcopy(student).double().eval()
    shown = images[:PROOF_IMAGES].double() / 255
    form = Form(deployable(student, num_steps), "general", 0.0)
    with torch.inference_mode():
        reference = precise(shown) if num_steps is None else precise(shown, num_steps)
    for name, build in smaller_forms(precise, num_steps, image_size=images.shape[2:], collapse=collapse).items():
        network = build()
        with torch.inference_mode():
            found = float((network(shown) - reference).abs().max() / reference.abs().max())
        if not found <= TOLERANCE:
            raise GateError(f"the {name} form differs from the student by {found:.3g} in float64; this is a fault here")
        form = Form(network, name, found)
    return form._replace(network=form.network.float())
