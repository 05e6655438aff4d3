"""The smallest form of a student that is shown to compute what the student computes."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.core.calling import as_tuple
from models.deploy import DeployableNetwork
from pipeline.core.errors import GateError
from pipeline.tasks.training import ExportParts, TaskTraining

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
    """Largest relative difference of its outputs from the student's, both in float64."""


def smallest_form(network: DeployableNetwork, images: Tensor, task: TaskTraining, *, collapse: bool) -> Form:
    """Return the smallest of the forms that ``network`` offers.

    The body of each is computed in float64 on the first of ``images`` (uint8, (N, 3, H, W)) and compared with that of
    the network itself; what a tail makes of it is the same.

    Raises:
        GateError: a rewriting does not compute what the student computes.
    """
    precise = copy.deepcopy(network).double().eval()
    shown = images[:COMPARED_IMAGES].double() / 255
    chosen, name, difference = network.general_form(), "general", 0.0
    with torch.inference_mode():
        reference = as_tuple(task.export_parts(precise).body(shown))
    if not all(bool(output.isfinite().all()) for output in reference):
        raise GateError("the trained network's outputs are not all finite: its training diverged; train it again")
    for rewriting, build in precise.smaller_forms(images.shape[2:], collapse=collapse).items():
        smaller = build()
        with torch.inference_mode():
            found = _difference(as_tuple(task.export_parts(smaller).body(shown)), reference)
        if not found <= TOLERANCE:
            raise GateError(
                f"the {rewriting} form differs from the student by {found:.3g} in float64: an internal error, please "
                "report it; export_onnx.collapse: false may avoid it"
            )
        chosen, name, difference = smaller, rewriting, found
    return Form(task.export_parts(chosen.float()), name, difference)


def _difference(found: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Return the largest difference of an output, as a share of its largest value in ``reference``."""
    return max(
        float((x.double() - y.double()).abs().max() / y.double().abs().max().clamp(min=torch.finfo(y.dtype).tiny))
        if y.is_floating_point()
        else float((x != y).any())
        for x, y in zip(found, reference, strict=True)
    )
