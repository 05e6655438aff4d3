"""The list of boxes that a graph of fixed shapes makes, against torchvision's own post-processing and an exact one."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.ops import box_iou

from models.detection.building import build_detector
from models.detection.detector import Detector
from models.detection.places import Places
from models.detection.rules import Stub
from models.detection.tail import NO_CLASS, Tail
from models.detections import Detections
from pipeline.export.onnx.exporter import export_network
from pipeline.export.tensorrt.operator_support import MAJORS, check_support
from pipeline.tasks.detection.task import Detection

SIZE, CLASSES = 96, 4
ONE_STAGE = ("fcos", "retinanet")
SCENES, BATCH = 100, 10
"""Of each detector and seed, and at once."""
CANDIDATES = 600


@pytest.fixture(scope="module", params=ONE_STAGE)
def detector(request: pytest.FixtureRequest) -> Detector:
    torch.manual_seed(0)
    return build_detector(
        backbone="resnet8", num_classes=CLASSES, image_size=(SIZE, SIZE), mean=[0.5] * 3, std=[0.2] * 3,
        detector=request.param, width=32, levels=(2, 3), extra="pool",
    ).eval()  # fmt: skip


def scenes(places: Places, count: int, seed: int) -> tuple[Tensor, ...]:
    """Return a head's tensors on ``count`` images of 1 to 12 objects, as a trained detector answers: sure near them."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    anchors, total = places.anchors, len(places)
    logits, regression = noise(count, total, CLASSES) - 7, noise(count, total, 4) * 0.2
    centerness = noise(count, total, 1) - 1
    for image in range(count):
        num = int(torch.randint(1, 13, (), generator=generator))
        corner = torch.rand(num, 2, generator=generator) * (SIZE - 40)
        boxes = torch.cat([corner, corner + 8 + torch.rand(num, 2, generator=generator) * 32], dim=1)
        iou, chosen = box_iou(anchors, boxes).max(dim=1)
        near = (anchors[:, :2] + anchors[:, 2:]) / 2 - (boxes[chosen, :2] + boxes[chosen, 2:]) / 2
        is_near = near.abs().amax(dim=1) < 6 if places.name == "fcos" else iou > 0.6
        label = (chosen * 7 + image) % CLASSES
        logits[image, is_near, label[is_near]] += 6 + 2 * noise(int(is_near.sum()))
        centerness[image, is_near] += 2
        if places.name == "fcos":
            wanted = BoxLinearCoder(normalize_by_size=True).encode(anchors, boxes[chosen])
            regression[image] = (wanted + regression[image]).clamp(min=0)
        else:
            regression[image] += BoxCoder((1.0, 1.0, 1.0, 1.0)).encode_single(boxes[chosen], anchors)
    return (logits, regression, centerness) if places.name == "fcos" else (logits, regression)


