"""Why a classifier that was trained elsewhere is wrong here: the order of its classes, or how images are normalised."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.classifier import Classifier
from models.layers.normalize import Normalize
from pipeline.data.dataset import DataInfo, Split
from pipeline.data.packed_batches import ordered_batches
from pipeline.tasks.classification.class_order import FITTED_ERRORS, Order, better_order
from pipeline.tasks.classification.doubts import doubts
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.significance import standard_errors_above
from pipeline.tasks.training import GivenCheck

logger = logging.getLogger(__name__)

Labels = NDArray[np.int64]
BATCH = 256
LOOKED_AT = 2000
"""Images, at most, on which the order of the classes is looked at."""
TRIED_ON = 300
"""Images, at most, on which each other normalisation is tried."""
HELPLESS = "tried on calibration images, neither a usual normalisation nor another order of the classes makes it better"


class Normalisation(NamedTuple):
    """A usual way in which images are given to networks."""

    name: str
    mean: Sequence[float]
    std: Sequence[float]
    is_bgr: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """Return what a network is given of RGB ``images`` (B, 3, H, W) in [0, 1]."""
        normalised: Tensor = Normalize(self.mean, self.std).to(images.device)(images)
        return normalised.flip(1) if self.is_bgr else normalised

    def advice(self) -> str:
        """Return what to do where a network was trained with it."""
        rounded = [[round(value, 6) for value in values] for values in (self.mean, self.std)]
        setting = f"set train_teacher.mean: {rounded[0]} and train_teacher.std: {rounded[1]}"
        swap = "; and it takes blue first (BGR): turn the channels of its first convolution round (weight.flip(1))"
        return setting + (swap if self.is_bgr else "")


def usual_normalisations(info: DataInfo) -> Iterator[Normalisation]:
    """Yield the usual ways in which images are normalised, in RGB, then in BGR."""
    ways = (
        ("the normalisation of ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("mean and std of 0.5", (0.5,) * 3, (0.5,) * 3),
        ("images in [0, 1], not normalised", (0.0,) * 3, (1.0,) * 3),
        ("images in [0, 255], not normalised", (0.0,) * 3, (1 / 255,) * 3),
        ("images in [0, 255] less the mean of ImageNet", (0.485, 0.456, 0.406), (1 / 255,) * 3),
        ("mean and std of the training images", info.mean, info.std),
    )
    for is_bgr in (False, True):
        for name, mean, std in ways:
            yield Normalisation(f"{name}, blue first" if is_bgr else name, mean, std, is_bgr)


@torch.no_grad()
def check_given_classifier(network: nn.Module, split: Split, info: DataInfo, device: torch.device) -> GivenCheck:
    """Score ``network`` on ``split``; where it answers in another order, or no better than by chance, look for why.

    Raises nothing: what is found is for a warning.
    """
    looked_at = split.spread(LOOKED_AT)
    labels, answers = _labels(looked_at), _answers(network, looked_at, device)
    accuracy, names = float((answers == labels).mean()), info.class_names
    logger.info("given weights: accuracy %.2f%% on %d calibration images", 100 * accuracy, len(labels))
    figures = {"calib_accuracy": accuracy}
    found = better_order(answers, labels, names)
    if found is not None:
        return _in_order(figures, found, names, len(labels), "")
    if not doubts(answers, labels, names) or not isinstance(network, Classifier):
        return GivenCheck(figures)
    return _normalised_otherwise(network, split.spread(TRIED_ON), info, device, figures)


def _normalised_otherwise(
    network: Classifier, split: Split, info: DataInfo, device: torch.device, figures: dict[str, float]
) -> GivenCheck:
    """Return the usual normalisation, and order, with which ``network`` is best on ``split``, if clearly better."""
    labels = _labels(split)
    before = _answers(network, split, device) == labels
    best: tuple[float, Normalisation, Order | None] | None = None
    for way in usual_normalisations(info):
        answers = _answers(_Otherwise(network, way), split, device)
        right = answers == labels
        is_better = standard_errors_above(int((right & ~before).sum()), int((before & ~right).sum()), len(labels), 0.0)
        order = better_order(answers, labels, info.class_names)
        accuracy = float(right.mean()) if order is None else order.accuracy
        clearly = order is not None or (is_better >= FITTED_ERRORS and not doubts(answers, labels, info.class_names))
        if clearly and (best is None or accuracy > best[0]):
            best = accuracy, way, order
    if best is None:
        return GivenCheck(figures, remark=HELPLESS)
    accuracy, way, order = best
    how = f"with {way.name} it has {accuracy:.2%} on {len(labels)} calibration images: {way.advice()}"
    if order is None:
        return GivenCheck(figures, how)
    return _in_order(figures, order, info.class_names, len(labels), f"with {way.name} ({way.advice()}), and ")


def _in_order(figures: dict[str, float], order: Order, names: Sequence[str], count: int, before: str) -> GivenCheck:
    proposed = [names[i] for i in order.classes]
    found = (
        f"{before}with its classes in {order.name} it has {order.accuracy:.2%} on {count} calibration images, as it is "
        f"{figures['calib_accuracy']:.2%}; save their list as classes.json and set train_teacher.classes to that"
    )
    return GivenCheck(figures, found, proposed_classes=proposed)


class _Otherwise(nn.Module):
    """A classifier that is given images normalised in another way than its own."""

    def __init__(self, network: Classifier, way: Normalisation) -> None:
        super().__init__()
        self.network, self.way = network, way

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of RGB images (B, 3, H, W) in [0, 1]."""
        own = self.network.normalize
        logits: Tensor = self.network(self.way.apply(images) * own.std + own.mean)
        return logits


def _answers(network: nn.Module, split: Split, device: torch.device) -> Labels:
    found = [network(batch.images).argmax(dim=1) for batch in ordered_batches(split, BATCH, device)]
    answers: Labels = torch.cat(found).cpu().numpy()
    return answers


def _labels(split: Split) -> Labels:
    assert isinstance(split.targets, ClassTargets)
    labels: Labels = split.targets.labels.cpu().numpy()
    return labels
