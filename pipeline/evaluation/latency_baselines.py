"""What a package's latency is compared with: the plain student, and PyTorch itself."""

import tempfile
from pathlib import Path

import torch

from models.deploy import deployable, without_steps
from models.students import SampledStudent
from pipeline.core.errors import UserError
from pipeline.export.onnx.exporter import export_onnx
from pipeline.networks.saved import load_network
from pipeline.package.reader import Package
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.torch import TorchRuntime

PLAIN = "plain student, onnx"


def baseline_runtimes(package: Package, student: Path, *, num_threads: int, compiled: bool) -> dict[str, Runtime]:
    """Return the plain student (no sampling steps) by ONNX Runtime, and the deployed one by PyTorch, on the CPU.

    ``compiled`` adds torch.compile.

    Raises:
        UserError: the files of ``student`` are missing or damaged, or of another student.
    """
    network, about = load_network(student)
    num_steps = package.manifest["num_steps"]
    takes_steps, classes = isinstance(network, SampledStudent), about["arguments"].get("num_classes")
    if takes_steps != (num_steps is not None) or classes != len(package.labels):
        raise UserError(f"{student}: is not the student of {package.folder}; give the one that it was exported from")
    torch.set_num_threads(num_threads)
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plain.onnx")
        export_onnx(
            without_steps(network), path, image_size=package.image_size, opset=package.manifest["opset"],
            input_dtype=package.input_dtype, metadata={},
        )  # fmt: skip
        found: dict[str, Runtime] = {PLAIN: OnnxRuntime(path, num_threads=num_threads)}
    deployed = deployable(network, num_steps)
    found["deployed, torch eager"] = TorchRuntime(deployed, device=device)
    if compiled:
        found["deployed, torch compiled"] = TorchRuntime(torch.compile(deployed, dynamic=False), device=device)
    return found