def torchvisions(places: Places, tensors: tuple[Tensor, ...], post: Detections) -> list[dict[str, Tensor]]:
    """Return what torchvision's own rules find, each level's candidates unlimited."""
    model = {"fcos": FCOS, "retinanet": RetinaNet}[places.name](
        Stub(32), CLASSES, anchor_generator=places.rules.anchor_generator(), head=nn.Identity(),
        score_thresh=post.score_threshold, nms_thresh=post.iou_threshold, detections_per_img=post.max_detections,
        topk_candidates=10**6,
    )  # fmt: skip
    names = ("cls_logits", "bbox_regression", "bbox_ctrness")
    levels = {name: list(x.split(places.num_per_level, dim=1)) for name, x in zip(names, tensors, strict=False)}
    anchors = [list(places.anchors.split(places.num_per_level))] * len(tensors[0])
    found: list[dict[str, Tensor]] = model.postprocess_detections(levels, anchors, [(SIZE, SIZE)] * len(tensors[0]))
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_lists_are_those_of_torchvision(detector: Detector, seed: int) -> None:
    places = detector.places
    post = Detections(places.entry.score_threshold, iou_threshold=places.entry.iou_threshold, candidates=CANDIDATES)
    tail, rounds = Tail(places, post), 0
    for part in range(SCENES // BATCH):
        tensors = scenes(places, BATCH, 100 * seed + part)
        needed = tail.needed(*tensors)
        assert int(needed.candidates.max()) <= CANDIDATES
        rounds = max(rounds, int(needed.rounds.max()))
        require_same(tail(*tensors), torchvisions(places, tensors, post))
    assert 2 <= rounds <= post.rounds


def require_same(found: tuple[Tensor, ...], expected: list[dict[str, Tensor]]) -> None:
    """Check that both are the same lists, value by value."""
    num, boxes, scores, classes = found
    for i, wanted in enumerate(expected):
        count = int(num[i])
        assert count == len(wanted["boxes"])
        assert torch.equal(boxes[i, :count], wanted["boxes"])
        assert torch.equal(scores[i, :count], wanted["scores"])
        assert torch.equal(classes[i, :count].long(), wanted["labels"])
        assert not boxes[i, count:].any()
        assert not scores[i, count:].any()
        assert bool((classes[i, count:] == NO_CLASS).all())
    assert (boxes.dtype, scores.dtype, num.dtype, classes.dtype) == (torch.float32,) * 2 + (torch.int32,) * 2


def test_what_is_needed_is_what_suffices(detector: Detector) -> None:
    places, tensors = detector.places, scenes(detector.places, 40, 3)
    needed = Tail(places, Detections()).needed(*tensors)
    most, rounds = int(needed.candidates.max()), int(needed.rounds.max())
    enough = Tail(places, Detections(candidates=most, rounds=rounds, max_detections=min(100, most)))(*tensors)
    plenty = Tail(places, Detections(candidates=2 * most, rounds=rounds + 5, max_detections=min(100, most)))(*tensors)
    assert all(torch.equal(one, other) for one, other in zip(enough, plenty, strict=True))
    short = Tail(places, Detections(candidates=most, rounds=rounds - 1, max_detections=min(100, most)))(*tensors)
    assert not all(torch.equal(one, other) for one, other in zip(enough, short, strict=True))
    exact = (places.rules.scores(tensors) > places.entry.score_threshold).sum(dim=(1, 2))
    assert torch.equal(needed.candidates, exact)


def test_without_suppression_all_places_are_returned(detector: Detector) -> None:
    places, tensors = detector.places, scenes(detector.places, 3, 4)
    boxes, scores = Tail(places, Detections(nms="none"))(*tensors)
    assert boxes.shape == (3, len(places), 4)
    assert torch.equal(scores, places.rules.scores(tensors))
    assert 0 <= float(boxes.min()) <= float(boxes.max()) <= SIZE
    best = int(scores[0].amax(dim=1).argmax())
    found = Tail(places, Detections())(*tensors)
    assert torch.equal(found[1][0, 0], boxes[0, best])


def test_few_places_and_half_precision_are_no_exception(detector: Detector) -> None:
    places, tensors = detector.places, scenes(detector.places, 2, 5)
    everything = Tail(places, Detections(score_threshold=0.9999, candidates=100, max_detections=7))(*tensors)
    assert everything[0].tolist() == [[0], [0]]
    assert everything[1].shape == (2, 7, 4)
    rough = Tail(places, Detections())(*(tensor.half() for tensor in tensors))
    assert rough[1].dtype == torch.float32
    exact = Tail(places, Detections())(*(tensor.double() for tensor in tensors))
    assert exact[1].dtype == torch.float64


def test_fewer_places_than_detections_leave_rows_of_padding() -> None:
    places = build_detector(
        backbone="resnet8", num_classes=1, image_size=(32, 32), mean=[0.5] * 3, std=[0.2] * 3,
        width=32, num_convs=1, levels=(3,), extra="pool",
    ).places  # fmt: skip
    tensors = tuple(torch.randn(2, len(places), count) for count in (1, 4, 1))
    tail, signature = Tail(places, Detections()), Detection().signature
    expected = signature(image_size=(32, 32), input_dtype="uint8", class_names=["a"]).outputs
    assert len(places) < Detections().max_detections
    for found in (tail(*tensors), tail.eagerly(*tensors)):
        assert [tuple(rows.shape[1:]) for rows in found] == [output.shape for output in expected]
        assert (found[3][:, len(places) :] == NO_CLASS).all()


def test_an_image_is_answered_alike_in_any_batch(detector: Detector) -> None:
    tail, tensors = Tail(detector.places, Detections()), scenes(detector.places, 6, 6)
    whole = tail(*tensors)
    for i in range(6):
        alone = tail(*(tensor[i : i + 1] for tensor in tensors))
        assert all(torch.equal(one[0], many[i]) for one, many in zip(alone, whole, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("nms", ["graph", "none"])
def test_the_exported_tail_finds_the_same_and_suits_tensorrt(detector: Detector, nms: str, tmp_path: Path) -> None:
    places = detector.places
    tail, tensors = Tail(places, Detections(candidates=300, nms=nms)).eval(), scenes(places, 5, 7)
    names = ["num_detections", "detection_boxes", "detection_scores", "detection_classes"]
    names = names if nms == "graph" else ["boxes", "scores"]
    path = tmp_path / "tail.onnx"
    inputs = dict(zip(places.output_names, tensors, strict=True))
    export_network(tail, path, inputs, names, opset=20, metadata={})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = [tensor.numpy() for tensor in tail(*tensors)]
    for rows in (slice(0, 5), slice(2, 3)):
        found: list[Any] = session.run(names, {name: tensor[rows].numpy() for name, tensor in inputs.items()})
        for one, wanted in zip(found, expected, strict=True):
            assert one.dtype == wanted.dtype
            np.testing.assert_allclose(one, wanted[rows], atol=1e-4, rtol=1e-5)
    model = onnx.load(path)
    assert path.stat().st_size < 60_000 + 4 * 4 * len(places), (
        "nothing of the size of candidates x candidates is stored"
    )
    assert "NonMaxSuppression" not in {node.op_type for node in model.graph.node}
    shapes = [[d.dim_value for d in output.type.tensor_type.shape.dim][1:] for output in model.graph.output]
    assert all(all(shape) for shape in shapes), "nothing but the batch is open"
    for major in MAJORS:
        assert check_support(model, major).accepted, check_support(model, major).reasons
