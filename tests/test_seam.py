"""The seam between the chain and what is predicted: the task alone knows of classes; its networks may have a tail."""

import ast
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from models.core.calling import call
from models.deploy import PlainNetwork
from models.factory import build_classifier
from pipeline.core.arrays import Outputs, Truth
from pipeline.core.errors import GateError
from pipeline.core.signature import Signature, TensorSpec, image_input
from pipeline.data.dataset import Split
from pipeline.data.splits import ImageSet
from pipeline.export import folder, samples
from pipeline.export.onnx.files import Exported, Exports, Source, export_precisions
from pipeline.export.onnx.manifest import describe_files
from pipeline.export.precisions import PRECISIONS as PRECISIONS_TABLE
from pipeline.export.precisions import TAIL_PREFIX
from pipeline.export.settings import ExportOnnx
from pipeline.export.tensorrt.operator_support import check_precision
from pipeline.preflight.code import PROJECT, CodeReader
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Classes, Image, Placement, Review, Row, Scores, Task
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.training import ClassificationTraining
from pipeline.tasks.gate import Gate, PlacedGate
from pipeline.tasks.mean_score import MeanScoreTask
from pipeline.tasks.parity import Parity, Scale, compare_values, output_scale
from pipeline.tasks.reference import reference
from pipeline.tasks.training import ExportParts, TaskTraining
from pipeline.tasks.verification import Reference, verify

IDENTIFIERS = {"argmax", "label", "labels", "num_classes"}
TEXTS = {"labels", "logits"}
OF_CLASSIFICATION = (
    "pipeline/tasks/classification/",
    "pipeline/tasks/detection/",
    "pipeline/distillation/criteria.py",
    "pipeline/distillation/criterion.py",
    "pipeline/distillation/logit_objectives.py",
    "pipeline/evaluation/ensemble.py",
)
"""The task itself, the losses of classification, what ensembles of logits know, and the task that finds classes in
places."""
OF_OTHERS = {
    "pipeline/comparison/plots.py": {"label="},  # matplotlib's
    "pipeline/report/charts.py": {"label="},  # matplotlib's
    "pipeline/report/confusion_plot.py": {"label="},  # matplotlib's
    "pipeline/report/tradeoff_plot.py": {"label="},  # matplotlib's
    "pipeline/serving/metrics.py": {".labels"},  # Prometheus's
    "pipeline/data/sources/yolo_layout.py": {"'labels'"},  # a folder of YOLO's data sets
    "pipeline/data/sources/other_format.py": {"'labels'"},  # the same
    "pipeline/package/clients.py": {"'labels'", "labels="},  # key of labels.json, and a word of templates
    "pipeline/package/schema.py": {"'labels'", ".labels", "labels"},  # a key of labels.json
    "pipeline/distillation/traced_flows.py": {"'logits'"},  # the name of a flow at the end, in tables
    "pipeline/serving/grpc_health.py": {"label="},  # protobuf's
}
"""Names that other libraries and formats chose, by the files that need them."""


