"""Detectors on batches against torchvision's own, which take lists of images."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.ops import MultiScaleRoIAlign

from models.detection.building import build_detector
from models.detection.detector import Detector
from models.detection.detectors import DETECTORS
from models.detection.one_stage import HeadOutputs
from models.detections import Detections
from pipeline.training.network_settings import DetectorSettings
from tests.extensions.detector import ClassesAlone

SMALL: dict[str, Any] = {"backbone": "resnet8", "num_classes": 3, "image_size": (64, 48), "width": 32}
SMALL |= {"levels": (2, 3), "extra": "pool", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
ONE_STAGE = ("fcos", "retinanet", "retinanet_v2")
BOXES = [
    torch.tensor([[3.0, 4.0, 20.0, 25.0], [8.0, 30.0, 44.0, 60.0]]),
    torch.zeros(0, 4),
    torch.tensor([[0.0, 0.0, 48.0, 64.0], [10.0, 10.0, 13.0, 12.0], [20.0, 5.0, 30.0, 50.0]]),
]
CLASSES = [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.int64), torch.tensor([1, 1, 0])]


def make(name: str, **changes: Any) -> Detector:
    torch.manual_seed(0)
    return build_detector(**SMALL | {"detector": name} | changes)


class Levels(nn.Module):
    """A detector's backbone and pyramid as torchvision wants them: normalisation is torchvision's own."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector)
        self.detector.normalize = nn.Identity()  # type: ignore[assignment]
        self.out_channels = SMALL["width"]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {str(i): level for i, level in enumerate(self.detector.feature_maps(x))}


def torchvisions(detector: Detector) -> nn.Module:
    """Return torchvision's detector with the same weights."""
    settings, generator = detector.places.rules.settings, detector.places.rules.anchor_generator()
    options: dict[str, Any] = {"image_mean": SMALL["mean"], "image_std": SMALL["std"], "_skip_resize": True}
    options |= {"size_divisible": 1, "min_size": 48, "max_size": 64}
    levels, classes = Levels(detector), settings.num_classes
    head = copy.deepcopy(detector.head)
    if detector.places.name == "fcos":
        return FCOS(levels, classes, anchor_generator=generator, head=head, **options)
    if detector.places.name.startswith("retinanet"):
        return RetinaNet(levels, classes, anchor_generator=generator, head=head, **options)
    pool = MultiScaleRoIAlign([str(i) for i in range(len(settings.strides) - 1)], 7, 2)
    model = FasterRCNN(levels, classes + 1, rpn_anchor_generator=generator, box_roi_pool=pool, **options)
    model.rpn, model.roi_heads = head.rpn, head.roi_heads
    return model


def targets(shift: int = 0) -> list[dict[str, Tensor]]:
    return [{"boxes": box, "labels": label + shift} for box, label in zip(BOXES, CLASSES, strict=True)]


@pytest.mark.parametrize("name", DETECTORS)
def test_losses_are_those_of_torchvisions_forward_with_lists(name: str) -> None:
    detector = make(name, num_convs=4)
    images = torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    model = torchvisions(detector).train()
    torch.manual_seed(2)  # Faster R-CNN samples
    expected = model(list(images), targets(shift=name == "faster_rcnn"))
    torch.manual_seed(2)
    found = detector.train()(images).losses(BOXES, CLASSES)
    assert set(found) == set(expected)
    for key, loss in expected.items():
        torch.testing.assert_close(found[key], loss, rtol=2e-6, atol=2e-7)
    sum(found.values()).backward()  # type: ignore[union-attr]
    for parameter in detector.parameters():
        assert parameter.grad is not None or name == "faster_rcnn"


def test_a_detector_is_one_file_and_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(DETECTORS["fcos"], name=ClassesAlone.name, load=lambda: ClassesAlone, score_threshold=0.4)
    monkeypatch.setitem(DETECTORS._entries, entry.name, entry)
    assert DetectorSettings(kind=entry.name).kind == entry.name
    detector = make(entry.name)
    answers = detector(torch.rand(3, 3, 64, 48))
    assert sum(answers.losses(BOXES, CLASSES).values()).isfinite()
    logits, *others = answers.tensors
    sure = logits.detach().clone()
    sure[:, :, 0] = -0.4  # 0.4013
    found = HeadOutputs((sure, *others), detector.head, detector.places, answers.rules).detect(Detections())
    assert found[0].min() > 0
    torch.testing.assert_close(found[2].amax(dim=1), torch.full((3,), 0.4013), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ONE_STAGE)
def test_batches_without_any_object_train(name: str) -> None:
    detector = make(name)
    empty = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2
    losses = detector(torch.rand(2, 3, 64, 48)).losses(*empty)
    sum(losses.values()).backward()
    assert losses.pop("classification") > 0
    assert not any(bool(loss.detach()) for loss in losses.values())
    assert all(bool(p.grad.isfinite().all()) for p in detector.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ONE_STAGE)
def test_the_mean_of_two_processes_is_the_loss_of_the_whole_batch(name: str) -> None:
    """The first has two of the places' objects, the second the rest: their means are not those of halves."""
    detector = make(name).double().eval()
    images = torch.rand(4, 3, 64, 48, dtype=torch.float64)
    boxes, classes = [*BOXES, BOXES[0][:1]], [*CLASSES, CLASSES[0][:1]]
    whole = detector(images).losses(boxes, classes)
    halves = [slice(0, 2), slice(2, 4)]
    seen: list[Tensor] = []

    def noting(tensor: Tensor) -> Tensor:
        seen.append(tensor)
        return tensor

    for half in halves:
        detector(images[half]).losses(boxes[half], classes[half], all_reduce=noting)
    total = torch.stack(seen).sum(dim=0) if seen else torch.zeros(2)
    parts = [detector(images[half]).losses(boxes[half], classes[half], all_reduce=lambda _: total) for half in halves]
    for key, loss in whole.items():
        mean = torch.stack([part[key] for part in parts]).mean()
        torch.testing.assert_close(mean, loss, rtol=1e-10, atol=1e-12)


