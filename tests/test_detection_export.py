"""A real small detector in every precision: its files, their tails, and what is checked before anything is written."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn
from torchvision.ops import batched_nms

from models.deploy import PlainNetwork
from models.detection.building import build_detector
from models.detection.detector import Detector
from models.detection.tail import Tail
from models.detections import Detections
from pipeline.core.arrays import Pixels
from pipeline.core.errors import UserError
from pipeline.core.signature import Signature, TensorSpec, image_input
from pipeline.export.onnx.bodies import verify_body
from pipeline.export.onnx.files import Exported, Exports, Source, check_tensorrt, export_precisions
from pipeline.export.precisions import PRECISIONS, TAIL_PREFIX
from pipeline.export.settings import ExportOnnx
from pipeline.export.tensorrt.operator_support import check_precision
from pipeline.runtimes.base import predict, to_input
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.torch import TorchRuntime
from pipeline.tasks.classification.training import ClassificationTraining
from pipeline.tasks.detection import tail_check
from pipeline.tasks.detection.facts import output_facts
from pipeline.tasks.detection.parity import BOXES, CLASSES, COUNT, SCORES, compare_detections
from pipeline.tasks.detection.tail_check import require_enough
from pipeline.tasks.gate import Gate, PlacedGate
from pipeline.tasks.training import ExportParts

pytestmark = pytest.mark.slow

SIZE, NUM_CLASSES, THRESHOLD = 64, 4, 0.3
SHOWN = Detections(score_threshold=THRESHOLD, iou_threshold=0.6, candidates=400, max_detections=20)
ALL = list(PRECISIONS)


class Body(nn.Module):
    """A detector up to the tensors of its head."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the head's tensors (B, P, ...)."""
        tensors: tuple[torch.Tensor, ...] = self.detector(images).tensors
        return tensors


class Parts(ClassificationTraining):
    """Of a task's training side the one thing that an export asks for."""

    def __init__(self, detections: Detections) -> None:
        self.detections = detections

    def export_parts(self, network: nn.Module) -> ExportParts:
        detector: Any = network.student if isinstance(network, PlainNetwork) else network
        places = detector.places
        return ExportParts(Body(detector).eval(), tuple(places.output_names), Tail(places, self.detections).eval())


def make_network(detector: str) -> PlainNetwork:
    """Return a detector with random features, whose head finds a few things on each image of noise."""
    torch.manual_seed(0)
    network = build_detector(
        backbone="resnet8",
        num_classes=NUM_CLASSES,
        image_size=(SIZE, SIZE),
        mean=[0.5] * 3,
        std=[0.25] * 3,
        detector=detector,
        width=32,
        num_convs=2 if detector == "fcos" else 4,
        levels=(2, 3),
        extra="pool",
    ).eval()
    for name, (mean, std) in HEADS[detector].items():
        (layer,) = (module for path, module in network.named_modules() if path.endswith(f".{name}"))
        _spread(layer, network, mean, std)
    return PlainNetwork(network).eval()


HEADS = {
    "fcos": {"cls_logits": (-6.0, 1.7), "bbox_reg": (2.0, 0.5), "bbox_ctrness": (1.0, 0.5)},
    "retinanet": {"cls_logits": (-6.0, 1.7), "bbox_reg": (0.0, 0.1)},
}
"""Mean and standard deviation of what the last layers give, as of a trained network."""


def _spread(layer: nn.Module, network: nn.Module, mean: float, std: float) -> None:
    """Bring each channel of the convolution ``layer`` to ``mean`` and ``std`` over all places of all images."""
    seen: list[torch.Tensor] = []
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output.transpose(0, 1).flatten(1)))
    with torch.no_grad():
        network(torch.from_numpy(to_input(make_pixels(), "float32")))
        handle.remove()
        values = torch.cat(seen, dim=1)  # (channels, places of all levels and images)
        factor = std / values.std(dim=1)
        layer.weight.mul_(factor[:, None, None, None])
        layer.bias.copy_((layer.bias - values.mean(dim=1)) * factor + mean)


