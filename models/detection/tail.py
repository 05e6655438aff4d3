"""From a head's answers at all places to a list of boxes, in a graph whose shapes do not depend on what is found.

Of each image the surest ``candidates`` (place, class) are taken, and of two that overlap the less sure one is dropped,
as greedy non-maximum suppression does it: a candidate stays if no candidate that stays and is surer overlaps it. That
is a fixed point, and ``rounds`` steps towards it are unrolled: from "all stay", each step drops what a candidate that
stays drops. After as many steps as the longest chain of candidates that drop each other it has been reached.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..core.precision import at_least_float32
from ..detections import NO_NMS, Detections
from .places import Places

if TYPE_CHECKING:
    from .one_stage import OneStageRules

NO_CLASS = -1
"""Of a row behind the last detection."""


class Needed(NamedTuple):
    """What the answers on some images need, (B,) each."""

    candidates: Tensor
    """Those above the score threshold."""
    rounds: Tensor
    """Until nothing changes any more."""


class Tail(nn.Module):
    """From the head's tensors (B, P, ...) to boxes, in float32 at least.

    With ``nms`` ``graph`` it returns num_detections int32 (B, 1), and of D detections boxes float32 (B, D, 4) x1, y1,
    x2, y2 in pixels of the network's input, scores (B, D) and classes int32 (B, D), the surest first; behind the last
    one boxes and scores are 0, classes -1. With ``none`` it returns boxes (B, P, 4) and scores (B, P, num_classes).

    Attributes:
        post: what is returned, with the detector's own thresholds where none were given.
    """

    anchors: Tensor

    def __init__(self, places: Places, post: Detections) -> None:
        super().__init__()
        self.rules = cast("OneStageRules", places.rules)
        self.image_size = places.image_size
        self.post = places.entry.filled(post)
        assert self.post.score_threshold is not None
        assert self.post.iou_threshold is not None
        self.score_threshold, self.iou_threshold = self.post.score_threshold, self.post.iou_threshold
        self.register_buffer("anchors", places.anchors, persistent=False)

    def forward(
        self, class_logits: Tensor, box_regression: Tensor, centerness: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return what is found of the head's tensors, (B, P, ...) each; named, since an exported graph names them."""
        tensors = [class_logits, box_regression, *([] if centerness is None else [centerness])]
        wide = [at_least_float32(tensor) for tensor in tensors]
        if self.post.nms == NO_NMS:
            anchors = self.anchors.to(wide[0].dtype).expand(wide[0].shape[0], -1, -1)
            return self._boxes(wide[1], anchors), self.rules.scores(wide)
        boxes, scores, classes = self._candidates(wide, self.post.candidates)
        return self._detections(boxes, scores * self._kept(boxes, scores, classes), classes)

    @torch.no_grad()
    def eagerly(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return what ``forward`` returns, as fast as the few boxes above the threshold allow; no graph can be so."""
        if self.post.nms == NO_NMS:
            return self(*tensors)  # type: ignore[no-any-return]
        wide = [at_least_float32(tensor) for tensor in tensors]
        above = int((self.rules.scores(wide) > self.score_threshold).sum(dim=(1, 2)).amax())
        boxes, scores, classes = self._candidates(wide, max(1, min(above, self.post.candidates)))
        return self._detections(boxes, scores * self._kept(boxes, scores, classes, until_settled=True), classes)

    def needed(self, *tensors: Tensor) -> Needed:
        """Return what this graph must have for its answer on ``tensors`` to be that of greedy suppression."""
        scores = self.rules.scores(tensors)
        above = (scores > self.score_threshold).sum(dim=(1, 2))
        boxes, sure, classes = self._candidates(tensors, self.post.candidates)
        counted = sure > self.score_threshold
        overlaps = self._overlaps(boxes, classes) * (counted[:, :, None] & counted[:, None, :])
        kept, rounds = torch.ones_like(sure), torch.zeros_like(above)
        while True:
            after = _suppress(overlaps, kept)
            changes = (after != kept).any(dim=1)
            if not changes.any():
                return Needed(above, rounds)
            rounds += changes
            kept = after

    def _candidates(self, tensors: Sequence[Tensor], most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (B, k, 4), scores (B, k) and classes (B, k) of the surest ``most``, in descending order."""
        scores, regression = self.rules.scores(tensors), tensors[1]
        num_places, num_classes = scores.shape[1:]
        k = min(most, num_places * num_classes)
        sure, index = scores.flatten(1).topk(k, dim=1)
        place = torch.div(index, num_classes, rounding_mode="trunc")
        classes = index - place * num_classes
        rows = place[:, :, None].expand(-1, -1, 4)
        anchors = self.anchors.to(regression.dtype).expand(regression.shape[0], -1, -1)
        return self._boxes(regression.gather(1, rows), anchors.gather(1, rows)), sure, classes

    def _boxes(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Return the boxes (B, n, 4), cut to the image."""
        height, width = self.image_size
        boxes = self.rules.decode(regression, anchors)
        x, y = boxes[..., 0::2].clamp(0.0, float(width)), boxes[..., 1::2].clamp(0.0, float(height))
        return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)

    def _kept(self, boxes: Tensor, scores: Tensor, classes: Tensor, *, until_settled: bool = False) -> Tensor:
        """Return which candidates stay, (B, k), 1 or 0; ``until_settled`` looks after each round whether more help."""
        overlaps = self._overlaps(boxes, classes)
        kept = torch.ones_like(scores)
        for _ in range(self.post.rounds):
            before, kept = kept, _suppress(overlaps, kept)
            if until_settled and torch.equal(before, kept):
                break
        return kept * (scores > self.score_threshold).to(scores.dtype)

    def _overlaps(self, boxes: Tensor, classes: Tensor) -> Tensor:
        """Return whether candidate j, which is surer, drops candidate i if it stays: (B, i, j), 1 or 0."""
        x1, y1, x2, y2 = boxes.unbind(dim=-1)  # apart: pairs (B, i, j) of scalars are several times as fast on CPUs
        shared = _shared_side(x1, x2) * _shared_side(y1, y2)
        area = (x2 - x1) * (y2 - y1)
        iou = shared / (area[:, :, None] + area[:, None, :] - shared)
        order = torch.arange(boxes.shape[1], device=boxes.device).expand(boxes.shape[0], -1)  # no constant of k x k
        drops = (iou > self.iou_threshold) & (classes[:, :, None] == classes[:, None, :])
        return (drops & (order[:, None, :] < order[:, :, None])).to(boxes.dtype)

    def _detections(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
        """Return the surest of what stays, as many rows whatever the number of places; the others score 0."""
        best, index = scores.topk(min(self.post.max_detections, scores.shape[1]), dim=1)
        found = best > 0
        chosen = boxes.gather(1, index[:, :, None].expand(-1, -1, 4)) * found[:, :, None].to(boxes.dtype)
        classes = torch.where(found, classes.gather(1, index), NO_CLASS).to(torch.int32)
        rows = (_padded(*pair, self.post.max_detections) for pair in ((chosen, 0), (best, 0), (classes, NO_CLASS)))
        return found.sum(dim=1, keepdim=True).to(torch.int32), *rows


def _shared_side(low: Tensor, high: Tensor) -> Tensor:
    """Return how much of an axis each pair of boxes shares, (B, i, j), from where each begins and ends, (B, n)."""
    shared = torch.minimum(high[:, :, None], high[:, None, :]) - torch.maximum(low[:, :, None], low[:, None, :])
    return shared.clamp(min=0.0)


def _suppress(overlaps: Tensor, kept: Tensor) -> Tensor:
    """Return which candidates (B, k) stay where those that are ``kept`` drop what they overlap."""
    dropping = torch.bmm(overlaps, kept[:, :, None]).squeeze(2)
    return (dropping < 0.5).to(kept.dtype)


def _padded(rows: Tensor, value: float, count: int) -> Tensor:
    """Return ``rows`` (B, n, ...) with rows of ``value`` behind them up to ``count``."""
    if rows.shape[1] == count:
        return rows
    shape = rows.shape[0], count - rows.shape[1], *rows.shape[2:]
    return torch.cat([rows, rows.new_full(shape, value)], dim=1)
