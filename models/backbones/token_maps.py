"""Vision transformers as backbones: their tokens, each of which stands for a patch, as a feature map."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, fx, nn

from ..layers.shape_transform import LogitTransform
from .backbone import NOTHING, BackboneAndHead, Untraced
from .cutting import PROBE_SIZE, CutBackbone
from .tracing import Traced, UntraceableError, lone_nodes, shape_of, trace

MOST_PREFIXED = 16
"""So many tokens, at most, stand before those of the patches: class, distillation and register tokens."""


class Layout(NamedTuple):
    """How a tensor holds a map."""

    prefixed: int
    """Tokens (B, N, C) that come first and stand for no patch."""
    height: int
    width: int
    channels: int


def tokens_as_map(
    classifier: nn.Module,
    num_classes: int,
    *,
    image_size: Sequence[int] | None = None,
    untraced: Untraced = NOTHING,
) -> BackboneAndHead:
    """Return ``classifier`` up to its last tokens, as one stage that returns them as a map, and a new linear head.

    Tokens are (B, N, C), row after row, or (B, H', W', C). Those that stand for no patch are left out of the map.

    Args:
        image_size: (H, W) of all images that it will see.

    Raises:
        UntraceableError: it cannot be traced, or nothing in it has the form of tokens.
    """
    traced, end, layout = _traced(classifier, image_size, untraced)
    stage = traced.after(traced.nodes[0], end)
    output = next(node for node in stage.graph.nodes if node.op == "output")
    with stage.graph.inserting_before(output):
        (tokens,) = output.all_input_nodes
        output.replace_input_with(tokens, stage.graph.call_function(tokens_to_map, (tokens, *layout[:3])))
    stage.recompile()
    head = LogitTransform(layout.channels, num_classes)
    return BackboneAndHead(CutBackbone([stage.train()], (layout.channels,)), head)


class TokenClassifier(nn.Module):
    """A whole classifier that shows its last tokens as a feature map beside its own logits; it shares the weights.

    Args:
        classifier: normalised images (B, 3, H, W) to logits; in eval mode from here on.
        image_size: as of ``tokens_as_map``.

    Raises:
        UntraceableError: as ``tokens_as_map``.
    """

    map_name = "stage"
    """What returns a feature map."""

    def __init__(
        self,
        normalize: nn.Module,
        classifier: nn.Module,
        *,
        image_size: Sequence[int] | None = None,
        untraced: Untraced = NOTHING,
    ) -> None:
        super().__init__()
        traced, end, layout = _traced(classifier, image_size, untraced)
        both = traced.after(traced.nodes[0], traced.nodes[-1])
        tokens = next(node for node in both.graph.nodes if node.name == end.name)
        output = next(node for node in both.graph.nodes if node.op == "output")
        with both.graph.inserting_before(output):
            feature_map = both.graph.call_function(tokens_to_map, (tokens, *layout[:3]))
            output.args = ((output.all_input_nodes[0], feature_map),)
        both.recompile()
        self.normalize = normalize
        self.both = both.eval()
        self.map_widths = (layout.channels,)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return the one map, (B, C, H', W')."""
        return self.with_maps(images)[1]

    def with_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits (B, num_classes) and the feature maps."""
        logits, feature_map = self.both(self.normalize(images))
        return logits, [feature_map]


def _traced(
    classifier: nn.Module, image_size: Sequence[int] | None, untraced: Untraced
) -> tuple[Traced, fx.Node, Layout]:
    """Return the graph of ``classifier``, the node that returns its last tokens, and how these lie."""
    size = tuple(image_size or PROBE_SIZE)
    traced = trace(classifier, untraced)
    traced.measure(size)
    return traced, *_last_tokens(traced, size)


def tokens_to_map(x: Tensor, prefixed: int, height: int, width: int) -> Tensor:
    """Return tokens (B, prefixed + H W, C), or a map (B, H, W, C), as a feature map (B, C, H, W)."""
    if x.dim() == 3:
        x = x[:, prefixed:]
        x = x.reshape(-1, height, width, x.shape[2])
    return x.permute(0, 3, 1, 2).contiguous()


def _last_tokens(traced: Traced, image_size: Sequence[int]) -> tuple[fx.Node, Layout]:
    nodes = traced.nodes
    learning = max((i for i, node in enumerate(nodes) if traced.learns(node)), default=None)
    if learning is None:
        raise UntraceableError("nothing in it has weights")
    before = set(nodes[:learning])
    for node in reversed(lone_nodes(nodes)):
        layout = _layout(shape_of(node), image_size)
        if node in before and layout is not None:
            return node, layout
    raise UntraceableError("nothing in it has the form of a map of tokens, one for each patch of the image")


def _layout(shape: Sequence[int], image_size: Sequence[int]) -> Layout | None:
    """Return how a tensor of ``shape`` holds a map of an image of ``image_size`` (H, W); None where it does not."""
    height, width = image_size
    if len(shape) == 4 and shape[1] * shape[2] > 1 and abs(shape[1] * width - shape[2] * height) < max(height, width):
        return Layout(0, shape[1], shape[2], shape[3])
    if len(shape) != 3:
        return None
    for patch in range(1, min(height, width)):
        rows, columns = height // patch, width // patch
        if rows * columns <= shape[1]:
            prefixed = shape[1] - rows * columns
            return Layout(prefixed, rows, columns, shape[2]) if prefixed <= min(MOST_PREFIXED, rows * columns) else None
    return None
