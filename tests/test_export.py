"""ONNX export and its gates, on small networks; each is exported once."""

import functools
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from models.deploy import DeployableNetwork, PlainNetwork, SampledNetwork
from models.factory import build_classifier
from models.students import build_flow_student
from pipeline.core.errors import GateError, UserError
from pipeline.core.files import write_json
from pipeline.data.dataset import DataInfo, Split
from pipeline.evaluation.runtimes import RUNTIMES, Options
from pipeline.export.folder import MANIFEST
from pipeline.export.onnx.exporter import export_image_network, onnx_metadata
from pipeline.export.onnx.files import read_exported
from pipeline.export.precisions import PRECISIONS
from pipeline.networks.spec import WEIGHTS
from pipeline.package.writer import read_metadata
from pipeline.runtimes.base import predict
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.torch import TorchRuntime
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.task import Classification
from pipeline.tasks.gate import Gate, PlacedGate
from pipeline.tasks.reference import reference
from pipeline.tasks.verification import Verified, verify
from tests.every_precision import export_all
from tests.helpers import ROOT

NETWORK: dict[str, Any] = {"num_classes": 4, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
TASK = Classification()
SIGNATURE = TASK.signature(image_size=(8, 8), input_dtype="float32", class_names=["a", "b", "c", "d"])
Export = Callable[..., Path]


def flow_network(meta_encoder: str, num_steps: int) -> DeployableNetwork:
    torch.manual_seed(0)
    names = {"backbone": "resnet8", "schedule": "rectified", "meta_encoder": meta_encoder}
    return SampledNetwork(build_flow_student(time_scale=1.0, **names, **NETWORK), num_steps).eval()


def plain_network() -> DeployableNetwork:
    torch.manual_seed(0)
    return PlainNetwork(build_classifier(backbone="mobilenet_v3_small", **NETWORK)).eval()


NETWORKS = {
    "conv, 1 step": functools.partial(flow_network, "conv", 1),
    "conv, 3 steps": functools.partial(flow_network, "conv", 3),
    "mlp, 4 steps": functools.partial(flow_network, "mlp", 4),
    "torchvision's, no steps": plain_network,
}
STEPS = "conv, 3 steps"
PLACED = PlacedGate(Gate(), "gates.fp32", "do something")


def make_split(count: int = 9) -> Split:
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(images, ClassTargets(torch.arange(count) % 4))


def verified(path: Path, network: DeployableNetwork) -> Verified:
    """Return what is found of the file ``path``, which is to equal ``network``."""
    known = reference(TASK, network, SIGNATURE, make_split())
    return verify(OnnxRuntime(path), known, PLACED, what=path.name, batch_size=9, batch_sizes=(1, 2, 7))


def write(network: DeployableNetwork, path: Path, *, opset: int = 20) -> Path:
    metadata = {"method": "fm_kt", "backbone": "resnet8"}
    outputs = SIGNATURE.output_names
    export_image_network(network.general_form(), path, SIGNATURE.input, outputs, opset=opset, metadata=metadata)
    return path


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Return a function that gives the file of one of ``NETWORKS``, alone in its folder."""
    return functools.cache(lambda name: write(NETWORKS[name](), tmp_path_factory.mktemp("export") / "model.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_equals_the_trained_network_at_every_batch_size(name: str, export: Export) -> None:
    network = NETWORKS[name]()
    found = verified(export(name), network)
    assert set(found.by_batch) == {1, 2, 7}
    assert found.parity.agreement == 1.0
    general = TorchRuntime(network.general_form(), output_names=SIGNATURE.output_names, device=torch.device("cpu"))
    known = reference(TASK, network, SIGNATURE, make_split())
    assert TASK.compare(predict(general, known.pixels, 4), known.outputs, known.scale).max_abs < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_the_torch_runtime_leaves_the_network_where_it_is(name: str, tmp_path: Path) -> None:
    """What it answers is compared with the network's own answers, on the CPU, afterwards."""
    network = NETWORKS[name]()
    opened = RUNTIMES["torch"].load()(tmp_path, Options(network, TASK, SIGNATURE, "cpu", 1, torch.device("meta")))
    assert [runtime() for runtime in opened.values()]
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}


def test_the_graph_is_as_documented(export: Export) -> None:
    """Dynamic batch, fixed names, time embeddings as constants: no sine, and the head once for all steps."""
    graph = onnx.load(export(STEPS)).graph
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
    path = export(STEPS)
    metadata = read_metadata(path)
    assert metadata["method"] == "fm_kt"
    assert metadata["torch_version"] in {torch.__version__, torch.__version__.split("+")[0]}
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    content = path.read_bytes()
    assert not re.search(rb"stack_trace|File \"|\.py\b|/models/", content)
    assert str(ROOT).encode() not in content


