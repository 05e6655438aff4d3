"""TensorRT's real Python bindings over empty libraries: every class, enum and attribute is NVIDIA's, and nothing runs.

As a program it calls this project's build and runtime with mocks that have the attributes of the real classes and no
others, and prints what was called as one line of JSON.
"""

import contextlib
import json
import operator
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from pipeline.core.signature import Signature, TensorSpec, image_input
from pipeline.export.tensorrt.builder import build_plan
from pipeline.export.tensorrt.plan import EnginePlan, EngineSettings
from pipeline.runtimes.base import to_input
from pipeline.runtimes.tensorrt import TensorrtRuntime

ROOT = Path(__file__).parent.parent
WHEELS = {
    "10.3.0": "tensorrt-cu12-bindings",  # JetPack 6
    "10.16.1.11": "tensorrt-cu12-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
SHAPES = {
    "image": (3, 8, 6),
    "logits": (4,),
    "num_detections": (1,),
    "detection_boxes": (5, 4),
    "detection_scores": (5,),
    "detection_classes": (5,),
}
"""Of the mocked engine's tensors, without the batch."""


def plan_of(options: dict[str, Any], onnx: str) -> EnginePlan:
    """Return the plan of settings, of ``precision``, over the ONNX file ``onnx``."""
    settings = EngineSettings(**{name: value for name, value in options.items() if name != "precision"})
    signature = Signature(image_input((8, 6), "float32"), (TensorSpec("logits", "float32", (4,)),))
    return EnginePlan(Path(onnx), options["precision"], signature, settings)


class NotAvailable(Exception):  # noqa: N818
    """The bindings cannot be had on this host: the message says why."""


def fetch_bindings(version: str, cache: Path) -> Path:
    """Return a folder with the module ``tensorrt`` of ``version`` and, in ``empty_libraries``, what it links to.

    Raises:
        NotAvailable: the wheel cannot be downloaded for this Python, or there is no C compiler.
    """
    target = cache / f"{version}-{sys.implementation.cache_tag}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache) as work:
            folder = Path(work) / "bindings"
            _unpack(_download(version, Path(work)), folder)
            _compile_libraries(version.split(".", maxsplit=1)[0], folder / "empty_libraries")
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                if not target.exists():  # another test process may have been faster
                    folder.rename(target)
    return target


def _download(version: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--retries=1", "--timeout=20", "--dest", str(folder)]
    result = subprocess.run([*command, f"{WHEELS[version]}=={version}"], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise NotAvailable(f"{WHEELS[version]} {version} cannot be downloaded: {result.stderr.strip()[-200:]}")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "tensorrt_bindings").rename(folder / "tensorrt")


def _compile_libraries(major: str, folder: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotAvailable("there is no C compiler")
    folder.mkdir()
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS))
    for name in LIBRARIES:
        library = f"lib{name}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
        subprocess.run(command, check=True)


def run_here(bindings: Path, task: dict[str, Any], *, libraries: bool = True) -> Any:
    """Return what this file, run as a program over ``bindings``, answers to ``task``."""
    path = os.pathsep.join([str(bindings), str(ROOT)])
    found = str(bindings / "empty_libraries") if libraries else ""
    environment = {**os.environ, "PYTHONPATH": path, "LD_LIBRARY_PATH": found}
    command = [sys.executable, "-m", "tests.tensorrt_bindings", json.dumps(task)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def record_build(options: dict[str, Any], onnx: str, cache: str | None, *, typed: bool = True) -> dict[str, Any]:
    """Build with mocks in the place of TensorRT's objects and return what was asked of them."""
    import tensorrt as trt

    made = {
        name: mock.NonCallableMagicMock(spec_set=getattr(trt, name), name=name)
        for name in ("Builder", "IBuilderConfig")
    }
    builder, config = made["Builder"], made["IBuilderConfig"]
    network, parser, tensor, profile, timings, memory = (
        mock.NonCallableMagicMock(spec_set=getattr(trt, name), name=name)
        for name in (
            "INetworkDefinition",
            "OnnxParser",
            "ITensor",
            "IOptimizationProfile",
            "ITimingCache",
            "IHostMemory",
        )
    )
    builder.create_builder_config.return_value = config
    builder.create_network.return_value = network
    builder.create_optimization_profile.return_value = profile
    builder.build_serialized_network.return_value = b"the plan"
    config.DLA_core, config.num_optimization_profiles = -1, 1
    if hasattr(config, "int8_calibrator"):
        config.int8_calibrator = None  # as in a new configuration of TensorRT 10
    config.get_memory_pool_limit.return_value = config.get_tactic_sources.return_value = 0
    config.create_timing_cache.return_value = config.get_timing_cache.return_value = timings
    timings.serialize.return_value = memory
    memory.__enter__.return_value = b"timings"
    network.num_inputs, network.get_input.return_value, network.get_flag.return_value = 1, tensor, typed
    network.__getitem__.side_effect = IndexError
    tensor.name, tensor.shape, tensor.is_shape_tensor = "image", (-1, 3, 8, 6), False
    parser.num_errors, parser.parse_from_file.return_value = 0, True
    with replaced(trt, Builder=builder, OnnxParser=parser):
        plan = build_plan(plan_of(options, onnx), cache=None if cache is None else Path(cache))
    flags = builder.create_network.call_args.kwargs["flags"]
    hardware = config.hardware_compatibility_level
    return {
        "plan": plan.decode(),
        "set_flags": [call.args[0].name for call in config.set_flag.call_args_list],
        "cleared_flags": [call.args[0].name for call in config.clear_flag.call_args_list],
        "network_flags": [
            name for name, flag in trt.NetworkDefinitionCreationFlag.__members__.items() if flags & 1 << int(flag)
        ],
        "pools": {call.args[0].name: call.args[1] for call in config.set_memory_pool_limit.call_args_list},
        "profiles": [list(call.args) for call in profile.set_shape.call_args_list],
        "num_profiles": config.add_optimization_profile.call_count,
        "optimization_level": config.builder_optimization_level,
        "hardware": None if isinstance(hardware, mock.Mock) else hardware.name,
        "parsed": parser.parse_from_file.call_args.args[0],
        "timings_loaded": [call.args[0].decode() for call in config.create_timing_cache.call_args_list],
    }


def record_runtime(description: dict[str, Any], dtypes: dict[str, str], batches: list[int]) -> dict[str, Any]:
    """Load an engine and run it, with a mock of the engine and no CUDA; return what was asked for."""
    import tensorrt as trt
    from polygraphy import cuda
    from polygraphy.backend.trt import TrtRunner

    runtime = mock.NonCallableMagicMock(spec_set=trt.Runtime, name="Runtime")
    engine, context = (
        mock.NonCallableMagicMock(spec_set=getattr(trt, n), name=n) for n in ("ICudaEngine", "IExecutionContext")
    )
    runtime.deserialize_cuda_engine.return_value = engine
    names = list(dtypes)
    outputs = [name for name in names if name != "image"]

    def engine_dtype(name: str) -> Any:
        return trt.DataType.__members__[dtypes[name]]

    engine.num_io_tensors = len(names)
    engine.get_tensor_name.side_effect = names.__getitem__
    engine.get_tensor_dtype.side_effect = engine_dtype
    engine.get_tensor_mode.side_effect = lambda name: (
        trt.TensorIOMode.INPUT if name == "image" else trt.TensorIOMode.OUTPUT
    )
    engine.get_tensor_shape.side_effect = lambda name: (-1, *SHAPES[name])
    engine.get_tensor_profile_shape.return_value = [(size, 3, 8, 6) for size in batches]
    engine.create_execution_context.return_value = context
    asked: dict[str, Any] = {"batches": []}

    def infer(_: TrtRunner, feed_dict: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        image = feed_dict["image"]
        asked["batches"].append([len(image), str(image.dtype), float(image.max())])
        first = image[:, 0, 0, 0].astype(np.float32)  # tells images from those that fill a batch up
        found = {}
        for name in outputs:
            values = first.reshape(-1, *[1] * len(SHAPES[name]))
            shaped = np.broadcast_to(values, (len(image), *SHAPES[name]))
            found[name] = shaped.astype(trt.nptype(engine_dtype(name)))
        return found

    with (
        replaced(trt, Runtime=runtime),
        mock.patch.object(cuda, "Stream"),
        mock.patch.object(TrtRunner, "_infer_impl", lambda runner, feed, *_: infer(runner, feed)),
    ):
        opened = TensorrtRuntime(b"the plan", description=description)
        found = opened.infer(to_input(np.full((7, 3, 8, 6), 255, np.uint8), opened.input_dtype))
        opened.runner.deactivate()
    asked["host_code_allowed"] = runtime.engine_host_code_allowed
    asked["plan"] = runtime.deserialize_cuda_engine.call_args.args[0].decode()
    described = {name: [list(array.shape), str(array.dtype), float(array.min())] for name, array in found.items()}
    return asked | {"outputs": described, "words": opened.describe()}


@contextlib.contextmanager
def replaced(trt: Any, **objects: mock.NonCallableMagicMock) -> Iterator[None]:
    """Let constructors of ``trt`` return ``objects``, and leave out the call that would register plugins."""
    with contextlib.ExitStack() as stack:
        for name, made in objects.items():
            stack.enter_context(mock.patch.object(trt, name, mock.Mock(return_value=made)))
        stack.enter_context(mock.patch.object(trt, "init_libnvinfer_plugins", mock.Mock()))
        yield


def answer(task: dict[str, Any]) -> Any:
    """Return the answers to the calls of ``task``; an error's answer is its type and text."""
    kinds = {"build": record_build, "runtime": record_runtime, "names": resolve, "start": start}
    answers = []
    for name, arguments in task["calls"]:
        try:
            answers.append(kinds[name](**arguments))
        except (ValueError, RuntimeError) as error:
            answers.append([type(error).__name__, str(error)])
    return answers


def resolve(names: list[str]) -> dict[str, Any]:
    """Return the version of the bindings, their enumerations and those of ``names`` that they lack."""
    import tensorrt as trt

    def missing(name: str) -> bool:
        try:
            operator.attrgetter(name)(trt)
        except AttributeError:
            return True
        return False

    enums = ("BuilderFlag", "HardwareCompatibilityLevel")
    members = {enum: list(getattr(trt, enum).__members__) for enum in enums}
    return {"version": trt.__version__, "missing": [name for name in names if missing(name)], **members}


def start(options: dict[str, Any], onnx: str) -> str:
    """Build for real, which the empty libraries refuse."""
    return build_plan(plan_of(options, onnx), cache=None).decode()


if __name__ == "__main__":
    sys.modules["torch"] = None  # type: ignore[assignment]  # as on a device without it
    print(json.dumps(answer(json.loads(sys.argv[1]))))
