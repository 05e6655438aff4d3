"""The cutter: any classifier that hands on feature maps becomes a backbone of stages and a head."""

import copy
import inspect
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .backbone import NOTHING, Backbone, BackboneAndHead, Stage, Untraced
from .tracing import (
    FAULTS,
    Traced,
    UntraceableError,
    common_depth,
    first_line,
    lone_nodes,
    name_of,
    shape_of,
    trace,
)

PROBE_SIZE = (224, 224)
POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Identity)
"""What belongs to the head where it follows the last feature map."""


class CutBackbone(Backbone):
    """A classifier up to what is pooled, a stage for each resolution; names of parameters stay behind their part's.

    One that cannot be cut has a backbone without stages, which returns the images, and says why.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        widths: tuple[int, ...],
        *,
        why_uncut: str = "",
        untraced: Untraced = NOTHING,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(stages)
        self.widths = widths
        self.why_uncut = why_uncut
        self.untraced = untraced
        self.image_size = tuple(image_size) if image_size is not None else None

    def eager_stages(self) -> Sequence[Stage]:
        """Return the runs of layers of one resolution."""
        return list(self.parts)


class GivenStages(CutBackbone):
    """A network that says itself where it is cut."""

    def eager_stages(self) -> Sequence[Stage]:
        """Return the stages that the network gives."""
        network: Any = self.parts[0]
        return list(network.stages())


def cut_classifier(
    classifier: nn.Module, *, image_size: Sequence[int] | None = None, untraced: Untraced = NOTHING
) -> BackboneAndHead:
    """Return ``classifier``, from images (B, 3, H, W) to logits (B, num_classes), cut into its stages and its head.

    It is cut where nothing but one map (B, C, H', W') flows on between two of its outermost blocks, once for each
    resolution. The head begins with what pools the last map. A module that has ``stages()`` and ``head`` is cut there.

    Args:
        image_size: the images' (H, W), for networks that take no others.

    Raises:
        ValueError: the stages that the network gives do not return feature maps.
    """
    if inspect.ismethod(getattr(classifier, "stages", None)) and isinstance(
        getattr(classifier, "head", None), nn.Module
    ):
        return _as_given(classifier, image_size)
    try:
        traced = trace(classifier, untraced)
        _measure(traced, image_size)
        ends = _stage_ends(traced)
    except UntraceableError as error:
        whole = CutBackbone((), (), why_uncut=str(error), untraced=untraced, image_size=image_size)
        return BackboneAndHead(whole, classifier.train())
    nodes = traced.nodes
    parts = zip([nodes[0], *ends], [*ends, nodes[-1]], strict=True)
    *stages, head = [traced.after(*limits) for limits in parts]
    classifier.train()
    return BackboneAndHead(CutBackbone(stages, tuple(shape_of(end)[1] for end in ends)).train(), head.train())


def _measure(traced: Traced, image_size: Sequence[int] | None) -> None:
    """Measure at 224 x 224 pixels, so that stages do not depend on the images; else, where that fails, at theirs."""
    try:
        traced.measure(PROBE_SIZE)
    except UntraceableError:
        if image_size is None:
            raise
        traced.measure(image_size)


def _stage_ends(traced: Traced) -> list[fx.Node]:
    """Return the last node of each stage, in the order of computation.

    Raises:
        UntraceableError: no map is pooled, or something else than the map reaches the head.
    """
    nodes = traced.nodes
    position = {node: i for i, node in enumerate(nodes)}
    sizes = {node: size for node in lone_nodes(nodes)[1:] if (size := _map_size(node, shape_of(nodes[0])[2:]))}
    learning = [i for i, node in enumerate(nodes) if traced.learns(node)]
    inner = [node for node in sizes if learning and learning[0] <= position[node] < learning[-1]]
    maps = [node for node in inner if not _changed_in_place(traced, node)]
    if not maps:
        raise UntraceableError(_why_no_map(nodes))
    last = maps[-1]
    while last.op == "call_module" and isinstance(traced.module(last), POOLS) and last.all_input_nodes[0] in sizes:
        last = last.all_input_nodes[0]
    for i in learning:
        if i > position[last] and any(_is_sequence(node) for node in nodes[i].all_input_nodes):
            raise UntraceableError(f"{name_of(nodes[i])} computes on tokens instead of a feature map (B, C, H, W)")
    ends: dict[tuple[int, int], tuple[int, fx.Node]] = {}
    for node in maps:
        size, depth = sizes[node], common_depth(node, nodes[position[node] + 1])
        if position[node] < position[last] and size != sizes[last] and depth <= ends.get(size, (depth, node))[0]:
            ends[size] = depth, node
    falling: list[fx.Node] = []
    for node in sorted((node for _, node in ends.values()), key=position.__getitem__):
        if not falling or sizes[node] < sizes[falling[-1]]:
            falling.append(node)
    return [*falling, last]


def _map_size(node: fx.Node, image_size: Sequence[int]) -> tuple[int, int] | None:
    """Return (H', W') of the feature map that ``node`` returns for images of ``image_size`` (H, W).

    None where it is none: has other proportions than the image, or one place alone, as after pooling.
    """
    shape, (height, width) = shape_of(node), image_size
    if len(shape) != 4 or shape[2] * shape[3] == 1:
        return None
    is_alike = abs(shape[2] * width - shape[3] * height) < max(height, width)
    return (shape[2], shape[3]) if is_alike else None


def _is_sequence(node: fx.Node) -> bool:
    """Return whether ``node`` returns several vectors for each image: tokens (B, N, C), or a map (B, H, W, C)."""
    shape = shape_of(node)
    return (len(shape) == 3 and shape[1] > 1) or (len(shape) == 4 and shape[1] == shape[2] != shape[3] and shape[1] > 1)


def _changed_in_place(traced: Traced, node: fx.Node) -> bool:
    """Return whether what follows writes over what ``node`` returns, which others shall still read."""
    for user in node.users:
        if user.op == "call_module" and getattr(traced.module(user), "inplace", False):
            return True
        if user.kwargs.get("inplace", False) or (user.op == "call_method" and str(user.target).endswith("_")):
            return True
    return False


def _why_no_map(nodes: Sequence[fx.Node]) -> str:
    sequences = [node for node in nodes if _is_sequence(node)]
    if sequences:
        return f"{name_of(sequences[0])} makes tokens of the image instead of a feature map (B, C, H, W)"
    return "nowhere does one feature map (B, C, H, W) alone flow on from block to block"


def _as_given(classifier: nn.Module, image_size: Sequence[int] | None) -> BackboneAndHead:
    """Return a network that has ``stages()`` and ``head`` in these two parts.

    Raises:
        ValueError: a stage fails, or does not return a feature map.
    """
    head = classifier.head
    assert isinstance(head, nn.Module)
    body: Any = copy.copy(classifier)
    body._modules = {name: module for name, module in classifier._modules.items() if name != "head"}  # noqa: SLF001
    x: Any = torch.zeros(2, 3, *(image_size or PROBE_SIZE))
    widths, name = [], f"{type(classifier).__name__}.stages(): stage"
    body.eval()
    for number, stage in enumerate(body.stages(), start=1):
        try:
            with torch.no_grad():
                x = stage(x)
        except FAULTS as error:
            raise ValueError(f"{name} {number} fails: {first_line(error)}") from error
        if not isinstance(x, Tensor) or x.dim() != 4:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name} {number} returns {got}, not a feature map (B, C, H, W)")
        widths.append(x.shape[1])
    return BackboneAndHead(GivenStages([body.train()], tuple(widths)), nn.Sequential(OrderedDict(head=head.train())))
