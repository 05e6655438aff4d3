"""Configurations for NVIDIA Triton, written from a package and compared with its ONNX files.

Facts are those of Triton's ONNX Runtime and TensorRT backends; the messages are those of Triton's client library.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tritonclient.grpc import model_config_pb2

from pipeline.core.errors import GateError
from pipeline.core.files import write_text
from pipeline.core.signature import TensorSpec
from pipeline.package.reader import Package
from pipeline.package.triton_repository import CLASS_NAMES_TEXT, CONFIG, Variant, variants_of

TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "int32": "TYPE_INT32"}
ELEMENTS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.INT32: "TYPE_INT32",
}
QUEUE_DELAY = 500
"""Microseconds that a GPU waits for a batch to fill; on a CPU a larger batch brings nothing, so there nothing waits."""


Facts = dict[str, tuple[object, object]]
"""What a configuration says, and what is right."""


def write_triton_configs(folder: Path, package: Package, *, max_batch: int, num_threads: int) -> None:
    """Write a folder for each model that the package's files allow: configuration and, of classes, their names.

    Args:
        num_threads: of a session on the CPU.

    Raises:
        UserError: a file of the package is missing or damaged.
    """
    for variant, source in variants_of(package):
        package.verified([source.name])
        home = folder / f"{package.name}{variant.suffix}"
        write_text(home / CONFIG, _text(model_config(variant, package, max_batch, num_threads)))
        if package.task.classification_output is not None:
            write_text(home / CLASS_NAMES_TEXT, "".join(f"{name}\n" for name in package.class_names))


def model_config(variant: Variant, package: Package, max_batch: int, num_threads: int) -> Any:
    """Return the ModelConfig message of ``variant``; shapes in it are without the batch."""
    config = model_config_pb2.ModelConfig(
        name=f"{package.name}{variant.suffix}",
        backend=variant.backend,
        default_model_filename=variant.file,
        max_batch_size=max_batch,
    )
    config.input.add(**_described_tensor(package.signature.input))
    for output in package.signature.outputs:
        added = config.output.add(**_described_tensor(output))
        if output.name == package.task.classification_output:
            added.label_filename = CLASS_NAMES_TEXT
    config.instance_group.add(count=1, kind="KIND_GPU" if variant.on_gpu else "KIND_CPU")
    if variant.on_gpu:
        config.dynamic_batching.max_queue_delay_microseconds = QUEUE_DELAY
    else:
        config.parameters["intra_op_thread_count"].string_value = str(num_threads)
    return config


def _described_tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": TYPES[spec.dtype], "dims": spec.shape}


def _text(config: Any) -> str:
    """Return ``config`` as text, parsed back to be sure that it says the same."""
    text: str = text_format.MessageToString(config)
    assert text_format.Parse(text, model_config_pb2.ModelConfig()) == config
    return text


def check_triton_configs(folder: Path, package: Package) -> None:
    """Compare every configuration in ``folder`` with the ONNX file that it is of.

    Raises:
        GateError: a model is missing, a configuration is none, or it differs from its file; names both.
    """
    expected = {f"{package.name}{variant.suffix}": (variant, source) for variant, source in variants_of(package)}
    found = {path.parent.name for path in folder.glob(f"*/{CONFIG}")}
    if found != set(expected):
        raise GateError(f"{folder}: holds models {sorted(found)}, expected {sorted(expected)}")
    for name, (variant, source) in expected.items():
        path = folder / name / CONFIG
        config = _parse(path)
        facts: Facts = {"name": (config.name, name), "backend": (config.backend, variant.backend)}
        facts |= {"default_model_filename": (config.default_model_filename, variant.file)}
        facts |= _tensor_facts(config, source)
        _require(path, facts)
        if config.max_batch_size < 1:
            raise GateError(f"{path}: max_batch_size is {config.max_batch_size}, but its input has a batch")
        if package.task.classification_output is not None:
            _require_class_names(folder / name / CLASS_NAMES_TEXT, package)


def _require_class_names(path: Path, package: Package) -> None:
    if _read(path).split("\n") != [*package.class_names, ""]:
        raise GateError(f"{path}: does not hold the package's {len(package.class_names)} class names, one a line")


def _parse(path: Path) -> Any:
    try:
        return text_format.Parse(_read(path), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise GateError(f"{path}: not a configuration of Triton: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GateError(f"{path}: cannot be read ({error})") from error


def _require(path: Path, facts: Facts) -> None:
    for fact, (written, right) in facts.items():
        if written != right:
            raise GateError(f"{path}: {fact} is {written!r}, but its file has {right!r}")


def _tensor_facts(config: Any, path: Path) -> Facts:
    """Return name, data type and shape of each tensor as ``config`` and as the ONNX file ``path`` have them."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise GateError(f"{path}: cannot be read as ONNX ({error})") from error
    names = model_config_pb2.DataType
    written = [(item.name, names.Name(item.data_type), ["batch", *item.dims]) for item in _tensors(config)]
    right = [_described(value) for value in (*graph.input, *graph.output)]
    return {"input and output": (written, right)}


def _tensors(config: Any) -> Sequence[Any]:
    return (*config.input, *config.output)


def _described(value: onnx.ValueInfoProto) -> tuple[str, str, list[object]]:
    """Return name, data type and shape of a tensor; a first dimension that is open is called batch."""
    tensor = value.type.tensor_type
    dims: list[object] = [dim.dim_value if dim.HasField("dim_value") else "open" for dim in tensor.shape.dim]
    dims[:1] = ["batch"] if dims[:1] == ["open"] else dims[:1]
    return value.name, ELEMENTS.get(tensor.elem_type, f"ONNX type {tensor.elem_type}"), dims
