"""TensorRT engines: planned anywhere, built by polygraphy on the device that will run them."""

import shlex
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import GateError
from pipeline.files import Json, sha256, write_json

ENGINE = "model.plan"
STATUS = "status.json"
INPUT = "image"


class EnginePlan(NamedTuple):
    """What to build."""

    onnx: Path
    image_size: tuple[int, int]
    min_batch: int
    opt_batch: int
    max_batch: int
    optimization_level: int
    workspace_mib: int

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        """Return the shape of the input for ``batch`` images."""
        return (batch, 3, *self.image_size)


def trtexec_command(plan: EnginePlan) -> str:
    """Return the shell command that builds the same FP32 engine with NVIDIA's trtexec, beside the ONNX file.

    The file's types decide the precision (``--stronglyTyped``), and TF32 stays off as polygraphy leaves it.
    """
    shapes = {"min": plan.min_batch, "opt": plan.opt_batch, "max": plan.max_batch}
    words = [
        "trtexec",
        f"--onnx={plan.onnx.name}",
        f"--saveEngine={ENGINE}",
        "--stronglyTyped",
        "--noTF32",
        f"--builderOptimizationLevel={plan.optimization_level}",
        f"--memPoolSize=workspace:{plan.workspace_mib}",
        *(f"--{name}Shapes={INPUT}:{'x'.join(map(str, plan.shape(batch)))}" for name, batch in shapes.items()),
    ]
    return shlex.join(words)


def write_skipped(folder: Path, plan: EnginePlan, environment: Json) -> Json:
    """Write and return a status that says why no engine was built here and how to build it on the target device."""
    status: Json = {
        "status": "skipped",
        "reason": environment["reason"],
        "on_the_target_device": trtexec_command(plan),
        "onnx_sha256": sha256(plan.onnx),
    }
    write_json(folder / STATUS, status)
    return status


def build_engine(folder: Path, plan: EnginePlan, environment: Json) -> Json:
    """Build a strongly typed engine into ``folder`` and return its status.

    Raises:
        GateError: TensorRT does not accept the network or cannot build it.
    """
    import tensorrt
    from polygraphy.backend.trt import CreateConfig, NetworkFromOnnxPath, Profile, engine_from_network, save_engine
    from polygraphy.exception import PolygraphyException

    profile = Profile().add(
        INPUT, min=plan.shape(plan.min_batch), opt=plan.shape(plan.opt_batch), max=plan.shape(plan.max_batch)
    )
    try:
        config = CreateConfig(
            profiles=[profile],
            builder_optimization_level=plan.optimization_level,
            memory_pool_limits={tensorrt.MemoryPoolType.WORKSPACE: plan.workspace_mib * 2**20},
        )
        engine = engine_from_network(NetworkFromOnnxPath(str(plan.onnx), strongly_typed=True), config=config)
        save_engine(engine, str(folder / ENGINE))
    except PolygraphyException as error:
        raise GateError(
            f"{plan.onnx}: TensorRT {environment['tensorrt']} could not build the engine: {error}"
        ) from error
    status: Json = {
        "status": "built",
        "engine": ENGINE,
        "engine_sha256": sha256(folder / ENGINE),
        "onnx_sha256": sha256(plan.onnx),
        "batch": {"min": plan.min_batch, "opt": plan.opt_batch, "max": plan.max_batch},
        **{key: environment[key] for key in ("gpu", "compute_capability", "tensorrt")},
    }
    write_json(folder / STATUS, status)
    return status
