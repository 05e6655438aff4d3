"""The outputs of detectors that torchvision trained on COCO: those of the data's classes are taken among them."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torchvision.models import get_weight

from models.detection.published import COCO_IDS
from pipeline.core.printable import printable
from pipeline.networks.weights import Weights

ANY_OF_COCO = "FCOS_ResNet50_FPN_Weights.COCO_V1"
"""Weights whose description lists the categories, as that of all detectors does."""
ANCHORS = (1, 9)
"""Of a place: FCOS's and RetinaNet's. Other multiples of the categories are classes of somebody else."""
SHOWN = 3
Rows = Callable[[Tensor, list[int]], Tensor]
"""From a tensor with rows for all categories, and the categories that are wanted, to that with theirs."""


def coco_categories() -> list[str]:
    """Return the name of each COCO category at the place of its id; ids that are not used have names like N/A."""
    names: list[str] = get_weight(ANY_OF_COCO).meta["categories"]
    return names


def choose_categories(weights: Weights, class_names: Sequence[str]) -> Weights:
    """Return ``weights`` with the outputs of ``class_names`` alone, in their order, where they have one for each id.

    Raises:
        ValueError: they have, and a class is no COCO category.
    """
    names = coco_categories()
    layers = {name: rows for name in weights.tensors if (rows := _rows_of(name, weights.tensors, len(names)))}
    if not layers or len(class_names) == len(names):
        return weights
    ids = {_folded(names[number]): number for number in COCO_IDS}
    others = [name for name in class_names if _folded(name) not in ids]
    if others:
        raise ValueError(_not_of_coco(others, class_names, names))
    wanted = [ids[_folded(name)] for name in class_names]
    cut = {name: rows(weights.tensors[name], wanted) for name, rows in layers.items()}
    note = f"took the outputs of {len(wanted)} COCO categories, by their names"
    others_of_file = tuple(choose_categories(one, class_names) for one in weights.others)
    return weights._replace(tensors=weights.tensors | cut, notes=(*weights.notes, note), others=others_of_file)


def _rows_of(name: str, tensors: Mapping[str, Tensor], count: int) -> Rows | None:
    """Return how the tensor ``name`` is cut down, where it has rows for each of ``count`` categories."""
    layer = re.sub(r"\.(weight|bias)$", "", name)
    rows = len(tensors[name]) if tensors[name].dim() else 0
    anchors = rows // count
    if layer.endswith("classification_head.cls_logits") and rows == anchors * count and anchors in ANCHORS:
        return lambda value, wanted: value.reshape(anchors, count, *value.shape[1:])[:, wanted].flatten(0, 1)
    if layer.endswith("box_predictor.cls_score") and rows == count:
        return lambda value, wanted: value[[0, *wanted]]
    if layer.endswith("box_predictor.bbox_pred") and rows == 4 * count:
        return lambda value, wanted: value.reshape(count, 4, *value.shape[1:])[[0, *wanted]].flatten(0, 1)
    return None


def _not_of_coco(others: Sequence[str], class_names: Sequence[str], names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, others[:SHOWN])) + (" ..." if len(others) > SHOWN else "")
    near = ", ".join(dict.fromkeys(one for name in others for one in difflib.get_close_matches(name, names, n=1)))
    hint = f" (the nearest: {near})" if near else ""
    return (
        f"its {len(names)} outputs are COCO's categories, and {len(others)} of the data's {len(class_names)} classes "
        f"are none of them: {shown}{hint}"
    )


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()
