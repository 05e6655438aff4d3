"""The graph of a classifier by torch.fx, with the shape that each of its operations returns."""

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from .backbone import NOTHING, Untraced, cannot_take

ROUNDS = 8
"""So often, at most, modules that compute otherwise in training are taken whole and the network is traced again."""
FAULTS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What tracing, or running on images that do not fit, raises: Python's own words for a value that is not there yet."""


class UntraceableError(ValueError):
    """A network cannot be written as a graph: the message is the operation that stands in the way."""


class Traced(NamedTuple):
    """A classifier as a graph."""

    root: nn.Module
    nodes: list[fx.Node]
    """In the order of computation, from the images to the logits."""

    def measure(self, image_size: Sequence[int]) -> None:
        """Note at each node the shape that it returns for one image of ``image_size`` (H, W).

        Raises:
            UntraceableError: the network cannot take such an image.
        """
        image = torch.zeros(1, 3, *image_size, device=next((p.device for p in self.root.parameters()), None))
        graph = fx.GraphModule(self.root, self.nodes[0].graph)
        self.root.eval()
        try:
            with torch.no_grad():
                self.root(image)  # says in its own words what is wrong
                _Shapes(graph).run(image)
        except FAULTS as error:
            raise UntraceableError(f"it {cannot_take(image_size, first_line(error))}") from error

    def after(self, start: fx.Node, end: fx.Node) -> fx.GraphModule:
        """Return what lies after ``start`` up to ``end``, as a module from the one value to the other.

        Its parameters are those of the classifier, under the same names.
        """
        graph = fx.Graph()
        copies = {start: graph.placeholder("x")}
        for node in self.nodes[self.nodes.index(start) + 1 : self.nodes.index(end) + 1]:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(copies[end])
        return fx.GraphModule(self.root, graph)

    def learns(self, node: fx.Node) -> bool:
        """Return whether ``node`` has parameters."""
        if node.op == "get_attr":
            return isinstance(_attribute(self.root, str(node.target)), nn.Parameter)
        return node.op == "call_module" and any(True for _ in self.module(node).parameters())

    def module(self, node: fx.Node) -> nn.Module:
        """Return the module that ``node`` calls."""
        return self.root.get_submodule(str(node.target))


def trace(classifier: nn.Module, untraced: Untraced = NOTHING) -> Traced:
    """Return the graph of ``classifier``, which is left in training mode.

    A module that cannot be looked into, or computes otherwise in training than in evaluation, is one node; so
    stochastic depth and the like keep following the mode.

    Raises:
        UntraceableError: it is the outermost module that cannot be looked into.
    """
    whole = set(untraced.modules)
    for _ in range(ROUNDS):
        tracers = [_Tracer(whole, untraced.functions) for _ in (True, False)]
        graphs = [_graph(tracer, classifier.train(mode)) for tracer, mode in zip(tracers, (False, True), strict=True)]
        _dropouts_as_modules(graphs[0], graphs[1], classifier)
        differing = _differing(*graphs)
        if not differing:
            return Traced(classifier, [node for node in graphs[0].nodes if node.op != "output"])
        if type(classifier) in differing:
            break
        whole |= differing
    raise UntraceableError(f"{type(classifier).__name__}.forward computes otherwise in training than in evaluation")


def containers(node: fx.Node) -> list[str]:
    """Return the names of the modules that ``node`` lies in, from the outermost one; itself not among them."""
    path, _ = _innermost(node)
    return path.split(".") if path else []


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape that ``node`` returns, as measured; empty where that is no tensor."""
    shape: tuple[int, ...] = node.meta.get("shape", ())
    return shape


def name_of(node: fx.Node) -> str:
    """Return what ``node`` is, as a reader of the network's code would find it."""
    if node.op == "call_module":
        return repr(str(node.target))
    called = getattr(node.target, "__name__", str(node.target))
    return f"{called!r} in {'.'.join(containers(node)) or 'forward'!r}"