@pytest.mark.slow
def test_the_same_network_gives_the_same_bytes_in_another_process_and_place(tmp_path: Path) -> None:
    """The code is copied to a second place, as a second clone would have it."""
    clone = tmp_path / "a/second/place"
    for file in (file for package in ("models", "pipeline", "tests") for file in (ROOT / package).rglob("*.*")):
        if file.suffix in {".py", ".json"}:
            copy = clone / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(("# moved by a line\n" if file.suffix == ".py" else "") + file.read_text())
    with subprocess.Popen([sys.executable, "-m", "tests.every_precision", "onnx"], cwd=clone) as elsewhere:
        export_all(tmp_path / "onnx")
        assert elsewhere.wait() == 0
    here, there = (
        {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        for folder in (tmp_path / "onnx", clone / "onnx")
    )
    assert set(here) == {entry.file_name for entry in PRECISIONS.values()}
    assert here == there


def test_metadata_are_json_texts() -> None:
    info = DataInfo("classification", ("cat", 'do"g'), (8, 8), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "none", "packed")
    arguments = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    about = {"method": "fm_kt", "backbone": "resnet8", "arguments": arguments}
    metadata = onnx_metadata(about, info, 4, {"boxes": {"format": "xyxy"}})
    assert json.loads(metadata["classes"]) == ["cat", 'do"g']
    assert json.loads(metadata["num_steps"]) == 4
    assert json.loads(metadata["boxes"]) == {"format": "xyxy"}, "what the task says of its outputs"
    assert json.loads(metadata["mean"]) == [0.1, 0.2, 0.3], "the network's, which need not be that of the images"


def test_another_network_does_not_pass_the_gate(export: Export) -> None:
    network = NETWORKS[STEPS]()
    with torch.no_grad():
        next(iter(network.parameters())).add_(0.01)
    with pytest.raises(GateError, match=r"model.onnx, 9 images: outputs differ by"):
        verified(export(STEPS), network)


def test_an_opset_that_the_exporter_does_not_keep_fails(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="asked for opset 17, the exporter wrote 18"):
        write(NETWORKS["conv, 1 step"](), tmp_path / "model.onnx", opset=17)


def test_an_export_is_taken_for_its_own_steps_and_its_own_student_alone(tmp_path: Path) -> None:
    """A stage that is run by hand may find what an earlier student has left."""
    folder, student = tmp_path / "onnx", tmp_path / "student"
    student.mkdir()
    (student / WEIGHTS).write_bytes(b"weights")
    entry = {"bytes": 1, "form": "folded", "gates": {}, "tensorrt_static_check": {}}
    files = {"model.onnx": entry | {"precision": "fp32"}, "model.fp16.onnx": entry | {"precision": "fp16"}}
    manifest = {"files": files, "gates": {}, "num_steps": 2, "opset": 20, "signature": {}}
    write_json(folder / MANIFEST, manifest | {"student_sha256": hashlib.sha256(b"weights").hexdigest()})
    exported = read_exported(folder, student)
    taken = exported.take(2, ["fp16"])
    assert taken is not None
    assert [(file.path, file.precision, file.form) for file in taken.files] == [
        (folder / "model.fp16.onnx", "fp16", "folded")
    ]
    assert exported.take(1, ["fp16"]) is None
    assert exported.take(2, ["fp16", "int8-cpu"]) is None
    (student / WEIGHTS).write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"onnx: exported from another student than that in .*; run export_onnx again"):
        read_exported(folder, student)


def test_onnx_runtime_names_a_file_that_it_cannot_load(tmp_path: Path, export: Export) -> None:
    with pytest.raises(UserError, match=r"none.onnx: ONNX Runtime cannot load it"):
        OnnxRuntime(tmp_path / "none.onnx", num_threads=1)
    path = tmp_path / "model.onnx"
    path.write_bytes(export(STEPS).read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model.onnx: ONNX Runtime cannot load it .*export or fetch it again"):
        OnnxRuntime(path, num_threads=1)


def test_predictions_do_not_depend_on_the_batch_size(export: Export) -> None:
    runtime, pixels = OnnxRuntime(export(STEPS), num_threads=1), make_split().pixels
    few, all_at_once = (predict(runtime, pixels, batch_size)["logits"] for batch_size in (2, 9))
    np.testing.assert_allclose(few, all_at_once, atol=1e-5)
    assert "CPUExecutionProvider" in runtime.describe()
