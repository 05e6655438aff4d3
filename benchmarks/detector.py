"""What a detector costs here beside torchvision's own: a training step, suppression in the graph, and deployed.

    python -m benchmarks.detector --output benchmarks/results/detector.json

A step is one of 16 images of 64 x 64 by a resnet8; deployed is a resnet18 on one image of 320 x 320. Each pair takes
turns, so that a busy host slows both; ratios are of medians. One thread.
"""

import copy
import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet

from benchmarks.measuring import output_option, take_turns, write_result
from models.detection.building import build_detector
from models.detection.detector import Detector
from models.detection.one_stage import OneStageRules
from models.detection.tail import Tail
from models.detections import Detections
from pipeline.core.signature import image_input
from pipeline.export.onnx.exporter import export_image_network
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.training import ExportParts

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
DETECTORS = ("fcos", "retinanet")
WARMUP = 2
"""Turns that do not count."""
CANDIDATES = 300
TRAINED: Mapping[str, Any] = {
    "backbone": "resnet8",
    "image_size": (64, 64),
    "width": 32,
    "levels": (2, 3),
    "extra": "pool",
}
DEPLOYED: Mapping[str, Any] = {
    "backbone": "torchvision:resnet18",
    "image_size": (320, 320),
    "width": 64,
    "levels": (2, 3, 4),
    "extra": "p6p7",
}


class Levels(nn.Module):
    """A detector's backbone and pyramid, as torchvision wants them: the images are normalised already."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.out_channels = detector.places.rules.settings.width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the levels by their numbers."""
        detector = self.detector
        mean, std = detector.normalize.mean, detector.normalize.std
        return {str(i): level for i, level in enumerate(detector.feature_maps(x * std + mean))}


def torchvisions(detector: Detector, **options: Any) -> nn.Module:
    """Return torchvision's detector that shares the weights of ``detector``."""
    kind = FCOS if detector.places.name == "fcos" else RetinaNet
    settings, side = detector.places.rules.settings, detector.places.image_size
    network: nn.Module = kind(
        Levels(detector), settings.num_classes, anchor_generator=detector.places.rules.anchor_generator(),
        head=detector.head, image_mean=MEAN, image_std=STD, min_size=min(side), max_size=max(side), **options,
    )  # fmt: skip
    return network


def medians(calls: dict[str, Callable[[], object]], *, turns: int) -> dict[str, float]:
    """Return the median milliseconds of each of ``calls``, which take turns."""
    seconds = take_turns(calls, turns=turns, warmup=WARMUP)
    return {name: 1000 * float(np.median(spent)) for name, spent in seconds.items()}


def training_step(name: str, *, turns: int, batch: int) -> dict[str, float]:
    """Time forward and backward of images with 3 objects each: as stages train, and torchvision's own.

    Stages hold images and weights channels last.
    """
    torch.manual_seed(0)
    plain = build_detector(num_classes=10, mean=MEAN, std=STD, detector=name, num_convs=4, **TRAINED).train()
    model = torchvisions(plain).train()
    detector = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    images, corner = torch.rand(batch, 3, *TRAINED["image_size"]), torch.rand(batch, 3, 2) * 36
    shown = images.contiguous(memory_format=torch.channels_last)
    boxes = list(torch.cat([corner, corner + 10 + torch.rand(batch, 3, 2) * 18], dim=2))
    classes = list(torch.randint(0, 10, (batch, 3)))
    targets = [{"boxes": box, "labels": label} for box, label in zip(boxes, classes, strict=True)]

    def ours() -> Tensor:
        detector.zero_grad(set_to_none=True)
        loss = torch.stack([*detector(shown).losses(boxes, classes).values()]).sum()
        loss.backward()
        return loss.detach()

    def theirs() -> Tensor:
        model.zero_grad(set_to_none=True)
        loss = torch.stack([*model(list(images), targets).values()]).sum()
        loss.backward()
        return loss.detach()

    torch.testing.assert_close(ours(), theirs(), rtol=1e-5, atol=1e-5)
    found = medians({"ours": ours, "torchvision": theirs}, turns=turns)
    return found | {"ratio": found["torchvision"] / found["ours"]}


def surest(detector: Detector, image: Tensor) -> Detections:
    """Return what is reported of ``image``: by random weights no score is high, so a threshold lets the surest pass."""
    rules = detector.places.rules
    assert isinstance(rules, OneStageRules)
    with torch.no_grad():
        scores = rules.scores(detector(image).tensors).flatten()
    threshold = float(scores.sort(descending=True).values[CANDIDATES])
    return Detections(score_threshold=threshold, candidates=CANDIDATES)


def forms(detector: Detector, post: Detections) -> dict[str, tuple[nn.Module, list[str]]]:
    """Return what deploys, and its outputs: with the scores of all places, and with suppression in the graph."""
    body, names = _Body(detector), detector.places.output_names
    everything = ExportParts(body, names, Tail(detector.places, replace(post, nms="none"))).whole()
    boxes = ExportParts(body, names, Tail(detector.places, post)).whole()
    return {
        "all places": (everything, ["boxes", "scores"]),
        "boxes": (boxes, ["num", "boxes", "scores", "classes"]),
    }


def deployed(name: str, *, turns: int) -> dict[str, float]:
    """Time one image: ONNX Runtime without and with suppression (k = 300), and torchvision in eager mode."""
    torch.manual_seed(0)
    detector = build_detector(num_classes=10, mean=MEAN, std=STD, detector=name, **DEPLOYED).eval()
    size = DEPLOYED["image_size"]
    image = torch.rand(1, 3, *size)
    post = surest(detector, image)
    model = torchvisions(detector, score_thresh=post.score_threshold).eval()
    calls: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for label, (whole, outputs) in forms(detector, post).items():
            path = Path(folder, f"{len(calls)}.onnx")
            export_image_network(whole, path, image_input(size, "float32"), outputs, opset=20, metadata={})
            calls[label] = functools.partial(OnnxRuntime(path).infer, image.numpy())
        calls["torchvision"] = lambda: model(list(image))
        found = medians(calls, turns=turns)
    share = found["boxes"] / found["all places"] - 1
    return found | {"share_of_suppression": share, "ratio": found["torchvision"] / found["boxes"]}


class _Body(nn.Module):
    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.detector(images).tensors
        return found


@click.command()
@click.option("--detector", "names", multiple=True, type=click.Choice(DETECTORS), default=DETECTORS, show_default=True)
@click.option("--turns", default=30, show_default=True)
@click.option("--batch", default=16, show_default=True, help="Images of a step.")
@click.option("--deployed/--no-deployed", "deploys", default=True, show_default=True, help="Besides the step.")
@output_option
def main(*, names: tuple[str, ...], turns: int, batch: int, deploys: bool, output: Path | None) -> None:
    """Print what each detector takes."""
    torch.set_num_threads(1)
    found = {name: {"training_step_ms": training_step(name, turns=turns, batch=batch)} for name in names}
    if deploys:
        found = {name: row | {"batch_1_ms": deployed(name, turns=turns)} for name, row in found.items()}
    click.echo(json.dumps(found, indent=2))
    write_result(output, config={"turns": turns, "warmup": WARMUP, "batch": batch}, **found)


if __name__ == "__main__":
    main()
