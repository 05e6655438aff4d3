"""VGG for small images (Simonyan and Zisserman 2015), with batch normalisation and without hidden linear layers.

The shapes and parameter counts are those of the CRD protocol (Tian et al. 2020).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..core.calling import call
from ..layers.initialization import normal_by_fan_out
from .backbone import Backbone, Stage


class CifarVgg(Backbone):
    """Blocks of 3x3 convolutions, each followed by batch normalisation and ReLU; max pooling between the blocks.

    Images (B, 3, H, W) to maps of 1, 1/2, 1/4 and 1/8 of their size where there are five blocks. No pooling stands
    before the last block, which therefore shares its stage with the block before it.

    Args:
        blocks: output channels of the convolutions of each block.

    Raises:
        ValueError: there are fewer than two blocks, or one without convolutions.
    """

    published_names = ((r"^block(\d)\.", r"blocks.\1."),)

    def __init__(self, *, blocks: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        if len(blocks) < 2 or not all(blocks):
            raise ValueError(f"a VGG has two or more blocks of one or more convolutions, got {blocks}")
        ends = [3, *(block[-1] for block in blocks)]
        unpooled = {0, len(blocks) - 1}
        self.blocks = nn.ModuleList(
            _block(ends[index], block, pooled=index not in unpooled) for index, block in enumerate(blocks)
        )
        self.widths = (*ends[1:-2], ends[-1])
        normal_by_fan_out(self)

    def eager_stages(self) -> Sequence[Stage]:
        """Return each block with the pooling before it, the last two together."""
        return *list(self.blocks)[:-2], self._last

    def _last(self, x: Tensor) -> Tensor:
        return call(self.blocks[-1], self.blocks[-2](x))


def _block(in_channels: int, widths: Sequence[int], *, pooled: bool) -> nn.Sequential:
    """Return convolutions numbered as in published weights, whose blocks do not hold the pooling."""
    layers: list[nn.Module] = []
    for before, after in zip([in_channels, *widths], widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    block = nn.Sequential()
    if pooled:
        block.add_module("pool", nn.MaxPool2d(2))
    for number, layer in enumerate(layers):
        block.add_module(str(number), layer)
    return block
