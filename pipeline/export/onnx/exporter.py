"""Export to ONNX: the same network gives the same bytes, wherever it is exported."""

import importlib.metadata
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from models.deploy import ByteImages
from pipeline.core.errors import GateError
from pipeline.core.files import Json, write_bytes
from pipeline.data.dataset import DataInfo

WRITING_LIBRARIES = ("torch", "onnx", "onnxscript")


def export_onnx(
    network: nn.Module,
    path: Path,
    *,
    image_size: Sequence[int],
    opset: int,
    metadata: Mapping[str, str],
    input_dtype: str = "float32",
) -> None:
    """Write ``network`` as one ONNX file with input ``image`` (batch, 3, H, W) and output ``logits`` (batch, classes).

    Images are ``input_dtype``: float32 in [0, 1], or uint8. ``metadata`` and the versions of the writing libraries go
    into the file; node annotations, which hold source paths and stack traces, are taken out.

    Raises:
        GateError: the exporter did not keep the opset, or the result is no valid ONNX.
    """
    example = torch.zeros(2, 3, *image_size, dtype=getattr(torch, input_dtype))
    network = ByteImages(network) if input_dtype == "uint8" else network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        _quieten("torch.onnx", "onnxscript", "onnx_ir")
        program = torch.onnx.export(
            network.eval().cpu(),
            (example,),
            None,
            dynamo=True,
            opset_version=opset,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    versions = {f"{name}_version": importlib.metadata.version(name) for name in WRITING_LIBRARIES}
    write_onnx(model, path, opset=opset, metadata={**metadata, **versions})


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


def onnx_metadata(about: Json, info: DataInfo, num_steps: int | None) -> dict[str, str]:
    """Return what a consumer needs to know of the network: method, steps, classes, normalisation, as JSON texts."""
    facts = {
        "backbone": about["backbone"],
        "classes": info.classes,
        "mean": info.mean,
        "method": about["method"],
        "num_steps": num_steps,
        "std": info.std,
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata inside the ONNX file ``path``."""
    return describe(onnx.load(path, load_external_data=False))[1]


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
            f"{path}: asked for opset {opset}, the exporter wrote {written}; choose another export_onnx.opset"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"{path}: not valid ONNX: {error}") from error
