"""A package of detections whose boxes are known: four outputs, the scores a share of how bright the input is."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.signature import Signature, TensorSpec
from pipeline.export.precisions import PRECISIONS
from pipeline.export.samples import write_samples
from pipeline.tasks.base import Classes
from pipeline.tasks.table import exported_task
from pipeline.tasks.verification import Reference
from workbench.serving_helpers import write_package

HEIGHT, WIDTH = 64, 96
CLASSES = Classes(("cat", "dog", "traffic light"), (17, 18, 10))
NUM_DETECTIONS = 5
BOXES = np.array([[10, 20, 40, 50], [0, 0, 96, 64], [50.5, 4, 90, 60.25], [0] * 4, [0] * 4], np.float32)
"""In pixels of the input: x1, y1, x2, y2; the last two are padding."""
NUMBERS = np.array([2, 0, 1, -1, -1], np.int32)
SHARES = np.array([1.0, 0.75, 0.5, 0.0, 0.0], np.float32)
COUNT = 3
DETECTIONS = {
    "score_threshold": 0.1,
    "iou_threshold": 0.6,
    "candidates": 500,
    "rounds": 8,
    "max_detections": NUM_DETECTIONS,
    "nms": "graph",
}
OUTPUTS = ["num_detections", "detection_boxes", "detection_scores", "detection_classes"]
METADATA = {
    "backbone": "resnet8_x0_5",
    "method": "none",
    "mean": "[0.5, 0.5, 0.5]",
    "std": "[0.25, 0.25, 0.25]",
    "torch_version": "2.14.1",
}
FACTS = {
    "detections": DETECTIONS,
    "boxes": {"format": "xyxy", "space": "pixels of the network's input", "class_base": 0},
}
PLACE_SCORES = np.array([[0.02, 0.05, 1.0], [0.75, 0.05, 0.02], [0.02, 0.5, 0.05]], np.float32)
"""Of each box and class."""
PLACES = np.concatenate([BOXES[:COUNT] + shift for shift in (0, 0.5, 1)]).astype(np.float32)
PLACE_SHARES = np.concatenate([part * PLACE_SCORES for part in (1, 0.9, 0.8)]).astype(np.float32)
IMAGE = TensorSpec("image", "float32", (3, HEIGHT, WIDTH))
SIGNATURE_WITHOUT_NMS = Signature(
    IMAGE, (TensorSpec("boxes", "float32", (3 * COUNT, 4)), TensorSpec("scores", "float32", (3 * COUNT, 3)))
)
Constants = dict[str, Any]
TASK = exported_task({"task": "detection", **FACTS})

SIGNATURE = TASK.signature(image_size=(HEIGHT, WIDTH), input_dtype="float32", class_names=CLASSES.names)


def right_outputs(images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return what the network makes of ``images`` (B, 3, 64, 96)."""
    count = len(images)
    brightness = images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None]
    return {
        "num_detections": np.full((count, 1), COUNT, np.int32),
        "detection_boxes": np.repeat(BOXES[None], count, axis=0),
        "detection_scores": (brightness * SHARES).astype(np.float32),
        "detection_classes": np.repeat(NUMBERS[None], count, axis=0),
    }


def make_model(path: Path) -> None:
    """Write the network."""
    constants: Constants = {
        "axes": np.array([1, 2, 3], np.int64),
        "boxes": BOXES[None],
        "classes": NUMBERS[None],
        "count": np.array([[COUNT]], np.int32),
        "shares": SHARES[None],
        "one": np.array([1], np.int64),
        "one_by_one": np.array([1, 1], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["column"], keepdims=0),
        helper.make_node("Unsqueeze", ["column", "one"], ["brightness"]),
        helper.make_node("Mul", ["brightness", "shares"], ["detection_scores"]),
        helper.make_node("Shape", ["image"], ["batch_size"], start=0, end=1),
        helper.make_node("Concat", ["batch_size", "one"], ["rows"], axis=0),
        helper.make_node("Concat", ["batch_size", "one_by_one"], ["stacks"], axis=0),
        helper.make_node("Expand", ["count", "rows"], ["num_detections"]),
        helper.make_node("Expand", ["boxes", "stacks"], ["detection_boxes"]),
        helper.make_node("Expand", ["classes", "rows"], ["detection_classes"]),
    ]
    _write(path, nodes, constants, SIGNATURE)


def make_model_without_nms(path: Path) -> None:
    """Write a network that gives all places: each of the boxes three times, a little apart and less sure."""
    constants: Constants = {
        "axes": np.array([1, 2, 3], np.int64),
        "places": PLACES[None],
        "shares": PLACE_SHARES[None],
        "ones": np.array([1, 1], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["column"], keepdims=0),
        helper.make_node("Unsqueeze", ["column", "axes_behind"], ["brightness"]),
        helper.make_node("Mul", ["brightness", "shares"], ["scores"]),
        helper.make_node("Shape", ["image"], ["batch_size"], start=0, end=1),
        helper.make_node("Concat", ["batch_size", "ones"], ["stacks"], axis=0),
        helper.make_node("Expand", ["places", "stacks"], ["boxes"]),
    ]
    _write(path, nodes, constants | {"axes_behind": np.array([1, 2], np.int64)}, SIGNATURE_WITHOUT_NMS)


def _write(path: Path, nodes: list[Any], constants: Constants, signature: Signature) -> None:
    kinds = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
    taken, *outputs = (
        helper.make_tensor_value_info(spec.name, kinds[spec.dtype], ["batch", *spec.shape])
        for spec in (signature.input, *signature.outputs)
    )
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "detections", [taken], outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, METADATA)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def make_package(folder: Path, *, more: tuple[str, ...] = ()) -> Path:
    """Write a package with a file for fp32 and for each precision in ``more``, and samples."""
    folder.mkdir(parents=True)
    files = {name: PRECISIONS[name].file_name for name in ("fp32", *more)}
    for name in files.values():
        make_model(folder / name)
    write_samples(folder, samples())
    return write_package(folder, files=files, classes=CLASSES, signature=SIGNATURE, task=TASK, **FACTS)


def make_package_without_nms(folder: Path) -> Path:
    """Write a package whose file gives all places."""
    folder.mkdir(parents=True)
    make_model_without_nms(folder / "model.onnx")
    facts = {**FACTS, "detections": {**DETECTIONS, "nms": "none"}}
    task = exported_task({"task": "detection", **facts})
    pixels = pictures(4)
    brightness = (pixels / np.float32(255)).mean(axis=(1, 2, 3))[:, None, None]
    outputs = {"boxes": np.repeat(PLACES[None], 4, axis=0), "scores": (brightness * PLACE_SHARES).astype(np.float32)}
    write_samples(folder, Reference(task, pixels, {}, outputs))
    files = {"fp32": "model.onnx"}
    return write_package(folder, files=files, classes=CLASSES, signature=SIGNATURE_WITHOUT_NMS, task=task, **facts)


def pictures(count: int) -> NDArray[np.uint8]:
    """Return images (count, 3, 64, 96), each of another brightness, none of them dark."""
    generator = np.random.default_rng(0)
    levels = np.linspace(150, 250, count)[:, None, None, None]
    return (levels + generator.uniform(-5, 5, (count, 3, HEIGHT, WIDTH))).astype(np.uint8)


def samples() -> Reference:
    """Return images with the right outputs."""
    pixels = pictures(4)
    return Reference(TASK, pixels, {}, right_outputs(pixels.astype(np.float32) / np.float32(255)))
