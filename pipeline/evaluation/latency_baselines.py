"""What a package's latency is compared with: the plain student, and PyTorch itself."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.deploy import DeployableNetwork, with_num_steps
from pipeline.core.errors import UserError
from pipeline.core.signature import Signature
from pipeline.export.onnx.exporter import export_image_network
from pipeline.networks.saved import load_network
from pipeline.package.reader import Package
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.torch import TorchRuntime

PLAIN = "plain student, onnx"
CPU = torch.device("cpu")


def baseline_runtimes(package: Package, student: Path, *, num_threads: int, compiled: bool) -> dict[str, Runtime]:
    """Return the plain student (no sampling steps) by ONNX Runtime, and the deployed one by PyTorch, on the CPU.

    Args:
        compiled: also torch.compile.

    Raises:
        UserError: the files of ``student`` are missing or damaged, or of another student.
    """
    network, signature = _load_student(package, student), package.signature
    training, names = package.task.training(), signature.output_names
    torch.set_num_threads(num_threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plain.onnx")
        opset = package.manifest["opset"]
        plain = training.export_parts(network.without_flows()).whole()
        export_image_network(plain, path, signature.input, names, opset=opset, metadata={})
        found: dict[str, Runtime] = {PLAIN: OnnxRuntime(path, num_threads=num_threads)}
    deployed = training.export_parts(network.general_form()).whole()
    found["deployed, torch eager"] = TorchRuntime(deployed, output_names=names, device=CPU)
    if compiled:
        faster = torch.compile(deployed, dynamic=False)
        found["deployed, torch compiled"] = TorchRuntime(faster, output_names=names, device=CPU)
    return found


def _load_student(package: Package, student: Path) -> DeployableNetwork:
    """Return the network in ``student`` with the package's number of steps.

    Raises:
        UserError: its files are missing or damaged, or it is not what the package was exported from.
    """
    trained, _ = load_network(student)
    other = UserError(f"{student}: is not the student of {package.folder}; give the one that it was exported from")
    try:
        network = with_num_steps(trained, package.manifest["num_steps"]).eval()
        fits = _returns(package.task.training().export_parts(network).whole(), package.signature)
    except ValueError as error:
        raise other from error
    if not fits:
        raise other
    return network


def _returns(network: nn.Module, signature: Signature) -> bool:
    """Return whether ``network`` has the outputs of ``signature``; raises ValueError where it has another number."""
    runtime = TorchRuntime(network, output_names=signature.output_names, device=CPU)
    outputs = runtime.infer(np.zeros((1, *signature.input.shape), np.float32))
    return all(outputs[spec.name].shape[1:] == spec.shape for spec in signature.outputs)