def lone_nodes(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Return those of ``nodes`` beside whose value nothing else flows on."""
    position = {node: i for i, node in enumerate(nodes)}
    alive: set[fx.Node] = set()
    found = []
    for i, node in enumerate(nodes):
        alive = {item for item in alive | {node} if any(position.get(user, i) > i for user in item.users)}
        if alive == {node}:
            found.append(node)
    return found


def common_depth(node: fx.Node, following: fx.Node) -> int:
    """Return how many modules two neighbouring nodes lie in together: 0 between the outermost blocks."""
    pairs = zip(containers(node), containers(following), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def first_line(error: BaseException) -> str:
    """Return the first line of what ``error`` says, shortened."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


class _Tracer(fx.Tracer):
    """Takes a module whole that it cannot look into."""

    def __init__(self, whole: Collection[type[nn.Module]], functions: Collection[Callable[..., Any]]) -> None:
        super().__init__(autowrap_modules=(math,), autowrap_functions=tuple(functions))
        self.whole = tuple(whole)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether ``m`` is one node."""
        return type(m) in self.whole or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return what ``m`` returns: traced through, or as one node where that fails."""
        before, stack = len(self.graph.nodes), len(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except FAULTS:
            for node in list(self.graph.nodes)[: before - 1 : -1]:
                self.graph.erase_node(node)
            while len(self.module_stack) > stack:
                self.module_stack.popitem()
            path = self.path_of_module(m)
            self.module_stack[path] = (path, type(m))
            node = self.create_proxy("call_module", path, args, kwargs)
            self.module_stack.popitem()
            return node


class _Shapes(fx.Interpreter):
    """Notes the shape of each tensor at its node."""

    def run_node(self, n: fx.Node) -> Any:
        """Return what ``n`` returns."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta["shape"] = tuple(value.shape)
        return value


def _graph(tracer: _Tracer, classifier: nn.Module) -> fx.Graph:
    try:
        return tracer.trace(classifier)
    except FAULTS as error:
        raise UntraceableError(f"{_place(error)}: {first_line(error)}") from error


def _dropouts_as_modules(evaluating: fx.Graph, training: fx.Graph, classifier: nn.Module) -> None:
    """Let a module stand for each call of PyTorch's function ``dropout`` that follows the mode."""
    calls = [graph.find_nodes(op="call_function", target=nn.functional.dropout) for graph in (evaluating, training)]
    for number, nodes in enumerate(zip(*calls, strict=False)):
        if [_argument(node, 2, "training", default=True) for node in nodes] != [False, True]:
            continue
        name = f"dropout_function_{number}"
        classifier.add_module(name, nn.Dropout(float(_argument(nodes[0], 1, "p", default=0.5))))  # has no parameters
        for node in nodes:
            with node.graph.inserting_before(node):
                called = node.graph.call_module(name, (node.all_input_nodes[0],))
            stack = dict(node.meta.get("nn_module_stack", {}))
            called.meta["nn_module_stack"] = stack | {name: (name, nn.Dropout)}
            node.replace_all_uses_with(called)
            node.graph.erase_node(node)


def _argument(node: fx.Node, place: int, name: str, *, default: Any) -> Any:
    """Return what the function that ``node`` calls is given at ``place``, or as ``name``."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _place(error: BaseException) -> str:
    """Return the function and line, outside PyTorch, in which ``error`` was raised."""
    place, trace = "forward", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "/torch/" not in code.co_filename and not code.co_filename.endswith("/tracing.py"):
            place = f"{code.co_qualname} ({code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _differing(one: fx.Graph, other: fx.Graph) -> set[type[nn.Module]]:
    """Return the classes of the modules in which two graphs differ."""
    own, others = _operations(one), _operations(other)
    return {kind for kind in own.keys() | others.keys() if own.get(kind) != others.get(kind)}


def _operations(graph: fx.Graph) -> dict[Any, list[str]]:
    """Return for each class of modules what its own code calls, with constants, in order."""
    found: dict[Any, list[str]] = {}
    for node in graph.nodes:
        constants = fx.node.map_arg((node.args, node.kwargs), lambda _: "value")
        kind = _innermost(node)[1] or type(graph.owning_module or None)
        found.setdefault(kind, []).append(f"{node.op} {node.target} {constants}")
    return found


def _innermost(node: fx.Node) -> tuple[str, type[nn.Module] | None]:
    """Return name and class of the innermost module that ``node`` lies in, itself not counted; "" and None: of none."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    inner = stack[:-1] if node.op == "call_module" else stack
    return inner[-1] if inner else ("", None)


def _attribute(root: nn.Module, path: str) -> object:
    owner, _, name = path.rpartition(".")
    return getattr(root.get_submodule(owner), name)
