"""TensorRT engines, strongly typed, built through polygraphy on the device that will run them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.errors import GateError, UserError
from pipeline.export.tensorrt.plan import EnginePlan

logger = logging.getLogger(__name__)


def load_tensorrt() -> Any:
    """Return the module tensorrt.

    Raises:
        UserError: it is not installed, or its libraries cannot be loaded.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise UserError(
            f"TensorRT cannot be loaded: {error}; install the package tensorrt for this GPU's driver and this Python"
        ) from error
    return tensorrt


def build_plan(plan: EnginePlan, *, cache: Path | None, hints: Sequence[str] = ()) -> bytes:
    """Return the serialized engine of ``plan``.

    Args:
        cache: file of the timing cache, read where it exists and written afterwards; None: none is kept.
        hints: what is known to be wrong with the ONNX file, for the error.

    Raises:
        UserError: TensorRT is missing, or older than an option of ``plan``.
        GateError: TensorRT does not accept the network or cannot build it.
    """
    trt = load_tensorrt()
    from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork
    from polygraphy.exception import PolygraphyException

    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
    try:
        config = CreateConfig(**_settings(trt, plan, cache))
        builder, network, parser = _parse(plan.onnx)
        _require_strong_types(trt, network)
        save = None if cache is None else str(cache)
        memory = EngineBytesFromNetwork((builder, network, parser), config=config, save_timing_cache=save)()
    except PolygraphyException as error:
        known = "".join(f"\n{hint}" for hint in hints)
        raise GateError(
            f"{plan.onnx}: TensorRT {trt.__version__} could not build the engine ({_first_line(error)}); its log above "
            f"says why. Does the driver fit this version of TensorRT?{known}"
        ) from error
    return bytes(memory)


def _parse(path: Path) -> tuple[Any, Any, Any]:
    """Return builder, network and parser of the ONNX file ``path``; raises PolygraphyException."""
    from polygraphy.backend.trt import NetworkFromOnnxPath
    from polygraphy.exception import PolygraphyException

    parse = NetworkFromOnnxPath(str(path), strongly_typed=True)
    try:
        parsed: tuple[Any, Any, Any] = parse()
    except TypeError as error:  # so its bindings say that the builder did not start
        raise PolygraphyException(str(error)) from error
    return parsed


def _settings(trt: Any, plan: EnginePlan, cache: Path | None) -> dict[str, Any]:
    """Return the arguments of polygraphy's CreateConfig; precision is no option, since the graph's types decide it."""
    from polygraphy.backend.trt import Profile

    sizes = {name: plan.shape(size) for name, size in plan.batches.items()}
    settings = {
        "profiles": [Profile().add(plan.signature.input.name, **sizes)],
        "builder_optimization_level": plan.settings.optimization_level,
        "memory_pool_limits": {trt.MemoryPoolType.WORKSPACE: plan.settings.workspace_mib * 2**20},
        "version_compatible": plan.settings.version_compatible,
    }
    if plan.settings.hardware_compatibility != "none":
        level = plan.settings.hardware_compatibility.upper()
        known = trt.HardwareCompatibilityLevel.__members__
        if level not in known:
            names = ", ".join(name.lower() for name in known)
            raise UserError(
                f"export_tensorrt.hardware_compatibility: got {plan.settings.hardware_compatibility!r}, which TensorRT "
                f"{trt.__version__} does not have; allowed here: {names}"
            )
        settings["hardware_compatibility_level"] = known[level]
    if cache is not None and cache.exists():
        settings["load_timing_cache"] = str(cache)
    return settings


def _require_strong_types(trt: Any, network: Any) -> None:
    """Raise GateError where TensorRT 10 would choose types by itself; TensorRT 11 has no such networks."""
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    if int(trt.__version__.split(".")[0]) < 11 and not network.get_flag(flag):
        raise GateError(f"TensorRT {trt.__version__} did not make the network strongly typed; update polygraphy")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
