"""What a detector costs here beside torchvision's own: a training step, suppression in the graph, and deployed.

    python benchmarks/detector.py [--out benchmarks/results/detector.json]

Each pair takes turns, so that a busy host slows both; ratios are of medians. One thread.
"""

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet

from models.detection.building import build_detector
from models.detection.detector import Detector
from models.detection.tail import Tail
from models.detections import Detections
from pipeline.core.signature import TensorSpec
from pipeline.export.onnx.exporter import export_image_network
from pipeline.tasks.training import ExportParts

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SMALL: dict[str, Any] = {"backbone": "resnet8", "image_size": (64, 64), "width": 32, "levels": (2, 3), "extra": "pool"}
LARGE: dict[str, Any] = {
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
    return kind(
        Levels(detector), settings.num_classes, anchor_generator=detector.places.rules.anchor_generator(),
        head=detector.head, image_mean=MEAN, image_std=STD, min_size=min(side), max_size=max(side), **options,
    )  # fmt: skip


def medians(calls: dict[str, Callable[[], object]], *, turns: int) -> dict[str, float]:
    """Return the median milliseconds of each of ``calls``, which take turns."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 2):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn >= 2:
                spent[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(times) for name, times in spent.items()}


def training_step(name: str, *, turns: int) -> dict[str, float]:
    """Time forward and backward of 16 images of 64 x 64 with 3 objects each: as stages train, and torchvision's own.

    Stages hold images and weights channels last.
    """
    torch.manual_seed(0)
    plain = build_detector(num_classes=10, mean=MEAN, std=STD, detector=name, num_convs=4, **SMALL).train()
    model = torchvisions(plain).train()
    detector = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, corner = torch.rand(16, 3, 64, 64), torch.rand(16, 3, 2) * 36
    shown = images.contiguous(memory_format=torch.channels_last)
    boxes = list(torch.cat([corner, corner + 10 + torch.rand(16, 3, 2) * 18], dim=2))
    classes = list(torch.randint(0, 10, (16, 3)))
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


def deployed(name: str, *, turns: int) -> dict[str, float]:
    """Time one image of 320 x 320: ONNX Runtime without and with suppression (k = 300), and torchvision in eager mode.

    The scores are those of random weights, of which a threshold lets about 300 pass.
    """
    torch.manual_seed(0)
    detector = build_detector(num_classes=10, mean=MEAN, std=STD, detector=name, **LARGE).eval()
    image = torch.rand(1, 3, 320, 320)
    with torch.no_grad():
        scores = detector.places.rules.scores(detector(image).tensors).flatten()
    threshold = float(scores.sort(descending=True).values[300])
    post = Detections(score_threshold=threshold, candidates=300)
    model = torchvisions(detector, score_thresh=threshold).eval()
    calls: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        body = _Body(detector)
        for label, tail, outputs in (
            ("all places", Tail(detector.places, replace(post, nms="none")), ["boxes", "scores"]),
            ("boxes", Tail(detector.places, post), ["num", "boxes", "scores", "classes"]),
        ):
            path = Path(folder, f"{len(calls)}.onnx")
            whole = ExportParts(body, detector.places.output_names, tail).whole()
            export_image_network(
                whole, path, TensorSpec("image", "float32", (3, 320, 320)), outputs, opset=20, metadata={}
            )
            calls[label] = _session(path, image)
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


def _session(path: Path, image: Tensor) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    pixels: np.ndarray[Any, Any] = image.numpy()
    return lambda: session.run(None, {"image": pixels})


def main() -> None:
    """Print the table, and write it where told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        name: {
            "training_step_ms": training_step(name, turns=arguments.turns),
            "batch_1_ms": deployed(name, turns=arguments.turns),
        }
        for name in ("fcos", "retinanet")
    }
    text = json.dumps(found, indent=2)
    sys.stdout.write(f"{text}\n")
    if arguments.out is not None:
        arguments.out.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
