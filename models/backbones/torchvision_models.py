"""Torchvision's classifiers, cut into stages and a head."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torchvision import models, ops
from torchvision.models.feature_extraction import NodePathTracer

from models.backbones.backbone import Backbone, BackboneAndHead, Stage

PROBE_SIZE = 224


class TorchvisionBackbone(Backbone):
    """A torchvision classifier up to its last adaptive pooling, a stage for each resolution.

    A classifier that pools no feature map (vision transformers), or computes otherwise in training (Swin), has a
    backbone without stages, which returns the images.
    """

    def __init__(self, stages: Sequence[fx.GraphModule], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(stages)
        self.widths = widths

    def eager_stages(self) -> Sequence[Stage]:
        """Return the runs of layers of one resolution."""
        return list(self.parts)


@functools.cache
def torchvision_names() -> frozenset[str]:
    """Return the names of torchvision's image classifiers."""
    return frozenset(models.list_models(module=models))


def build_torchvision_classifier(name: str, num_classes: int) -> nn.Module:
    """Return torchvision's classifier ``name`` with random weights: images (B, 3, H, W) to logits (B, num_classes)."""
    options: dict[str, Any] = {"num_classes": num_classes}
    if name in {"googlenet", "inception_v3"}:  # their auxiliary heads change what forward returns
        options.update(aux_logits=False, init_weights=True)
    classifier: nn.Module = models.get_model(name, weights=None, **options)
    return classifier


def cut_torchvision_classifier(name: str, num_classes: int) -> BackboneAndHead:
    """Return torchvision's classifier ``name`` with random weights, cut into its stages and its head.

    The head begins with the last adaptive pooling. Parameters keep torchvision's names behind those of their part.
    """
    classifier = build_torchvision_classifier(name, num_classes)
    tracer, graph = _trace(classifier)
    ends = [] if graph is None else _stage_ends(tracer, graph, classifier)
    if graph is None or not ends:
        return BackboneAndHead(TorchvisionBackbone((), ()), classifier.train())
    nodes = [node for node in graph.nodes if node.op != "output"]
    starts = [nodes[0], *ends]
    *stages, head = [_part(classifier, nodes, *limits) for limits in zip(starts, [*ends, nodes[-1]], strict=True)]
    return BackboneAndHead(TorchvisionBackbone(stages, tuple(_shape(end)[1] for end in ends)).train(), head.train())


def _trace(classifier: nn.Module) -> tuple[NodePathTracer, fx.Graph | None]:
    """Return the tracer and the graph of ``classifier``; None where it computes otherwise in training.

    Torchvision's own operators are not looked into, so that stochastic depth keeps following the mode.
    """
    operators = [item for item in vars(ops).values() if isinstance(item, type) and issubclass(item, nn.Module)]
    tracer = NodePathTracer(autowrap_modules=(math, ops), leaf_modules=operators)
    training, evaluation = (tracer.trace(classifier.train(mode)) for mode in (True, False))
    return tracer, evaluation if str(training) == str(evaluation) else None


def _stage_ends(tracer: NodePathTracer, graph: fx.Graph, classifier: nn.Module) -> list[fx.Node]:
    """Return for each resolution the last node at which the outermost blocks meet and nothing else flows on.

    The last one is what is pooled. None are returned where no map is pooled, or nothing is learnt after the pooling.
    """
    nodes = list(graph.nodes)
    pooled = [node.all_input_nodes[0] for node in nodes if _is_global_pooling(node, classifier)]
    if not pooled or not _learns(nodes[nodes.index(pooled[-1]) + 1 :], classifier):
        return []
    with torch.no_grad():
        ShapeProp(fx.GraphModule(classifier, graph)).propagate(torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE))
    position = {node: i for i, node in enumerate(nodes)}
    ends: dict[int, tuple[int, fx.Node]] = {}
    alive: set[fx.Node] = set()
    for i, node in enumerate(nodes[: position[pooled[-1]] + 1]):
        alive = {item for item in alive | {node} if any(position[user] > i for user in item.users)}
        size = _map_size(node)
        depth = _common_depth(tracer, node, nodes[i + 1])
        if size and alive == {node} and depth <= ends.get(size, (depth, node))[0]:
            ends[size] = depth, node
    return [*[node for _, node in ends.values()][:-1], pooled[-1]]


def _common_depth(tracer: NodePathTracer, node: fx.Node, following: fx.Node) -> int:
    """Return how many modules two neighbouring nodes lie in together: 0 between the outermost blocks."""
    paths = [tracer.node_to_qualname.get(item, "").split(".")[:-1] for item in (node, following)]
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*paths, strict=False)))


def _part(root: nn.Module, nodes: Sequence[fx.Node], start: fx.Node, end: fx.Node) -> fx.GraphModule:
    """Return what lies after ``start`` up to ``end``, as a module from the one value to the other."""
    graph = fx.Graph()
    copies = {start: graph.placeholder("x")}
    for node in nodes[nodes.index(start) + 1 : nodes.index(end) + 1]:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[end])
    return fx.GraphModule(root, graph)


def _learns(nodes: Sequence[fx.Node], root: nn.Module) -> bool:
    """Return whether ``nodes`` use parameters; after SqueezeNet's pooling, where the map holds the classes, none do."""
    return any(
        next(root.get_submodule(str(node.target)).parameters(), None) is not None
        for node in nodes
        if node.op == "call_module"
    )


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))


def _map_size(node: fx.Node) -> int:
    """Return the height of the feature map that ``node`` returns for a square image; 0 where it is no map."""
    shape = _shape(node)
    is_map = node.op != "placeholder" and len(shape) == 4 and shape[2] == shape[3]
    return shape[2] if is_map else 0


def _is_global_pooling(node: fx.Node, root: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(root.get_submodule(str(node.target)), nn.AdaptiveAvgPool2d)
    if node.target is nn.functional.adaptive_avg_pool2d:
        return True
    return node.target == "mean" and list(node.args[1:]) == [[2, 3]]
