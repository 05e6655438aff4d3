"""The table of runtimes over what the stages wrote.

To add one: a ``pipeline.runtimes.base.Runtime`` in a file of ``pipeline/runtimes``, and an entry here; for
``dvc repro`` also a line under ``evaluate`` in dvc.yaml.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.core.table import Entry, Table
from pipeline.core.records import ManifestRecord, StatusRecord, read_record
from pipeline.export.folder import MANIFEST, fp32_first

if TYPE_CHECKING:
    import torch

    from models.deploy import DeployableNetwork
    from pipeline.core.signature import Signature
    from pipeline.runtimes.base import Runtime
    from pipeline.tasks.base import Task

Opened = dict[str, Callable[[], "Runtime"]]
"""From each precision, fp32 first, to what opens its runtime."""


@dataclass(frozen=True)
class Options:
    """What opening a runtime may need."""

    network: DeployableNetwork
    """The trained student with its steps."""
    task: Task
    signature: Signature
    provider: str
    """Of ONNX Runtime."""
    num_threads: int
    """CPU threads of an ONNX Runtime session; PyTorch's are set for the whole process."""
    device: torch.device
    """Where PyTorch runs."""


Open = Callable[[Path, Options], Opened]
"""From the folder of what is evaluated to how its runtimes are opened; raises UserError where files are damaged."""


@dataclass(frozen=True, kw_only=True)
class RuntimeEntry(Entry):
    """A runtime in the table."""

    load: Callable[[], Open]
    artifact: str
    """Folder in the project of what it runs, where ``dvc repro`` evaluates it."""
    missing: Callable[[Path], str | None] | None = None
    """From the folder of what is evaluated to the reason why it has nothing on this host, or None, without PyTorch.

    None: there always is something.
    """

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with this entry."""
        yield from super().faults()
        if not isinstance(self.artifact, str) or not self.artifact:
            yield f"has the artifact {self.artifact!r}; give a folder in the project, e.g. artifacts/onnx"


def _torch() -> Open:
    from pipeline.runtimes.torch import TorchRuntime

    def open_torch(folder: Path, options: Options) -> Opened:  # noqa: ARG001  (signature of Open)
        own = copy.deepcopy(options.network)  # its forms share weights, and the reference is computed on the CPU
        network = options.task.training().export_parts(own.general_form()).whole().to(options.device)
        names, device = options.signature.output_names, options.device
        return {"fp32": lambda: TorchRuntime(network, output_names=names, device=device)}

    return open_torch


def _onnx() -> Open:
    from pipeline.runtimes.onnx import OnnxRuntime

    def open_onnx(folder: Path, options: Options) -> Opened:
        def opener(file: str) -> Callable[[], Runtime]:
            return lambda: OnnxRuntime(folder / file, provider=options.provider, num_threads=options.num_threads)

        files = read_record(folder / MANIFEST, ManifestRecord)["files"]
        return fp32_first({entry["precision"]: opener(file) for file, entry in files.items()})

    return open_onnx


def _tensorrt() -> Open:
    from pipeline.runtimes.tensorrt import open_engine

    def open_tensorrt(folder: Path, options: Options) -> Opened:  # noqa: ARG001  (signature of Open)
        def opener(sidecar: str) -> Callable[[], Runtime]:
            return lambda: open_engine(folder / sidecar.removesuffix(".json"))

        engines = read_record(folder / "status.json", StatusRecord)["engines"]
        return fp32_first({precision: opener(sidecar) for precision, sidecar in engines.items()})

    return open_tensorrt


def _without_engines(folder: Path) -> str | None:
    status = read_record(folder / "status.json", StatusRecord)
    return str(status["reason"]) if status["status"] == "skipped" else None


RUNTIMES = Table(
    "runtime",
    RuntimeEntry(name="torch", description="PyTorch in eager mode", load=_torch, artifact="artifacts/student"),
    RuntimeEntry(name="onnx", description="ONNX Runtime", load=_onnx, artifact="artifacts/onnx"),
    RuntimeEntry(
        name="tensorrt",
        description="TensorRT, where engines were built",
        load=_tensorrt,
        artifact="artifacts/tensorrt",
        missing=_without_engines,
    ),
)