def test_losses_of_half_precision_are_computed_in_float32() -> None:
    detector = make("fcos").eval()
    images = torch.rand(3, 3, 64, 48)
    exact = detector(images)
    rough = HeadOutputs(tuple(t.bfloat16() for t in exact.tensors), detector.head, detector.places, exact.rules)
    for key, loss in rough.losses(BOXES, CLASSES).items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact.losses(BOXES, CLASSES)[key], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_size": (64, 50)},
            r"64 x 50 pixels .* stride of 8; give multiples of 8 as prepare_data.image_size, e\.g\. 64 x 48 or 64 x 56",
        ),
        (
            {"image_size": (16, 16), "extra": "p6p7"},
            "detector.width: got 32, .*one place on images of 16 x 16 .*give 64",
        ),
        (
            {"image_size": (16, 16), "extra": "p6p7", "detector": "retinanet_v2"},
            "detector.width: got 32, .*one place on images of 16 x 16 pixels",
        ),
        ({"width": 40}, "detector.width: got 40; .*multiple of 32, e.g. 32 or 64"),
        ({"levels": (3, 2)}, r"detector.levels: got \[3, 2\] .*ascending"),
        ({"levels": (4,)}, r"levels: got \[4\] .*1 \(16 channels\), 2 \(32 channels\), 3 \(64 channels\)"),
        ({"extra": "p8"}, "extra: got 'p8'; give one of pool, p6p7, p6p7_c5"),
        ({"backbone": "torchvision:vit_b_16", "image_size": (32, 32)}, "has no feature maps for a pyramid"),
        ({"detector": "yolo"}, "unknown detector 'yolo'"),
        ({"detector": "retinanet", "num_convs": 2}, "detector.num_convs: got 2; RetinaNet's branches have 4"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_detector(**SMALL | {"detector": "fcos"} | changes)


@pytest.mark.parametrize("levels", [(2, 3), (1, 2)])
def test_building_changes_no_running_statistics_and_needs_no_batch(levels: tuple[int, ...]) -> None:
    detector = make("fcos", levels=levels)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training
            assert module.num_batches_tracked is not None
            assert int(module.num_batches_tracked) == 0


def test_a_detector_of_two_stages_finds_what_torchvisions_finds() -> None:
    detector = make("faster_rcnn").eval()
    images = torch.rand(2, 3, 64, 48)
    model = torchvisions(detector).eval()
    model.roi_heads.score_thresh = 0.0  # type: ignore[union-attr]
    with torch.no_grad():
        expected: Sequence[dict[str, Tensor]] = model(list(images))
        num, boxes, scores, classes = detector(images).detect(Detections(score_threshold=0.0))
    for i, image in enumerate(expected):
        count = int(num[i])
        assert count == len(image["boxes"]) > 0
        torch.testing.assert_close(boxes[i, :count], image["boxes"])
        torch.testing.assert_close(scores[i, :count], image["scores"])
        assert classes[i, :count].tolist() == (image["labels"] - 1).tolist()
        assert not boxes[i, count:].any()
        assert set(classes[i, count:].tolist()) <= {-1}


def test_thresholds_that_are_not_given_are_the_detectors_own_whatever_was_asked_before() -> None:
    detector = make("faster_rcnn").eval()
    with torch.no_grad():
        answers = detector(torch.rand(1, 3, 64, 48))
    own = answers.detect(Detections())
    assert int(own[0]) > 0
    assert int(answers.detect(Detections(score_threshold=0.99, iou_threshold=1.0))[0]) == 0
    for before, after in zip(own, answers.detect(Detections()), strict=True):
        assert torch.equal(before, after)


def test_a_detector_of_two_stages_finds_in_mixed_precision_what_numpy_can_hold() -> None:
    detector = make("faster_rcnn").eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = detector(torch.rand(2, 3, 64, 48)).detect(Detections(score_threshold=0.0))
    assert [tensor.dtype for tensor in found] == [torch.int32, torch.float32, torch.float32, torch.int32]


def test_torchvisions_second_retinanet_has_group_norms_and_its_own_box_loss() -> None:
    head: Any = make("retinanet_v2").head
    norms = [module for module in head.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == 8
    assert head.regression_head._loss_type == "giou"
    assert not [m for m in make("retinanet").head.modules() if isinstance(m, nn.GroupNorm)]
    assert partial(nn.GroupNorm, 32)(64).num_groups == norms[0].num_groups


def test_what_no_level_needs_does_not_learn() -> None:
    detector = make("fcos", levels=(1, 2))
    learning = {name for name, parameter in detector.named_parameters() if parameter.requires_grad}
    sum(detector(torch.rand(3, 3, 64, 48)).losses(BOXES, CLASSES).values()).backward()
    assert {name for name, parameter in detector.named_parameters() if parameter.grad is not None} == learning
    assert any(name.startswith("backbone.") for name in learning)
    assert len(learning) < len(list(detector.parameters()))
    assert all(parameter.requires_grad for parameter in make("fcos").parameters())
