"""Whether TensorRT's parser should accept an ONNX graph, by a table of its operators: no TensorRT is needed."""

import functools
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

import onnx
from onnx import NodeProto

from models.core.table import choose
from pipeline.core.files import Json
from pipeline.export.precisions import FP32, PRECISIONS, TAIL_PREFIX, PrecisionEntry
from pipeline.export.tensorrt.operator_rules import RULES, Graph, read_graph

TABLE = files(__package__) / "operators.json"
MAJORS = (10, 11)
CHECKED = {"Cast": ("T1", "T2"), "CastLike": ("T1", "T2"), "ConstantOfShape": ("T2",), "Where": ("T",)}
"""Type variables that the table speaks of, where that is not the first input's alone."""
ADVICE = {
    "INT32": " (an INT32 bias? quantize without biases)",
    "UINT8": " (UINT8 is for network inputs that a Cast takes; quantize symmetrically, to INT8)",
}


WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


NAMED = 5
"""Reasons that a report gives."""


class Support(NamedTuple):
    """What the table says of a graph."""

    accepted: bool
    reasons: list[str]
    """Why not: one line for each node and rule, with the node's name and operator."""
    note: str
    """How far this goes, and where the table comes from."""

    def report(self) -> Json:
        """Return the fields for a JSON file; of many reasons the first, and how many more there are."""
        more = [f"and {len(self.reasons) - NAMED} more"] if len(self.reasons) > NAMED else []
        return self._asdict() | {"reasons": [*self.reasons[:NAMED], *more]}


class Table(NamedTuple):
    """What one major version of TensorRT takes."""

    source: str
    opset: tuple[int, int]
    operators: dict[str, Json]
    """From each operator to its types and rules."""


@functools.cache
def read_table(tensorrt_major: int) -> Table:
    """Return the table of TensorRT ``tensorrt_major``.

    Raises:
        ValueError: there is none of that version; lists those that there are.
    """
    tables = json.loads(TABLE.read_text(encoding="utf-8"))
    entry = choose(tables, str(tensorrt_major), kind="major version of TensorRT")
    base = tables[entry["extends"]]["operators"] if "extends" in entry else {}
    return Table(entry["source"], tuple(entry["opset"]), base | entry["operators"])


def check_support(model: onnx.ModelProto, tensorrt_major: int) -> Support:
    """Compare opset, operators, types and constants of ``model`` with what TensorRT ``tensorrt_major`` documents.

    Nothing is parsed by TensorRT itself, so that an accepted graph may still fail to build there.

    Raises:
        ValueError: there is no table of that version.
    """
    table = read_table(tensorrt_major)
    graph = read_graph(model)
    reasons = []
    if not table.opset[0] <= graph.opset <= table.opset[1]:
        reasons.append(f"opset {graph.opset}: TensorRT {tensorrt_major} takes {table.opset[0]} to {table.opset[1]}")
    reasons += [
        f"{node.name or '(no name)'}, {node.op_type}: {why}"
        for node in graph.nodes
        for why in _faults(node, graph, table)
    ]
    note = f"static, not a guarantee: compared with {table.source}; the builder on the target decides"
    return Support(not reasons, reasons, note)


def check_precision(model: onnx.ModelProto, precision: PrecisionEntry) -> list[str]:
    """Return why the types in ``model`` are not those of ``precision``; empty where they are.

    An engine is strongly typed, so that the types of its graph are those in which it computes: that of the precision is
    the type of every convolution and product, and a quantized file has pairs of QuantizeLinear and DequantizeLinear. A
    tail computes in float32, whatever the precision.
    """
    graph = read_graph(model)
    quantized = [node for node in graph.nodes if node.op_type == "QuantizeLinear"]
    if precision.quantized:
        return [] if quantized else ["nothing in it is quantized"]
    found = [f"{node.name} is quantized" for node in quantized]
    for node in graph.nodes:
        dtype = graph.dtypes.get(node.input[0]) if node.op_type in WEIGHTED else None
        wanted = PRECISIONS[FP32].computes_in if node.name.startswith(TAIL_PREFIX) else precision.computes_in
        if dtype is not None and dtype != wanted:
            found.append(f"{node.name}, {node.op_type}: computes in {dtype}")
    return found


def _faults(node: NodeProto, graph: Graph, table: Table) -> Iterator[str]:
    """Yield what keeps TensorRT from taking ``node``."""
    if node.domain not in {"", "ai.onnx"}:
        yield f"domain {node.domain} is unknown to TensorRT; export standard ONNX operators alone"
        return
    entry = table.operators.get(node.op_type)
    if entry is None:
        yield "the operator is not supported"
        return
    tensors = {name: graph.dtypes[name] for name in _tensors_of_the_table(node, graph) if name in graph.dtypes}
    wrong = next((name for name, found in tensors.items() if found not in entry["types"]), None)
    if wrong is not None:
        found = tensors[wrong]
        yield f"{wrong} is {found}, supported are {', '.join(entry['types'])}{ADVICE.get(found, '')}"
    if node.op_type == "Cast" and graph.dtypes.get(node.input[0]) == "UINT8" and node.input[0] not in graph.inputs:
        yield f"{node.input[0]} is UINT8 within the network{ADVICE['UINT8']}"
    if node.op_type == "QuantizeLinear" and graph.dtypes.get(node.output[0]) == "UINT8":
        yield f"{node.output[0]} is UINT8{ADVICE['UINT8']}"
    for rule, value in entry.get("rules", {}).items():
        why = RULES[rule](node, value, graph)
        if why is not None:
            yield why


def _tensors_of_the_table(node: NodeProto, graph: Graph) -> list[str]:
    """Return the inputs and outputs whose types the table lists: not the axes, shapes and indices beside them."""
    try:
        schema = onnx.defs.get_schema(node.op_type, graph.opset)
    except onnx.defs.SchemaError:
        return [*node.input, *node.output]
    first = (*schema.inputs, *schema.outputs)[0].type_str
    wanted = CHECKED.get(node.op_type, (first,))
    found = []
    for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for index, name in enumerate(names):
            if name and formals[min(index, len(formals) - 1)].type_str in wanted:
                found.append(name)
    return found
