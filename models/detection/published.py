"""torchvision's published detectors: what their weights are called, and what their outputs stand for."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .detectors import DETECTORS

COCO_IDS = (
    *range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83), *range(84, 91),
)  # fmt: skip
"""The 80 categories of MS-COCO by their ids, which have gaps: output i of a published one-stage detector is id i."""
NUM_OUTPUTS = 91
"""Of a published one-stage detector: ids 0 to 90, eleven of them unused."""


class Published(NamedTuple):
    """A detector that torchvision publishes with weights trained on MS-COCO."""

    detector: str
    """A name of ``models.detection.detectors.DETECTORS``."""
    backbone: str
    levels: tuple[int, ...]
    extra: str


PUBLISHED: Mapping[str, Published] = {
    "fcos_resnet50_fpn": Published("fcos", "torchvision:resnet50", (3, 4, 5), "p6p7"),
    "retinanet_resnet50_fpn": Published("retinanet", "torchvision:resnet50", (3, 4, 5), "p6p7"),
    "retinanet_resnet50_fpn_v2": Published("retinanet_v2", "torchvision:resnet50", (3, 4, 5), "p6p7_c5"),
    "fasterrcnn_resnet50_fpn": Published("faster_rcnn", "torchvision:resnet50", (2, 3, 4, 5), "pool"),
}
"""By torchvision's names, with the parts from which ``build_detector`` makes the same network at a width of 256."""

PARTS = (
    (r"^backbone\.fpn\.(inner_blocks|layer_blocks)\.(\d+)\.(weight|bias)$", r"pyramid.\1.\2.0.\3"),
    (r"^backbone\.fpn\.", "pyramid."),
    (r"^backbone\.body\.", ""),
)
"""(pattern, replacement) pairs: pyramid, and the backbone's own names, which stand behind a part's here."""


def own_names(detector: str, names: Sequence[str], own: Sequence[str]) -> dict[str, str]:
    """Return what a weight of torchvision's detector is called in ours, for those of ``names`` that it has.

    Args:
        detector: a name of ``DETECTORS``.
        names: of torchvision's weights.
        own: of all weights of our detector.
    """
    behind_part = {re.sub(r"^backbone\.parts\.\d+\.", "", name): name for name in own}
    renamings = (*PARTS, *DETECTORS[detector].load().published_names)
    found = {}
    for name in names:
        renamed = name
        for pattern, replacement in renamings:
            renamed = re.sub(pattern, replacement, renamed)
        if renamed in behind_part:
            found[name] = behind_part[renamed]
    return found
