"""The smallest form of a student that is shown to compute what the student computes."""

import copy
import logging
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.deploy import DeployableNetwork
from pipeline.core.errors import GateError
from pipeline.tasks.training import ExportParts, TaskTraining

logger = logging.getLogger(__name__)

TOLERANCE = 1e-9
"""Relative difference of outputs in float64 that a rewriting may make: rounding alone stays far below."""
COMPARED_IMAGES = 16


class Form(NamedTuple):
    """A network that is exported."""

    parts: ExportParts
    """float32, in eval mode."""
    name: str
    """``general``, or the last rewriting: ``folded`` or ``collapsed`` (see ``models.folding``)."""
    difference: float
    """Largest relative difference of its body's outputs from those of the general form, both in float64."""


def smallest_form(network: DeployableNetwork, images: Tensor, task: TaskTraining, *, collapse: bool) -> Form:
    """Return the smallest of the forms that ``network`` offers.

    Each is computed in float64 on the first of ``images`` (uint8, (N, 3, H, W)) and compared with the general form;
    every file is verified against the trained network itself later.

    Raises:
        GateError: a rewriting does not compute what the general form computes.
    """
    precise = copy.deepcopy(network).double().eval()
    shown = images[:COMPARED_IMAGES].double() / 255
    chosen, name, difference = network.general_form(), "general", 0.0
    reference = _outputs(task.export_parts(precise.general_form()).body, shown)
    for rewriting, build in precise.smaller_forms(images.shape[2:], collapse=collapse).items():
        smaller = build()
        found = _difference(_outputs(task.export_parts(smaller).body, shown), reference)
        if not found <= TOLERANCE:
            raise GateError(
                f"the {rewriting} form differs from the student by {found:.3g} in float64: an internal error, please "
                "report it; export_onnx.collapse: false may avoid it"
            )
        chosen, name, difference = smaller, rewriting, found
    return Form(task.export_parts(chosen.float()), name, difference)


@torch.inference_mode()
def _outputs(body: nn.Module, images: Tensor) -> list[Tensor]:
    outputs = body(images)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _difference(found: list[Tensor], reference: list[Tensor]) -> float:
    pairs = zip(found, reference, strict=True)
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in pairs)
