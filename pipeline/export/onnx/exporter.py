"""Export to ONNX: the same network gives the same bytes, wherever it is exported."""

import contextlib
import importlib.metadata
import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx.compose
import torch
from torch import Tensor, nn

from models.deploy import ByteImages
from pipeline.core.errors import GateError, UserError
from pipeline.core.files import Json, write_bytes
from pipeline.core.signature import TensorSpec
from pipeline.data.dataset import DataInfo
from pipeline.export.precisions import TAIL_PREFIX

WRITING_LIBRARIES = ("torch", "onnx", "onnxscript")


def export_network(
    network: nn.Module,
    path: Path,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    opset: int,
    metadata: Mapping[str, str],
) -> None:
    """Write ``network`` as one ONNX file.

    ``metadata`` and the versions of the writing libraries go into the file; node annotations, which hold source paths
    and stack traces, are taken out.

    Args:
        inputs: an example of each input, of two or more images, by its name; the first axis is the batch, and open.
        outputs: the names of the outputs.

    Raises:
        GateError: the exporter did not keep the opset, or the result is no valid ONNX.
    """
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        _quieten("torch.onnx", "onnxscript", "onnx_ir")
        program = torch.onnx.export(
            network.eval().cpu(),
            tuple(inputs.values()),
            None,
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=_like_arguments(network, tuple({0: batch} for _ in inputs)),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    versions = {f"{name}_version": importlib.metadata.version(name) for name in WRITING_LIBRARIES}
    write_onnx(program.model_proto, path, opset=opset, metadata={**metadata, **versions})


def _like_arguments(network: nn.Module, shapes: tuple[dict[int, Any], ...]) -> tuple[Any, ...]:
    """Return ``shapes`` as PyTorch wants them: in a tuple of their own where ``network`` takes any number of inputs."""
    kinds = {parameter.kind for parameter in inspect.signature(network.forward).parameters.values()}
    return (shapes,) if inspect.Parameter.VAR_POSITIONAL in kinds else shapes


def export_image_network(
    network: nn.Module,
    path: Path,
    taken: TensorSpec,
    outputs: Sequence[str],
    *,
    opset: int,
    metadata: Mapping[str, str],
) -> None:
    """Write ``network``, from images in [0, 1] to ``outputs``, with the input ``taken``: see ``export_network``."""
    example = torch.zeros(2, *taken.shape, dtype=getattr(torch, taken.dtype))
    network = ByteImages(network) if taken.dtype == "uint8" else network
    export_network(network, path, {taken.name: example}, outputs, opset=opset, metadata=metadata)


def join_tail(body: Path, tail: Path, path: Path) -> None:
    """Write the ONNX file ``body`` with ``tail`` behind it, whose inputs have the names of the body's outputs.

    Raises:
        GateError: the result is no valid ONNX.
    """
    first, second = onnx.load(body), onnx.load(tail)
    opset, metadata = describe(first)
    names = [output.name for output in first.graph.output]
    second = onnx.compose.add_prefix(second, TAIL_PREFIX, rename_inputs=False, rename_outputs=False)
    joined = onnx.compose.merge_models(first, second, io_map=[(name, name) for name in names], name=first.graph.name)
    write_onnx(joined, path, opset=opset, metadata=metadata)


@contextlib.contextmanager
def converting(path: Path, converter: str) -> Iterator[None]:
    """Turn whatever the library ``converter`` raises while it makes the file ``path`` into a GateError.

    A full disk and a lack of memory are the host's, not the file's, and stay what they are.
    """
    try:
        yield
    except (GateError, UserError, OSError, MemoryError):
        raise
    except Exception as error:  # what they raise has no class in common
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise GateError(f"{path.name}: {converter} could not make it ({reason})") from error


def write_onnx(model: onnx.ModelProto, path: Path, *, opset: int, metadata: Mapping[str, str]) -> None:
    """Write ``model`` without its nodes' annotations, with ``metadata`` alone, if it is valid.

    Raises:
        GateError: it has another opset, or is no valid ONNX.
    """
    _strip_annotations(model)
    _set_metadata(model, metadata)
    _check(model, opset, path)
    write_bytes(path, model.SerializeToString(deterministic=True))


def describe(model: onnx.ModelProto) -> tuple[int, dict[str, str]]:
    """Return the opset and the metadata of ``model``."""
    opset = next(item.version for item in model.opset_import if not item.domain)
    return opset, {entry.key: entry.value for entry in model.metadata_props}


def onnx_metadata(about: Json, info: DataInfo, num_steps: int | None, outputs: Mapping[str, Any]) -> dict[str, str]:
    """Return what a consumer needs to know of the network: method, steps, classes, normalisation, as JSON texts.

    Args:
        outputs: what its task says of the outputs, beside the signature.
    """
    facts = {
        "backbone": about["backbone"],
        "classes": info.class_names,
        "mean": about["arguments"]["mean"],
        "method": about["method"],
        "num_steps": num_steps,
        "std": about["arguments"]["std"],
        **outputs,
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def _quieten(*names: str) -> None:
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)


def _strip_annotations(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes beside nodes and values: stack traces, module paths, line numbers."""
    graph = model.graph
    for item in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output, graph):
        del item.metadata_props[:]
        item.ClearField("doc_string")
    for function in model.functions:
        del function.metadata_props[:]
        for node in function.node:
            del node.metadata_props[:]


def _set_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    del model.metadata_props[:]
    model.model_version = 1
    model.graph.name = metadata.get("backbone", "network")
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])


def _check(model: onnx.ModelProto, opset: int, path: Path) -> None:
    written = {item.domain: item.version for item in model.opset_import}.get("")
    if written != opset:
        raise GateError(
            f"{path.name}: asked for opset {opset}, the exporter wrote {written}; choose another export_onnx.opset"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"{path.name}: not valid ONNX: {error}") from error