def names_of_classification(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of all that only classification knows of; ``name=`` is an argument of a call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in IDENTIFIERS:
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and node.attr in IDENTIFIERS:
            yield node.lineno, f".{node.attr}"
        elif isinstance(node, ast.arg) and node.arg in IDENTIFIERS:
            yield node.lineno, node.arg
        elif isinstance(node, ast.keyword) and node.arg in IDENTIFIERS:
            yield node.value.lineno, f"{node.arg}="
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in TEXTS:
            yield node.lineno, repr(node.value)


CHAIN = [
    name
    for name in sorted(CodeReader(PROJECT).files)
    if name.startswith(("pipeline/", "stages/")) and name.endswith(".py") and not name.startswith(OF_CLASSIFICATION)
]


@pytest.mark.parametrize("name", CHAIN)
def test_the_chain_does_not_know_what_is_predicted(name: str) -> None:
    found = names_of_classification(ast.parse((PROJECT / name).read_bytes()))
    assert [f"line {line}: {word}" for line, word in found if word not in OF_OTHERS.get(name, set())] == []


@pytest.mark.parametrize("name", OF_OTHERS)
def test_every_exemption_is_needed(name: str) -> None:
    found = {word for _, word in names_of_classification(ast.parse((PROJECT / name).read_bytes()))}
    assert OF_OTHERS[name] <= found


def test_the_walk_finds_what_classification_alone_knows_of() -> None:
    text = "def f(labels): return x.argmax(num_classes=3)['logits'], label, 'a logits', other, 'label', loss.label"
    found = {word for _, word in names_of_classification(ast.parse(text))}
    assert found == {"labels", ".argmax", "num_classes=", "'logits'", "label", ".label"}


class Tail(nn.Module):
    """From the scores of the body to what the task predicts."""

    mix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mix", torch.eye(4) + 0.01)

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities (B, 4) and the best of them (B,), an int32."""
        probabilities = (scores @ self.mix).softmax(dim=1)
        return probabilities, probabilities.argmax(dim=1).to(torch.int32)


class TailedNetwork(nn.Module):
    """A network that predicts scores, and knows what is made of them."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.tail = Tail()

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores (B, 4)."""
        return call(self.body, images)


class ToyTraining(ClassificationTraining):
    """Networks whose outputs are made by a tail."""

    def export_parts(self, network: nn.Module) -> ExportParts:
        tailed = network.student if isinstance(network, PlainNetwork) else network
        assert isinstance(tailed, TailedNetwork)
        return ExportParts(tailed.body, ("scores",), tailed.tail)


class ToyTask(MeanScoreTask):
    """Predicts the best of four, and how probable each is."""

    name = "toy"
    primary = "hits"
    primary_title = "share of hits"
    truth_names = ("right",)
    image_columns = ("file", "right", "best")

    def encode_truth(self, images: ImageSet, kept: Sequence[int], image_size: tuple[int, int]) -> Truth:  # noqa: ARG002
        return {"right": images.categories[list(kept)]}

    def signature(self, *, image_size: tuple[int, int], input_dtype: str, class_names: Sequence[str]) -> Signature:
        outputs = (TensorSpec("probabilities", "float32", (len(class_names),)), TensorSpec("best", "int32", ()))
        return Signature(image_input(image_size, input_dtype), outputs)

    def score(self, outputs: Outputs, truth: Truth) -> Scores:
        return {"hits": float((outputs["best"] == truth["right"]).mean())}

    def rightness(self, outputs: Outputs, truth: Truth) -> NDArray[np.float64]:
        return (outputs["best"] == truth["right"]).astype(np.float64)

    def scale(self, reference: Outputs) -> Scale:
        return output_scale(reference["probabilities"])

    def compare(self, outputs: Outputs, reference: Outputs, scale: Scale) -> Parity:
        same = outputs["best"] == reference["best"]
        return compare_values(outputs["probabilities"], reference["probabilities"], scale, same=same)

    def predictions(
        self,
        images: Sequence[Placement],
        outputs: Outputs,
        classes: Classes,
        *,
        top: int | None,
        min_score: float | None = None,
    ) -> NoReturn:
        raise NotImplementedError

    def image_rows(self, names: Sequence[str], outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[Row]:
        triples = zip(names, truth["right"], outputs["best"], strict=True)
        return [{"file": name, "right": class_names[right], "best": class_names[best]} for name, right, best in triples]

    def review(self, rows: Sequence[Row], class_names: Sequence[str]) -> NoReturn:
        raise NotImplementedError

    def tile(self, pixels: Image, row: Row, review: Review) -> NoReturn:
        raise NotImplementedError

    def card_rows(self, scores: Scores) -> list[tuple[str, str]]:  # noqa: ARG002
        return []

    def card_usage(self) -> str:
        return "print(session.run(['best'], {'image': pixels}))"

    def training(self) -> TaskTraining:
        return ToyTraining()


class ToyTargets(ClassTargets):
    """What is right about some images."""

    def truth(self) -> Truth:
        return {"right": self.labels.numpy()}


TASK = ToyTask()
PRECISIONS = ["fp32", "fp16", "int8-cpu"]
GATES = {
    "fp32": Gate(),
    "fp16": Gate(max_difference=0.1),
    "int8-cpu": Gate(max_difference=2.0, min_agreement=0.7, max_drop=0.3),
}
"""How far each precision of a network with random weights may be."""


@pytest.fixture(scope="module")
def source() -> Source:
    """Return a network with a tail, and how it is exported."""
    torch.manual_seed(0)
    body = build_classifier(backbone="resnet8_x0_25", num_classes=4, mean=[0.5] * 3, std=[0.2] * 3)
    content = ExportOnnx().model_dump()
    content["gates"] |= {name: asdict(gate) for name, gate in GATES.items()}
    signature = TASK.signature(image_size=(8, 8), input_dtype="float32", class_names=["a", "b", "c", "d"])
    network = PlainNetwork(TailedNetwork(body)).eval()
    pixels = make_split().pixels
    return Source(network, signature, TASK.training(), pixels, {}, ExportOnnx.model_validate(content))


@pytest.fixture(scope="module")
def exports(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Return the files of a network with a tail."""
    return export_precisions(source, tmp_path_factory.mktemp("tailed"), PRECISIONS)


@pytest.fixture(scope="module")
def exported(exports: Exports) -> Mapping[str, Exported]:
    """Return the files of a network with a tail, by precision."""
    return {file.precision: file for file in exports.files}


def copied(exports: Exports, folder: Path) -> Exports:
    """Return the same files in ``folder``, since verifying them deletes some."""
    whole = exports.files[0].path.parent
    shutil.copytree(whole, folder / "onnx")
    moved = [
        file._replace(path=folder / "onnx" / file.path.name, body=folder / "onnx" / file.body.relative_to(whole))
        for file in exports.files
        if file.body is not None
    ]
    return exports._replace(files=moved)


def placed(gate: Gate) -> PlacedGate:
    return PlacedGate(gate, "gates.toy", "do something")


def make_split() -> Split:
    images = torch.randint(0, 256, (30, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(images, ToyTargets(torch.arange(30) % 4))


def tail_nodes(path: Path) -> list[tuple[str, list[int]]]:
    """Return operator and types (of inputs, then outputs) of the nodes behind the body's scores."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    graph = model.graph
    known = {item.name: item.type.tensor_type.elem_type for item in (*graph.input, *graph.output, *graph.value_info)}
    known |= {item.name: item.data_type for item in graph.initializer}
    behind, nodes = {"scores"}, []
    for node in graph.node:
        if behind & set(node.input):
            behind |= set(node.output)
            nodes.append((node.op_type, [known[name] for name in (*node.input, *node.output)]))
    return nodes


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_files_of_a_task_with_a_tail_have_its_outputs(precision: str, exported: Mapping[str, Exported]) -> None:
    graph = onnx.load(exported[precision].path).graph
    outputs = {item.name: item.type.tensor_type for item in graph.output}
    assert {name: kind.elem_type for name, kind in outputs.items()} == {
        "probabilities": TensorProto.FLOAT,
        "best": TensorProto.INT32,
    }
    for kind in outputs.values():
        assert kind.shape.dim[0].dim_param == graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_tail_is_float32_in_every_precision(precision: str, exported: Mapping[str, Exported]) -> None:
    nodes = tail_nodes(exported[precision].path)
    assert [name for name, _ in nodes] == ["MatMul", "Softmax", "ArgMax", "Cast"]
    assert [types for _, types in nodes] == [
        [TensorProto.FLOAT] * 3,
        [TensorProto.FLOAT, TensorProto.FLOAT],
        [TensorProto.FLOAT, TensorProto.INT64],
        [TensorProto.INT64, TensorProto.INT32],
    ]
    operators = [node.op_type for node in onnx.load(exported[precision].path).graph.node]
    assert ("QuantizeLinear" in operators) == (precision == "int8-cpu")
    assert (operators.count("Cast") > 1) == (precision == "fp16"), "the body is in float16, but for its ends"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_tail_in_float32_belongs_to_a_file_of_any_precision(precision: str, exported: Mapping[str, Exported]) -> None:
    """Engines are built from such a file; where the tail had the body's precision, it would be found out."""
    model = onnx.load(exported[precision].path)
    assert check_precision(model, PRECISIONS_TABLE[precision]) == []
    for node in model.graph.node:
        node.name = node.name.removeprefix(TAIL_PREFIX)
    renamed = check_precision(model, PRECISIONS_TABLE["fp16"])
    assert any("MatMul: computes in FP32" in fault for fault in renamed)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_task_with_a_tail_is_verified_by_its_own_measures(
    precision: str, source: Source, exported: Mapping[str, Exported]
) -> None:
    known = reference(TASK, source.network, source.signature, make_split())
    assert {name: array.dtype for name, array in known.outputs.items()} == {"probabilities": "float32", "best": "int32"}
    runtime = OnnxRuntime(exported[precision].path)
    found = verify(runtime, known, placed(GATES[precision]), what=precision, batch_size=30, batch_sizes=[1, 7])
    assert set(found.scores) == {"hits"}
    assert found.parity.difference <= (GATES[precision].max_difference or 0)
    assert found.standard_error == pytest.approx(np.sqrt(found.scores["hits"] * (1 - found.scores["hits"]) / 30))
    rows = TASK.image_rows([str(i) for i in range(30)], found.outputs, known.truth, ["a", "b", "c", "d"])
    assert np.mean([row["right"] == row["best"] for row in rows]) == found.scores["hits"]
    with pytest.raises(GateError, match=r"x, 30 images: outputs differ by"):
        verify(runtime, known, placed(Gate(max_difference=1e-12)), what="x", batch_size=30, batch_sizes=[1])


def test_the_manifest_says_of_the_three_gates_what_was_found(source: Source, exports: Exports, tmp_path: Path) -> None:
    """The body's scores are compared with PyTorch's here once more, image by image."""
    known, files = reference(TASK, source.network, source.signature, make_split()), copied(exports, tmp_path)
    bodies = {file.precision: OnnxRuntime(file.body) for file in files.files if file.body is not None}
    entries = describe_files(files, known, source.settings).files
    images = make_split().pixels / np.float32(255)
    with torch.inference_mode():
        trained = call(source.network.student.body, torch.from_numpy(images)).numpy()
    for entry in entries.values():
        body, whole = (entry["gates"]["deployed"][name] for name in ("body", "test_split"))
        apart = np.abs(bodies[entry["precision"]].infer(images)["scores"] - trained).max(axis=1)
        found = body["tensors"]["scores"]
        assert (body["num_images"], set(body["tensors"])) == (30, {"scores"})
        assert found["max_abs"] == pytest.approx(apart.max(), rel=1e-3)
        assert found["difference"] == pytest.approx((apart / output_scale(trained)).max(), rel=1e-3)
        assert (whole["total"], whole["counted"]) == (30, "images")
        assert entry["compared"].startswith("scores before the tail differ by at most ")
        assert entry["compared"].endswith(f", hits {whole['hits']:.2%}")
    assert (
        entries["model.onnx"]["gates"]["deployed"]["test_split"]["hits"]
        == TASK.score(known.outputs, known.truth)["hits"]
    )
    assert sorted(file.name for file in (tmp_path / "onnx").iterdir()) == sorted(entries), "bodies are gone"


def test_a_body_that_differs_is_refused_by_its_tensor(source: Source, exports: Exports, tmp_path: Path) -> None:
    """What its tail makes of it would pass: the largest of four stays the largest where each is twice as large."""

    class Doubled:
        """A body of another scale."""

        input_dtype = "float32"

        def infer(self, images: NDArray[Any]) -> Outputs:
            assert exports.trained_body is not None
            return {"scores": 2 * exports.trained_body.infer(images)["scores"]}

        def describe(self) -> str:
            return "doubled"

    known = reference(TASK, source.network, source.signature, make_split())
    files = copied(exports, tmp_path)._replace(trained_body=Doubled())
    message = (
        r"^model.onnx, test split, before its tail, 30 images: scores differ by .* of their spread .*max_difference"
    )
    with pytest.raises(GateError, match=message):
        describe_files(files, known, source.settings)


class CountingTask(ToyTask):
    """The same, with two things to find on each image, that are counted and not compared value by value."""

    scored_on_samples = False

    def scale(self, reference: Outputs) -> Scale:
        return Task.scale(self, reference)

    def compare(self, outputs: Outputs, reference: Outputs, scale: Scale) -> Parity:
        assert (scale == 1).all()
        assert len(scale) == len(reference["best"])
        two = [np.argsort(given["probabilities"], axis=1)[:, -2:] for given in (outputs, reference)]
        same = two[0] == two[1]
        return Parity(0.0, None, None, float(same.mean()), same.size, "places")


class Given:
    """A runtime that gives the ``best`` first, and no other where fewer than ``least`` images come at once."""

    input_dtype = "uint8"

    def __init__(self, probabilities: NDArray[Any], least: int = 0) -> None:
        self.probabilities = probabilities
        self.least = least

    def infer(self, images: NDArray[Any]) -> Outputs:
        few = self.probabilities[: len(images)]
        shown = few if len(images) >= self.least else few[:, ::-1]
        return {"probabilities": shown, "best": shown.argmax(axis=1).astype(np.int32)}

    def describe(self) -> str:
        return "given"


def test_what_a_task_counts_decides_where_nothing_is_compared_by_value() -> None:
    task, split = CountingTask(), make_split()
    right = np.eye(4)[np.arange(30) % 4] + 0.1 * np.eye(4)[(np.arange(30) + 1) % 4]
    outputs = Given(right).infer(split.pixels)
    known = Reference(task, split.pixels, split.targets.truth(), outputs)
    gate = placed(Gate(max_difference=1e-9, min_agreement=0.95, max_drop=0.0))
    found = verify(Given(7 * right), known, gate, what="x", batch_size=30, batch_sizes=[1, 7])
    assert (found.parity.agreement, found.parity.total, found.drop) == (1.0, 60, 0.0)
    assert found.parity.in_words() == "100.00% of 60 places get the trained network's answer"
    others = right.copy()
    others[:10] = others[:10, ::-1]
    said = (
        "x, 30 images: 20 of 60 places do not get the trained network's answer; allowed are 7: 95.00% must get it, "
        "within chance (gates.toy.min_agreement); do something"
    )
    with pytest.raises(GateError, match=f"^{re.escape(said)}$"):
        verify(Given(others), known, gate, what="x", batch_size=30)
    with pytest.raises(
        GateError, match=r"^x, batch of 7: 14 of 14 places do not get the answer that another batch size"
    ):
        verify(Given(right, least=8), known, gate, what="x", batch_size=30, batch_sizes=[7])


def test_samples_that_no_score_follows_from_carry_no_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, split = CountingTask(), make_split()
    monkeypatch.setattr(folder, "exported_task", lambda _: task)
    known = Reference(
        task, split.pixels, split.targets.truth(), Given(np.eye(4)[np.arange(30) % 4]).infer(split.pixels)
    )
    samples.write_samples(tmp_path, known)
    read = folder.read_samples(tmp_path, {"task": "toy"})
    assert (dict(read.truth), set(read.outputs)) == ({}, {"probabilities", "best"})
    found = verify(Given(known.outputs["probabilities"]), read, placed(Gate()), what="x", batch_size=30)
    assert (found.scores, found.standard_error, found.drop) == (None, None, None)
    assert found.parity.agreement == 1.0
