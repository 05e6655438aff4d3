"""The models of a package, loaded, checked and warmed up before the first request."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from pipeline.core.arrays import Outputs
from pipeline.core.errors import UserError
from pipeline.data.decoding import MAX_MEGAPIXELS
from pipeline.package.proof import open_runtime, verify_samples
from pipeline.package.reader import Package
from pipeline.runtimes.provider import PROOF_SECONDS
from pipeline.serving.pictures import PictureReader
from pipeline.serving.statistics import Statistics
from pipeline.serving.tensors import TensorSpec, require_finite, served
from pipeline.tasks.base import Classes, Placement, Prediction, Task

VERSION = "1"
PLATFORM = "onnxruntime_onnx"


class Run(NamedTuple):
    """Outputs with the moments, in nanoseconds, between which they were computed."""

    outputs: Outputs
    taken: int
    """When the work on the request began: before pictures were decoded, otherwise ``started``."""
    started: int
    ended: int
    placements: list[Placement] | None = None
    """Of pictures; None: there were none."""


@dataclass(frozen=True)
class ServedModel:
    """A model as clients see it."""

    name: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    infer: Callable[[NDArray[Any]], Outputs]
    """From images (batch, 3, H, W) to ``outputs``."""
    task: Task
    classes: Classes
    pictures: PictureReader
    description: str
    """Runtime, version, provider and threads in words."""
    on_gpu: bool
    statistics: Statistics = field(default_factory=Statistics)

    def run(self, batch: NDArray[Any]) -> Run:
        """Return the outputs of images (batch, 3, H, W)."""
        started = time.perf_counter_ns()
        outputs = self.infer(batch)
        return Run(outputs, started, started, time.perf_counter_ns())

    def run_files(self, files: Sequence[bytes], *, until: float) -> Run:
        """Return the outputs of image files, which raises what ``PictureReader.prepare`` does."""
        taken = time.perf_counter_ns()
        prepared = self.pictures.prepare(files, until=until)
        return self.run(prepared.batch)._replace(taken=taken, placements=prepared.placements)

    def predict(self, file: bytes, *, top: int | None, min_score: float | None, until: float) -> tuple[Run, Prediction]:
        """Return what is seen on an image file; raises RefusalError as ``run_files`` does."""
        run = self.run_files([file], until=until)
        require_finite(run.outputs, "this picture")
        assert run.placements is not None
        (found,) = self.task.predictions(run.placements, run.outputs, self.classes, top=top, min_score=min_score)
        return run, found

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's model metadata."""
        inputs, outputs = (
            [{"name": spec.name, "datatype": spec.datatype, "shape": [-1, *spec.shape]} for spec in specs]
            for specs in ((self.input,), self.outputs)
        )
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": inputs,
            "outputs": outputs,
        }

    def config(self, max_batch: int, num_workers: int, facts: Mapping[str, str]) -> dict[str, Any]:
        """Return the protocol's model configuration; shapes are without the batch there.

        Args:
            facts: what the package says of itself, which become parameters.
        """
        inputs, outputs = (
            [{"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": list(spec.shape)} for spec in specs]
            for specs in ((self.input,), self.outputs)
        )
        return {
            "name": self.name,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": max_batch,
            "input": inputs,
            "output": outputs,
            "parameters": {f"package_{key}": {"string_value": value} for key, value in facts.items()},
            "instance_group": [
                {"name": self.name, "kind": "KIND_GPU" if self.on_gpu else "KIND_CPU", "count": num_workers}
            ],
        }


def package_facts(package: Package) -> dict[str, str]:
    """Return name, version and commit of ``package``, as far as it states them; earlier ones state the name alone."""
    about = package.manifest.get("about", {})
    return {"name": package.name} | {key: about[key] for key in ("version", "commit") if about.get(key) is not None}


def load_models(
    package: Package,
    precisions: Sequence[str],
    *,
    provider: str,
    num_threads: int,
    max_megapixels: float = MAX_MEGAPIXELS,
    seconds: float = PROOF_SECONDS,
) -> list[ServedModel]:
    """Return a model for each of ``precisions``: the first has the package's name, others have theirs appended.

    Args:
        max_megapixels: largest number of pixels of a picture, in millions.
        seconds: that each file may take to be loaded and proved; the process ends where one takes longer.

    Raises:
        UserError: a file is missing, damaged or tampered with, or is no model of this package.
        GateError: a file does not give the package's outputs of its sample images on this host.
    """
    if len(set(precisions)) != len(precisions):
        raise UserError(f"--precision: got {', '.join(precisions)}; name each one once")
    package.verified(package.file(precision).name for precision in precisions)
    pictures = PictureReader(package.image_size, package.task.resize, package.input_dtype, max_megapixels)
    models: list[ServedModel] = []
    for precision in precisions:
        runtime = open_runtime(  # its run is the one that takes longest
            package, precision, provider=provider, num_threads=num_threads, spinning=False, seconds=seconds
        )
        model = ServedModel(
            name=f"{package.name}-{precision}" if models else package.name,
            input=served(package.signature.input),
            outputs=tuple(served(output) for output in package.signature.outputs),
            infer=runtime.infer,
            task=package.task,
            classes=package.classes,
            pictures=pictures,
            description=runtime.describe(),
            on_gpu=provider != "cpu",
        )
        verify_samples(package, precision, runtime, gpu_kernels=model.on_gpu, seconds=seconds)
        models.append(model)
    return models
