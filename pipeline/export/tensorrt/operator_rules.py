"""An ONNX graph as TensorRT's documented restrictions see it, and a function for each kind of restriction."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.inliner import inline_local_functions

from pipeline.core.files import Json

NAMES = {
    "FLOAT": "FP32",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "FLOAT8E4M3FN": "FP8",
    "FLOAT4E2M1": "FP4",
}
"""The table's names of ONNX's types, where they differ."""
CONSTANTS = {"value", "value_float", "value_floats", "value_int", "value_ints"}


class Graph(NamedTuple):
    """An ONNX graph with what the rules ask of it."""

    dtypes: dict[str, str]
    """From each tensor to its type, as the table names it; tensors of unknown type are left out."""
    ranks: dict[str, int]
    constants: dict[str, TensorProto]
    nodes: list[NodeProto]
    """Those of all subgraphs, too."""
    inputs: set[str]
    opset: int


def read_graph(model: onnx.ModelProto) -> Graph:
    """Return the graph of ``model``, its local functions written out, with inferred types."""
    whole = inline_local_functions(model) if model.functions else model
    inferred = onnx.shape_inference.infer_shapes(whole)
    graphs = list(_graphs(inferred.graph))
    nodes = [node for graph in graphs for node in graph.node]
    constants = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    for node in nodes:
        if node.op_type == "Constant" and node.attribute[0].name in CONSTANTS:
            constants[node.output[0]] = _as_tensor(node.attribute[0])
    dtypes = {name: type_name(tensor.data_type) for name, tensor in constants.items()}
    ranks = {name: len(tensor.dims) for name, tensor in constants.items()}
    for graph in graphs:
        for value in (*graph.input, *graph.output, *graph.value_info):
            tensor = value.type.tensor_type
            if tensor.elem_type:
                dtypes[value.name] = type_name(tensor.elem_type)
            if tensor.HasField("shape"):
                ranks[value.name] = len(tensor.shape.dim)
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    return Graph(dtypes, ranks, constants, nodes, {value.name for value in whole.graph.input}, opset)


def _as_tensor(attribute: AttributeProto) -> TensorProto:
    """Return what a Constant holds: a tensor, or the numbers of an attribute."""
    value = helper.get_attribute_value(attribute)
    return value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value))


def type_name(elem_type: int) -> str:
    """Return the table's name of an ONNX element type, such as FP32 for FLOAT."""
    name = str(TensorProto.DataType.Name(elem_type))
    return NAMES.get(name, name)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type != AttributeProto.STRING else ():
                yield from _graphs(inner)


def _constant(node: NodeProto, indices: list[int], graph: Graph) -> str | None:
    for name in _given(node, indices):
        if name not in graph.constants:
            return f"{name} is computed, and must be a constant"
    return None


def _zero(node: NodeProto, indices: list[int], graph: Graph) -> str | None:
    for name in _given(node, indices):
        if name not in graph.constants:
            return f"{name} is computed, and must be a constant 0"
        if np.any(numpy_helper.to_array(graph.constants[name])):
            return f"{name} is not 0; quantize symmetrically"
    return None


def _given(node: NodeProto, indices: list[int]) -> list[str]:
    return [node.input[index] for index in indices if index < len(node.input) and node.input[index]]


def _attributes(node: NodeProto, allowed: Json, _: Graph) -> str | None:
    for name, value in _values(node).items():
        if name in allowed and value not in allowed[name]:
            return f"{name} is {value}, supported are {', '.join(map(str, allowed[name]))}"
    return None


def _values(node: NodeProto) -> Json:
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _absent(node: NodeProto, names: list[str], _: Graph) -> str | None:
    found = [attribute.name for attribute in node.attribute if attribute.name in names]
    return f"the attribute {found[0]} is not supported" if found else None


def _ones(node: NodeProto, names: list[str], _: Graph) -> str | None:
    wrong = [name for name, value in _values(node).items() if name in names and any(item != 1 for item in value)]
    return f"{wrong[0]} must be all ones" if wrong else None


def _spatial(node: NodeProto, allowed: list[int], _: Graph) -> str | None:
    count = len(_values(node)["kernel_shape"])
    return None if count in allowed else f"pools over {count} axes, supported are {' or '.join(map(str, allowed))}"


def _outputs(node: NodeProto, count: int, _: Graph) -> str | None:
    return f"only {count} of its outputs is supported" if any(node.output[count:]) else None


def _inputs(node: NodeProto, count: int, _: Graph) -> str | None:
    return f"only the first {count} inputs are supported" if any(node.input[count:]) else None


def _rank(node: NodeProto, rank: int, graph: Graph) -> str | None:
    found = graph.ranks.get(node.input[0], rank)
    return None if found == rank else f"{node.input[0]} has {found} axes, supported are {rank}"


RULES: dict[str, Callable[[NodeProto, Any, Graph], str | None]] = {
    "absent": _absent,
    "attributes": _attributes,
    "constant": _constant,
    "inputs": _inputs,
    "ones": _ones,
    "outputs": _outputs,
    "rank": _rank,
    "spatial": _spatial,
    "zero": _zero,
}