def make_pixels(count: int = 12) -> Pixels:
    """Return images (count, 3, SIZE, SIZE) of coarse noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 3, SIZE // 8, SIZE // 8), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 8, axis=2), 8, axis=3)


def make_signature(detections: Detections = SHOWN) -> Signature:
    most = detections.max_detections
    outputs = (
        TensorSpec(COUNT, "int32", (1,)),
        TensorSpec(BOXES, "float32", (most, 4)),
        TensorSpec(SCORES, "float32", (most,)),
        TensorSpec(CLASSES, "int32", (most,)),
    )
    return Signature(image_input((SIZE, SIZE), "float32"), outputs)


def whole(source: Source) -> TorchRuntime:
    """Return the network with its tail, in PyTorch."""
    names = source.signature.output_names
    network = source.task.export_parts(source.network).whole().eval()
    return TorchRuntime(network, output_names=names, device=torch.device("cpu"))


class Case:
    """A detector with its files."""

    def __init__(self, detector: str, folder: Path) -> None:
        self.pixels = make_pixels()
        task = Parts(SHOWN)
        metadata = {"backbone": "resnet8"}
        self.source = Source(make_network(detector), make_signature(), task, self.pixels, metadata, ExportOnnx())
        self.exports: Exports = export_precisions(self.source, folder, ALL)
        self.files: Mapping[str, Exported] = {file.precision: file for file in self.exports.files}
        self.trained = predict(whole(self.source), self.pixels, 5)


@pytest.fixture(scope="module", params=["fcos", "retinanet"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp(request.param))


def test_the_network_of_these_tests_finds_something(case: Case) -> None:
    """On each image between one and twenty things, of several classes: there is something to be compared."""
    counts = case.trained[COUNT][:, 0]
    assert counts.min() >= 1
    assert counts.sum() >= 3 * len(counts)
    assert len(np.unique(case.trained[CLASSES])) > 2


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_the_float32_file_gives_what_pytorch_gives(case: Case, batch_size: int) -> None:
    found = predict(OnnxRuntime(case.files["fp32"].path), case.pixels, batch_size)
    np.testing.assert_array_equal(found[COUNT], case.trained[COUNT])
    np.testing.assert_array_equal(found[CLASSES], case.trained[CLASSES])
    np.testing.assert_allclose(found[BOXES], case.trained[BOXES], rtol=0, atol=1e-3)
    np.testing.assert_allclose(found[SCORES], case.trained[SCORES], rtol=0, atol=1e-5)
    parity = compare_detections(found, case.trained, least_score=THRESHOLD)
    assert parity.agreement == 1.0
    assert parity.total > len(case.pixels)


def test_the_tail_is_torchvisions_suppression(case: Case) -> None:
    """Of the places and scores that ``nms: none`` gives, list by list."""
    raw = Parts(replace(SHOWN, nms="none")).export_parts(case.source.network).whole().eval()
    with torch.inference_mode():
        boxes, scores = raw(torch.from_numpy(to_input(case.pixels, "float32")))
    for i in range(len(case.pixels)):
        place, number = (scores[i] > THRESHOLD).nonzero(as_tuple=True)
        kept = batched_nms(boxes[i, place], scores[i, place, number], number, 0.6)[: SHOWN.max_detections]
        count = int(case.trained[COUNT][i, 0])
        assert count == len(kept)
        np.testing.assert_array_equal(case.trained[SCORES][i, :count], scores[i, place, number][kept])
        np.testing.assert_array_equal(case.trained[BOXES][i, :count], boxes[i, place[kept]])
        np.testing.assert_array_equal(case.trained[CLASSES][i, :count], number[kept])
        assert (case.trained[CLASSES][i, count:] == -1).all()
        assert not case.trained[BOXES][i, count:].any()


@pytest.mark.parametrize("precision", ALL)
def test_the_outputs_are_those_of_the_signature(precision: str, case: Case) -> None:
    graph = onnx.load(case.files[precision].path).graph
    kinds = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
    assert [item.name for item in graph.output] == case.source.signature.output_names
    for item, spec in zip(graph.output, case.source.signature.outputs, strict=True):
        tensor = item.type.tensor_type
        assert tensor.elem_type == kinds[spec.dtype]
        assert tensor.shape.dim[0].dim_param == "batch"
        assert tuple(dim.dim_value for dim in tensor.shape.dim[1:]) == spec.shape


@pytest.mark.parametrize("precision", ALL)
def test_every_precision_takes_any_batch_and_keeps_the_tail_in_float32(precision: str, case: Case) -> None:
    runtime = OnnxRuntime(case.files[precision].path)
    together = predict(runtime, case.pixels, 7)
    for batch_size in (1, 3):
        found = compare_detections(predict(runtime, case.pixels, batch_size), together, least_score=THRESHOLD)
        assert found.agreement >= 0.9
    model = onnx.shape_inference.infer_shapes(onnx.load(case.files[precision].path), data_prop=True)
    types = {item.name: item.type.tensor_type.elem_type for item in model.graph.value_info}
    tail = [node for node in model.graph.node if node.name.startswith(TAIL_PREFIX)]
    assert {"TopK"} <= {node.op_type for node in tail}
    produced = {types[name] for node in tail for name in node.output if name in types}
    assert TensorProto.FLOAT in produced
    assert not produced & {TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8}


@pytest.mark.parametrize("precision", ALL)
def test_each_tensor_of_the_body_is_compared_and_the_answers_stay_close(precision: str, case: Case) -> None:
    file, open_gate = case.files[precision], PlacedGate(Gate(max_difference=None), "gates.x", "")
    assert file.body is not None
    assert case.exports.trained_body is not None
    found = verify_body(OnnxRuntime(file.body), case.exports.trained_body, case.pixels, open_gate, what=precision)
    assert list(found.tensors) == list(case.source.network.student.places.output_names)
    bound = {"fp32": 1e-4, "fp16": 0.1}.get(precision, 2.0)
    assert max(parity.difference for parity in found.tensors.values()) < bound
    answers = compare_detections(predict(OnnxRuntime(file.path), case.pixels, 5), case.trained, least_score=THRESHOLD)
    assert answers.agreement > {"fp32": 0.999, "fp16": 0.9}.get(precision, 0.3)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-trt"])
def test_tensorrt_takes_body_and_tail_by_its_table(precision: str, case: Case) -> None:
    checks = check_tensorrt(case.files[precision])
    assert {major: check["reasons"] for major, check in checks.items()} == {"10": [], "11": []}
    assert check_precision(onnx.load(case.files[precision].path), PRECISIONS[precision]) == []


def test_a_file_is_not_larger_for_the_order_of_its_candidates(case: Case) -> None:
    """Which of two candidates is the earlier is computed: as a constant it would be candidates^2 bytes and more."""
    file, detector = case.files["fp32"], case.source.network.student
    assert file.body is not None
    assert isinstance(detector, Detector)
    tail = file.path.stat().st_size - file.body.stat().st_size
    assert tail < detector.places.anchors.nbytes + SHOWN.candidates**2 / 2


def test_without_suppression_the_file_gives_all_places(tmp_path: Path) -> None:
    plain = replace(SHOWN, nms="none")
    network, pixels = make_network("fcos"), make_pixels(4)
    detector: Any = network.student
    with torch.inference_mode():
        num_places = detector(torch.zeros(1, 3, SIZE, SIZE)).tensors[0].shape[1]
    outputs = (
        TensorSpec("boxes", "float32", (num_places, 4)),
        TensorSpec("scores", "float32", (num_places, NUM_CLASSES)),
    )
    signature = Signature(image_input((SIZE, SIZE), "float32"), outputs)
    source = Source(network, signature, Parts(plain), pixels, {}, ExportOnnx())
    (file,) = export_precisions(source, tmp_path, ["fp32"]).files
    found, wanted = (predict(runtime, pixels, 3) for runtime in (OnnxRuntime(file.path), whole(source)))
    assert {name: array.shape for name, array in found.items()} == {
        "boxes": (4, num_places, 4),
        "scores": (4, num_places, NUM_CLASSES),
    }
    np.testing.assert_allclose(found["boxes"], wanted["boxes"], rtol=0, atol=1e-3)
    sure = wanted["scores"] > THRESHOLD / 2  # the root of a product magnifies what differs near 0
    np.testing.assert_allclose(found["scores"][sure], wanted["scores"][sure], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["scores"], wanted["scores"], rtol=0, atol=1e-3)


def test_too_few_candidates_are_refused_with_the_number_that_is_needed() -> None:
    network, pixels = make_network("fcos"), make_pixels()
    raw = Parts(replace(SHOWN, nms="none")).export_parts(network).whole().eval()
    with torch.inference_mode():
        _, scores = raw(torch.from_numpy(to_input(pixels, "float32")))
    needed = int((scores > THRESHOLD).sum(dim=(1, 2)).max())
    few = replace(SHOWN, candidates=needed - 1, rounds=1)
    with pytest.raises(UserError, match=r"^detections.candidates: .*\ndetections.rounds: got 1, "):
        require_enough(Parts(few).export_parts(network), pixels, few)
    for candidates in (needed, needed - 1):
        chosen = replace(SHOWN, candidates=candidates, rounds=50)
        parts = Parts(chosen).export_parts(network)
        if candidates == needed:
            require_enough(parts, pixels, chosen)
            continue
        message = (
            rf"^detections.candidates: got {candidates}, but an image of 12 calibration images has {needed} scores "
            rf"above detections.score_threshold \(0.3\): raise that threshold, or set {needed} or more, "
            "whose pairs all take their time; "
            "a network that has learned little finds so many, so train it longer where its AP is low$"
        )
        with pytest.raises(UserError, match=message):
            require_enough(parts, pixels, chosen)


def test_more_rounds_than_there_may_be_are_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_check, "MAX_ROUNDS", 1)
    with pytest.raises(UserError, match=r"^detections.rounds: got 1, .* rounds: 1 is the most, so raise "):
        _check(make_network("fcos"), make_pixels(4), 1)


def test_too_few_rounds_are_refused_with_the_number_that_is_needed() -> None:
    network, pixels = make_network("fcos"), make_pixels(4)
    least = next(rounds for rounds in range(1, 20) if _enough(network, pixels, rounds))
    assert least > 1, "on these images boxes overlap"
    with pytest.raises(UserError, match=rf"^detections.rounds: got {least - 1}, .*: set {least} or more$"):
        _check(network, pixels, least - 1)
    stopped, right = (
        predict(
            TorchRuntime(
                Parts(replace(SHOWN, rounds=rounds, max_detections=100)).export_parts(network).whole(),
                output_names=make_signature().output_names,
                device=torch.device("cpu"),
            ),
            pixels,
            5,
        )
        for rounds in (least, 20)
    )
    assert all(np.array_equal(stopped[name], right[name]) for name in right)


def _check(network: PlainNetwork, pixels: Pixels, rounds: int) -> None:
    chosen = replace(SHOWN, rounds=rounds)
    require_enough(Parts(chosen).export_parts(network), pixels, chosen)


def _enough(network: PlainNetwork, pixels: Pixels, rounds: int) -> bool:
    try:
        _check(network, pixels, rounds)
    except UserError:
        return False
    return True


def test_what_lists_all_places_leaves_nothing_to_be_checked() -> None:
    chosen = replace(SHOWN, nms="none", candidates=1, max_detections=1)
    require_enough(Parts(chosen).export_parts(make_network("fcos")), make_pixels(), chosen)


def test_files_and_manifest_say_how_boxes_are_given() -> None:
    facts = output_facts(SHOWN)
    assert facts["boxes"] == {"class_base": 0, "format": "xyxy", "space": "pixels of the network's input"}
    assert Detections(**facts["detections"]) == SHOWN
