"""ONNX export and its gates, on small networks."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from models.deploy import deployable
from models.factory import build_classifier
from models.students import build_flow_student
from pipeline.core.errors import GateError, UserError
from pipeline.core.files import Json
from pipeline.data.dataset import DataInfo, Split
from pipeline.export.onnx.exporter import export_onnx, onnx_metadata, read_metadata
from pipeline.export.onnx.precisions import PRECISIONS, file_name
from pipeline.runtimes.base import predict
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.torch import TorchRuntime
from pipeline.tasks.classification.parity import Gate
from pipeline.tasks.classification.proof import evaluate, verify_export, trained_logits
from tests.every_precision import export_all
from tests.helpers import ROOT

STATISTICS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
GATE = Gate(1e-4, 0.0, 1.0, 0.0)
Export = Callable[..., Path]


def make_student(meta_encoder: str = "conv") -> nn.Module:
    torch.manual_seed(0)
    names = {"backbone": "resnet8", "schedule": "rectified", "meta_encoder": meta_encoder}
    return build_flow_student(num_classes=4, time_scale=1.0, **names, **STATISTICS).eval()


def make_split(count: int = 9) -> Split:
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(images, torch.arange(count) % 4)


def proved(path: Path, student: nn.Module, num_steps: int | None, split: Split) -> Json:
    """Return the figures of the gates for the file ``path`` of ``student``."""
    reference = trained_logits(student, num_steps, split, 4)
    arguments = {"what": path.name, "batch_sizes": (1, 2, 7), "gate": GATE}
    return verify_export(OnnxRuntime(path), split.pixels, split.labels.numpy(), reference, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Return a function that exports a network to a file."""

    def run(network: nn.Module, opset: int = 20, name: str = "model.onnx") -> Path:
        path = tmp_path / name
        export_onnx(network, path, image_size=(8, 8), opset=opset, metadata={"method": "fm_kt", "backbone": "resnet8"})
        return path

    return run


@pytest.mark.parametrize(("meta_encoder", "num_steps"), [("conv", 1), ("conv", 4), ("mlp", 3)])
def test_the_file_equals_the_trained_network_at_every_batch_size(
    meta_encoder: str, num_steps: int, export: Export
) -> None:
    student, split = make_student(meta_encoder), make_split()
    reference = trained_logits(student, num_steps, split, 4)
    path = export(deployable(student, num_steps))
    gates = proved(path, student, num_steps, split)
    assert set(gates) == {"batch_1", "batch_2", "batch_7", "test_split"}
    torch_runtime = TorchRuntime(deployable(student, num_steps), device=torch.device("cpu"))
    assert evaluate(torch_runtime, split, reference, 4).parity.max_abs < 1e-5


def test_the_graph_is_as_documented(export: Export) -> None:
    """Dynamic batch, fixed names, time embeddings as constants: no sine, and the head once for all steps."""
    path = export(deployable(make_student(), 3))
    graph = onnx.load(path).graph
    assert [(i.name, i.type.tensor_type.elem_type) for i in graph.input] == [("image", onnx.TensorProto.FLOAT)]
    assert [o.name for o in graph.output] == ["logits"]
    batch, *rest = graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == "batch"
    assert [d.dim_value for d in rest] == [3, 8, 8]
    operators = [node.op_type for node in graph.node]
    assert not {"Sin", "Cos", "Loop", "If"} & set(operators)
    assert operators.count("Gemm") == 1
    assert not any("time_embedding.project" in weight.name for weight in graph.initializer)
    assert not any(node.domain for node in graph.node)


def test_the_file_is_one_and_says_what_it_is_without_paths(export: Export) -> None:
    path = export(deployable(make_student(), 1))
    metadata = read_metadata(path)
    assert metadata["method"] == "fm_kt"
    assert (
        metadata["torch_version"] == torch.__version__.split("+")[0] or metadata["torch_version"] == torch.__version__
    )
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    content = path.read_bytes()
    assert not re.search(rb"stack_trace|File \"|\.py\b|/models/", content)
    assert str(ROOT).encode() not in content


def test_the_same_network_gives_the_same_bytes_in_another_process_and_place(tmp_path: Path) -> None:
    """The code is copied to a second place, as a second clone would have it."""
    clone = tmp_path / "a/second/place"
    for file in (file for package in ("models", "pipeline", "tests") for file in (ROOT / package).rglob("*.*")):
        if file.suffix in {".py", ".json"}:
            copy = clone / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(("# moved by a line\n" if file.suffix == ".py" else "") + file.read_text())
    subprocess.run([sys.executable, "-m", "tests.every_precision", "onnx"], cwd=clone, check=True)
    export_all(tmp_path / "onnx")
    here, there = (
        {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        for folder in (tmp_path / "onnx", clone / "onnx")
    )
    assert set(here) == set(map(file_name, PRECISIONS))
    assert here == there


def test_metadata_are_json_texts() -> None:
    info = DataInfo(("cat", 'do"g'), (8, 8), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "none", "packed")
    metadata = onnx_metadata({"method": "fm_kt", "backbone": "resnet8"}, info, 4)
    assert json.loads(metadata["classes"]) == ["cat", 'do"g']
    assert json.loads(metadata["num_steps"]) == 4
    assert json.loads(metadata["mean"]) == [0.5, 0.5, 0.5]


def test_another_network_does_not_pass_the_gate(export: Export) -> None:
    student, split = make_student(), make_split()
    path = export(deployable(student, 2))
    with torch.no_grad():
        next(iter(student.backbone.parameters())).add_(0.01)  # type: ignore[union-attr]
    with pytest.raises(GateError, match=r"model.onnx, batch of 1: logits differ by"):
        proved(path, student, 2, split)


def test_an_opset_that_the_exporter_does_not_keep_fails(export: Export) -> None:
    with pytest.raises(GateError, match="asked for opset 17, the exporter wrote 18"):
        export(deployable(make_student(), 1), opset=17)


def test_a_plain_torchvision_student_exports(export: Export) -> None:
    torch.manual_seed(0)
    student = build_classifier(backbone="mobilenet_v3_small", num_classes=4, **STATISTICS).eval()
    split = make_split(5)
    path = export(deployable(student, None))
    gates = proved(path, student, None, split)
    assert gates["test_split"]["top1_agreement"] == 1.0


def test_onnx_runtime_names_a_file_that_it_cannot_load(tmp_path: Path, export: Export) -> None:
    with pytest.raises(UserError, match=r"none.onnx: ONNX Runtime cannot load it"):
        OnnxRuntime(tmp_path / "none.onnx", num_threads=1)
    path = export(deployable(make_student(), 1))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model.onnx: ONNX Runtime cannot load it .*export or fetch it again"):
        OnnxRuntime(path, num_threads=1)


def test_predictions_do_not_depend_on_the_batch_size(export: Export) -> None:
    runtime, split = OnnxRuntime(export(deployable(make_student(), 2)), num_threads=1), make_split()
    np.testing.assert_allclose(predict(runtime, split.pixels, 2), predict(runtime, split.pixels, 9), atol=1e-5)
    assert "CPUExecutionProvider" in runtime.describe()
