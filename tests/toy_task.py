"""A task of the tests with two outputs and no classes: how bright each channel of an image is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.arrays import Outputs, Pixels, Truth
from pipeline.core.signature import Signature, TensorSpec, image_input
from pipeline.export.samples import write_samples
from pipeline.tasks import table
from pipeline.tasks.base import Classes, Placement, Prediction, Scores
from pipeline.tasks.mean_score import MeanScoreTask
from pipeline.tasks.parity import Parity, Scale, compare_values, output_scale
from pipeline.tasks.table import TaskEntry
from pipeline.tasks.verification import Reference
from workbench.serving_helpers import SIZE, random_images, write_package

LEVELS, COUNT = "levels", "bright_channels"
CHANNELS = ["red", "green", "blue"]


class Brightness(MeanScoreTask):
    """Outputs: the mean of each channel, float32 (3,), and how many are above one half, int32 (1,)."""

    name = "brightness"
    primary = "right_counts"
    primary_title = "right counts"
    truth_names = ("bright",)
    prediction_columns = ("channel",)
    image_columns = ("file",)

    def encode_truth(self, images: Any, kept: Sequence[int], image_size: tuple[int, int]) -> NoReturn:
        raise NotImplementedError

    def signature(self, *, image_size: tuple[int, int], input_dtype: str, class_names: Sequence[str]) -> Signature:
        outputs = TensorSpec(LEVELS, "float32", (len(class_names),)), TensorSpec(COUNT, "int32", (1,))
        return Signature(image_input(image_size, input_dtype), outputs)

    def score(self, outputs: Outputs, truth: Truth) -> Scores:
        return {self.primary: float((outputs[COUNT][:, 0] == truth["bright"]).mean())}

    def rightness(self, outputs: Outputs, truth: Truth) -> NDArray[np.float64]:
        return (outputs[COUNT][:, 0] == truth["bright"]).astype(np.float64)

    def scale(self, reference: Outputs) -> Scale:
        return output_scale(reference[LEVELS])

    def compare(self, outputs: Outputs, reference: Outputs, scale: Scale) -> Parity:
        same = (outputs[COUNT] == reference[COUNT])[:, 0]
        return compare_values(outputs[LEVELS], reference[LEVELS], scale, same=same)

    def predictions(
        self, images: Sequence[Placement], outputs: Outputs, classes: Classes, *, top: int | None, min_score: Any = None
    ) -> list[Prediction]:
        assert min_score is None
        found = []
        for image, levels, count in zip(images, outputs[LEVELS], outputs[COUNT][:, 0], strict=True):
            brightest = [classes.names[i] for i in np.argsort(-levels, kind="stable")[:top]]
            text = f"{count} bright, {' > '.join(brightest)}"
            rows = [{"channel": channel} for channel in brightest]
            found.append(Prediction(image.name, {"bright": int(count), "channels": brightest}, text, rows))
        return found

    def image_rows(self, names: Any, outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> NoReturn:
        raise NotImplementedError

    def review(self, rows: Any, class_names: Sequence[str]) -> NoReturn:
        raise NotImplementedError

    def tile(self, pixels: Any, row: Any, review: Any) -> NoReturn:
        raise NotImplementedError

    def card_rows(self, scores: Scores) -> list[tuple[str, str]]:  # noqa: ARG002
        return []

    def card_usage(self) -> str:
        return "levels, count = session.run(None, {'image': pixels})"

    def training(self) -> NoReturn:
        raise NotImplementedError


def register() -> None:
    """Put the task into the table of tasks."""
    entry = TaskEntry(name=Brightness.name, description="of the tests", load=Brightness)
    table.TASKS._entries[entry.name] = entry


def right_outputs(images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the right outputs for float32 ``images`` (B, 3, H, W)."""
    levels = images.mean(axis=(2, 3), dtype=np.float64).astype(np.float32)
    return {LEVELS: levels, COUNT: (levels > 0.5).sum(axis=1, keepdims=True).astype(np.int32)}


def make_model(path: Path) -> None:
    """Write the network."""
    constants = {"axes": np.array([2, 3], np.int64), "half": np.float32(0.5), "channels": np.array([1], np.int64)}
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], [LEVELS], keepdims=0),
        helper.make_node("Greater", [LEVELS, "half"], ["above"]),
        helper.make_node("Cast", ["above"], ["ones"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["ones", "channels"], [COUNT]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info(LEVELS, TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info(COUNT, TensorProto.INT32, ["batch", 1]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def pictures(count: int) -> Pixels:
    """Return images of which each channel has a brightness of its own."""
    brightness = np.random.default_rng(0).random((count, 3, 1, 1))
    return (random_images(count, dtype="uint8") * brightness + 255 * (1 - brightness) * brightness).astype(np.uint8)


def samples() -> Reference:
    """Return images with the right outputs."""
    pixels = pictures(5)
    outputs = right_outputs(pixels.astype(np.float32) / 255)
    return Reference(Brightness(), pixels, {"bright": outputs[COUNT][:, 0].astype(np.int64)}, outputs)


def make_package(folder: Path) -> Path:
    """Write a package of the task, with samples; ``register`` makes it one that can be opened."""
    folder.mkdir(parents=True)
    make_model(folder / "model.onnx")
    write_samples(folder, samples())
    return write_package(
        folder,
        files={"fp32": "model.onnx"},
        classes=Classes(tuple(CHANNELS)),
        signature=Brightness().signature(image_size=(SIZE, SIZE), input_dtype="float32", class_names=CHANNELS),
        task=Brightness(),
    )
