"""The models of a package, loaded, checked and warmed up before the first request."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.package.reader import LABELS, MANIFEST, SAMPLES, Package, check_files, choose_file
from pipeline.package.verify import verify_samples
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.serving.statistics import Statistics
from pipeline.serving.tensors import DATATYPES, DTYPES, TensorSpec

VERSION = "1"
PLATFORM = "onnxruntime_onnx"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
RESERVED = "stats"
"""A path of the protocol stands where this model's would: /v2/models/stats."""


class Run(NamedTuple):
    """Logits with the moments, in nanoseconds, between which they were computed."""

    logits: NDArray[np.float32]
    started: int
    ended: int


@dataclass(frozen=True)
class ServedModel:
    """A model as clients see it."""

    name: str
    input: TensorSpec
    output: TensorSpec
    labels: tuple[str, ...]
    infer: Callable[[NDArray[Any]], NDArray[np.float32]]
    """From images (batch, 3, H, W) to logits (batch, num_classes)."""
    description: str
    """Runtime, version, provider and threads in words."""
    on_gpu: bool
    statistics: Statistics = field(default_factory=Statistics)

    def run(self, batch: NDArray[Any]) -> Run:
        """Return logits (batch, num_classes) of images (batch, 3, H, W)."""
        started = time.perf_counter_ns()
        logits = self.infer(batch)
        return Run(logits, started, time.perf_counter_ns())

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's model metadata."""
        tensors = {"inputs": [self.input], "outputs": [self.output]}
        described = {
            kind: [{"name": s.name, "datatype": s.datatype, "shape": [-1, *s.shape]} for s in specs]
            for kind, specs in tensors.items()
        }
        return {"name": self.name, "versions": [VERSION], "platform": PLATFORM, **described}

    def config(self, max_batch: int, num_workers: int) -> dict[str, Any]:
        """Return the protocol's model configuration; shapes are without the batch there."""
        inputs, outputs = (
            {"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": list(spec.shape)}
            for spec in (self.input, self.output)
        )
        return {
            "name": self.name,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": max_batch,
            "input": [inputs],
            "output": [outputs],
            "instance_group": [
                {"name": self.name, "kind": "KIND_GPU" if self.on_gpu else "KIND_CPU", "count": num_workers}
            ],
        }


def load_models(package: Package, precisions: Sequence[str], *, provider: str, num_threads: int) -> list[ServedModel]:
    """Return a model for each of ``precisions``: the first has the package's name, others have theirs appended.

    Raises:
        UserError: a file is missing, damaged or tampered with, or is no model of this package.
        GateError: a file does not give the package's logits of its sample images on this host.
    """
    if not NAME.fullmatch(package.name) or package.name == RESERVED:
        raise UserError(f"{package.folder}: the name {package.name!r} cannot be part of a URL; set package.name")
    if len(set(precisions)) != len(precisions):
        raise UserError(f"--precision: got {', '.join(precisions)}; name each one once")
    files = [choose_file(package, precision) for precision in precisions]
    has_samples = (package.folder / SAMPLES).exists()
    check_files(package, [MANIFEST, LABELS, *(file.name for file in files), *([SAMPLES] if has_samples else [])])
    models: list[ServedModel] = []
    for precision, file in zip(precisions, files, strict=True):
        runtime = OnnxRuntime(file, provider=provider, num_threads=num_threads, spinning=False)
        name = f"{package.name}-{precision}" if models else package.name
        model = ServedModel(
            name=name,
            input=TensorSpec("image", DATATYPES[runtime.input_dtype], (3, *package.image_size)),
            output=TensorSpec("logits", "FP32", (len(package.labels),)),
            labels=package.labels,
            infer=runtime.infer,
            description=runtime.describe(),
            on_gpu=provider != "cpu",
        )
        _warm_up(model, str(file))
        if has_samples:
            verify_samples(package, precision, runtime, gpu_kernels=model.on_gpu)
        models.append(model)
    return models


def _warm_up(model: ServedModel, file: str) -> None:
    """Run the model once, so that no client waits for what a first run does, and look at what comes out."""
    image = np.zeros((1, *model.input.shape), DTYPES[model.input.datatype])
    logits = model.infer(image)
    expected = (1, *model.output.shape)
    if logits.shape != expected or logits.dtype != np.float32 or not np.isfinite(logits).all():
        got = f"{logits.dtype} {list(logits.shape)}"
        raise UserError(f"{file}: a black image gives {got}, expected finite float32 {list(expected)}; wrong package?")
