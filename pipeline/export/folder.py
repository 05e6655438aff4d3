"""What an export writes beside its files, read back without PyTorch: the manifest, and samples to verify with."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pipeline.core.errors import UserError, user_error
from pipeline.core.files import Json
from pipeline.core.plain import read_plain
from pipeline.core.tensor_file import read_tensors
from pipeline.export.precisions import FP32, PRECISIONS
from pipeline.tasks.gate import Gate
from pipeline.tasks.table import exported_task
from pipeline.tasks.verification import Reference

Value = TypeVar("Value")

MANIFEST = "manifest.json"
SAMPLES = "samples.safetensors"


def read_samples(folder: Path, manifest: Json) -> Reference:
    """Return images and the trained network's outputs, which ``folder`` holds beside the files of ``manifest``.

    What is right about the images is among them where the task is scored on so few.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / SAMPLES
    try:
        tensors = read_tensors(path)
        task = exported_task(manifest)
        truth = {name: tensors.pop(name) for name in task.truth_names} if task.scored_on_samples else {}
        return Reference(task, tensors.pop("images"), truth, tensors)
    except UserError:
        raise
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: missing or damaged ({error}); fetch the package again") from error


def read_gate(manifest: Json, precision: str, *, gpu_kernels: bool) -> Gate:
    """Return how far a network of ``precision`` may be from the trained one, as ``manifest`` says.

    Args:
        gpu_kernels: it does not run on the CPU, where its file was verified.

    Raises:
        UserError: ``manifest`` does not say it.
    """
    given = manifest["gates"].get(precision)
    if given is None:
        raise UserError(f"{MANIFEST}: has no gates of {precision}; export or fetch it again")
    with user_error(f"{MANIFEST}: gates of {precision}", advice="export or fetch it again"):
        gate = read_plain(Gate, _as_today(given, precision))
    return gate.for_gpu_kernels() if gpu_kernels and precision == FP32 else gate


def _as_today(gate: Json, precision: str) -> Json:
    """Return a gate by the names of today; raises ValueError where it is none.

    The gates of earlier versions bound differences by absolute values; today's bound of the precision stands for them.
    """
    if "max_abs_diff" not in gate:
        return gate
    bound = None if gate["max_abs_diff"] is None else PRECISIONS[precision].gate.max_difference
    renamed = {"min_agreement": gate.get("min_top1_agreement"), "max_drop": gate.get("max_drop")}
    return {"max_difference": bound, **renamed}


def fp32_first(by_precision: Mapping[str, Value]) -> dict[str, Value]:
    """Return ``by_precision`` in the order in which precisions are shown."""
    return dict(sorted(by_precision.items(), key=lambda item: (item[0] != FP32, item[0])))
