"""What a package's latency is compared with: the plain student, and PyTorch itself."""

import tempfile
from pathlib import Path

import torch
from torch import nn

from models.deploy import deployable, without_steps
from models.flow_student import SampledStudent
from pipeline.artifacts import load_network
from pipeline.errors import UserError
from pipeline.export.onnx import export_onnx
from pipeline.packaged import Package
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.torch import TorchRuntime

PLAIN = "plain student, onnx"


def reference_runtimes(package: Package, student: Path, *, num_threads: int, compiled: bool) -> dict[str, Runtime]:
    """Return the plain student (no sampling steps) by ONNX Runtime, and the deployed one by PyTorch, on the CPU.

    Raises:
        UserError: the files of ``student`` are missing or damaged, or of another student.
    """
    network, about = load_network(student)
    num_steps = package.manifest["num_steps"]
    takes_steps, classes = isinstance(network, SampledStudent), about["arguments"].get("num_classes")
    if takes_steps != (num_steps is not None) or classes != len(package.labels):
        raise UserError(f"{student}: is not the student of {package.folder}; give the one that it was exported from")
    return compare_with(
        network, num_steps, package.image_size, package.manifest["opset"], input_dtype=package.input_dtype,
        num_threads=num_threads, compiled=compiled,
    )  # fmt: skip


def compare_with(
    student: nn.Module,
    num_steps: int | None,
    image_size: tuple[int, int],
    opset: int,
    *,
    input_dtype: str = "float32",
    num_threads: int,
    compiled: bool,
) -> dict[str, Runtime]:
    """Return the runtimes of ``reference_runtimes`` for a network in memory; ``compiled`` adds torch.compile."""
    torch.set_num_threads(num_threads)
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plain.onnx")
        plain = without_steps(student)
        export_onnx(plain, path, image_size=image_size, opset=opset, input_dtype=input_dtype, metadata={})
        found: dict[str, Runtime] = {PLAIN: OnnxRuntime(path, num_threads=num_threads)}
    deployed = deployable(student, num_steps)
    found["deployed, torch eager"] = TorchRuntime(deployed, device=device)
    if compiled:
        found["deployed, torch compiled"] = TorchRuntime(torch.compile(deployed, dynamic=False), device=device)
    return found
