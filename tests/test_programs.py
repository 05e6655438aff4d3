"""Programs as teachers: ONNX files and what torch.export has written, taken as they are, or refused by name."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import Result
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from models.classifier import Classifier
from models.factory import build_classifier
from pipeline.core.errors import UserError
from pipeline.evaluation.summary import _known
from pipeline.networks.program import Program
from pipeline.networks.programs import find_program
from pipeline.networks.saved import build_network, load_network
from pipeline.networks.spec import NetworkSpec
from pipeline.networks.weights import save_network
from pipeline.params.schema import load_params
from pipeline.preflight.checks import check_params
from tests.helpers import refused
from workbench.bench import Bench
from workbench.project import write_params

SIZE = (8, 8)
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


def network(num_classes: int = 10) -> Classifier:
    torch.manual_seed(0)
    built = build_classifier(backbone="resnet8", num_classes=num_classes, mean=MEAN, std=STD)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
    return built.eval()


class Softened(nn.Module):
    """Returns probabilities."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.inner(images), dim=1)


class WithName(Softened):
    """Returns more than one tensor, by name."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        logits = self.inner(images)
        return {"hidden": logits[:, :2], "logits": logits}


def export_onnx(path: Path, module: nn.Module, *, dynamic: bool = True, **options: Any) -> str:
    dimensions = {0: torch.export.Dim("n")} if dynamic else None
    torch.onnx.export(
        module, (torch.rand(2 if dynamic else 1, 3, *SIZE),), str(path), dynamo=True, verbose=False,
        dynamic_shapes=(dimensions,) if dimensions else None, **({"external_data": False} | options),
    )  # fmt: skip
    return f"onnx:{path}"


def export_torch(path: Path, module: nn.Module) -> str:
    program = torch.export.export(module, (torch.rand(2, 3, *SIZE),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, path)
    return f"exported:{path}"


def linear_onnx(
    path: Path,
    *,
    shape: tuple[int | str, ...] = ("n", 3, *SIZE),
    dtype: int = TensorProto.FLOAT,
    num_classes: int = 10,
    outputs: tuple[str, ...] = ("scores",),
    inputs: tuple[str, ...] = ("pixels",),
    scale: float = 1.0,
) -> str:
    """Write images, flattened as they come, times a matrix that ``linear_weights`` returns."""
    pixels = math.prod(size for size in shape[1:] if isinstance(size, int))
    weights = scale * linear_weights(num_classes, pixels)
    nodes = [
        helper.make_node("Flatten", [inputs[0]], ["flat"], axis=1),
        helper.make_node("Cast", ["flat"], ["floats"], to=TensorProto.FLOAT),
        *(helper.make_node("MatMul", ["floats", "weights"], [name]) for name in outputs),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(name, dtype, shape) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", num_classes)) for name in outputs],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return f"onnx:{path}"


def linear_weights(num_classes: int = 10, pixels: int = 3 * SIZE[0] * SIZE[1]) -> Any:
    return np.random.default_rng(0).normal(size=(pixels, num_classes)).astype(np.float32)


def loaded(backbone: str, **arguments: Any) -> Program:
    """Return the program as a network, as the stage makes it."""
    file = find_program(backbone)
    assert file is not None
    content = file.read()
    found = build_network(
        NetworkSpec(file.entry.kind, {"num_bytes": len(content), "output": "logits", "num_outputs": 10, **arguments})
    )
    assert isinstance(found, Program)
    found.file.copy_(torch.tensor(list(content), dtype=torch.uint8))
    return found


IMAGES = torch.rand(5, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the backbone of each form of one network."""
    folder = tmp_path_factory.mktemp("exports")
    return {
        "onnx": export_onnx(folder / "teacher.onnx", network()),
        "onnx, batch of one": export_onnx(folder / "single.onnx", network(), dynamic=False),
        "onnx, weights beside it": export_onnx(folder / "large.onnx", network(), external_data=True),
        "exported": export_torch(folder / "teacher.pt2", network()),
        "exported, by name": export_torch(folder / "named.pt2", WithName(network())),
    }


FORMS = ["onnx", "onnx, batch of one", "onnx, weights beside it", "exported", "exported, by name"]


@pytest.mark.parametrize("form", FORMS)
def test_a_program_answers_as_its_network_and_is_saved_like_one(
    form: str, exports: dict[str, str], tmp_path: Path
) -> None:
    expected = network()(IMAGES)
    program = loaded(exports[form])
    for images in (IMAGES, IMAGES.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(program(images), expected, rtol=1e-4, atol=1e-4)
    assert program(IMAGES[:0]).shape == (0, 10) or form == "exported"
    about = save_network(tmp_path, program, NetworkSpec(find_kind(exports[form]), arguments_of(program)), about={})
    again, _ = load_network(tmp_path)
    assert torch.equal(again(IMAGES), program(IMAGES))
    assert about["num_parameters"] == pytest.approx(sum(p.numel() for p in network().parameters()), rel=0.02)


def find_kind(backbone: str) -> str:
    file = find_program(backbone)
    assert file is not None
    return file.entry.kind


def arguments_of(program: Program) -> dict[str, Any]:
    return {"num_bytes": len(program.file), "output": program.output, "num_outputs": program.num_outputs}


def test_images_are_brought_into_the_form_that_the_program_takes(tmp_path: Path) -> None:
    """Against the matrix product by hand: pixels as they are, normalised, as bytes, half, and with channels last."""
    path, weights = tmp_path / "linear.onnx", torch.from_numpy(linear_weights())
    normalized = (IMAGES - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    cases: list[tuple[dict[str, Any], dict[str, Any], Tensor]] = [
        ({}, {}, IMAGES),
        ({}, {"mean": MEAN, "std": STD}, normalized),
        ({}, {"mean": [0.0] * 3, "std": [1 / 255] * 3}, 255 * IMAGES),
        ({"dtype": TensorProto.UINT8}, {}, (255 * IMAGES).round()),
        ({"dtype": TensorProto.FLOAT16}, {}, IMAGES.half().float()),
        ({"shape": ("n", *SIZE, 3)}, {}, IMAGES.permute(0, 2, 3, 1)),
        ({"shape": (2, 3, *SIZE)}, {}, IMAGES),
        ({"outputs": ("hidden", "logits")}, {}, IMAGES),
    ]
    for form, arguments, expected in cases:
        program = loaded(linear_onnx(path, **form), **arguments)
        torch.testing.assert_close(program(IMAGES), expected.flatten(1) @ weights, rtol=1e-4, atol=1e-2)


def test_the_outputs_of_the_classes_of_the_images_are_chosen(exports: dict[str, str]) -> None:
    whole, part = loaded(exports["onnx"]), loaded(exports["onnx"], chosen=[7, 0])
    assert torch.equal(part(IMAGES), whole(IMAGES)[:, [7, 0]])


def test_logarithms_of_probabilities_are_the_logits_but_for_a_constant_of_each_image(tmp_path: Path) -> None:
    program = loaded(export_torch(tmp_path / "soft.pt2", Softened(network())), returns_probabilities=True)
    found, expected = program(IMAGES), network()(IMAGES)
    torch.testing.assert_close(found, torch.log_softmax(expected, dim=1), rtol=1e-4, atol=1e-4)
    for temperature in (1.0, 4.0):
        one, other = (torch.softmax(logits / temperature, dim=1) for logits in (found, expected))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("programs")
    found = Bench(folder, lambda changes: write_params(folder / "params.yaml", changes))
    found.prepare()
    return found


def teach(bench: Bench, backbone: str, **changes: Any) -> Result:
    options = {"train_teacher.backbone": backbone, "train_teacher.training.epochs": 0}
    return bench.teach(options | {f"train_teacher.{key}": value for key, value in changes.items()})


@pytest.mark.parametrize("form", ["onnx, batch of one", "exported"])
def test_a_program_teaches_through_the_stages(form: str, bench: Bench, exports: dict[str, str]) -> None:
    result = teach(bench, exports[form], mean=None)
    assert result.exit_code == 0, result.output
    about, report = bench.json("teacher/network.json"), bench.json("teacher.json")
    assert about["kind"] == ("exported_program" if form == "exported" else "onnx_program")
    assert (report["macs"] is None) == (form != "exported"), "PyTorch counts what it computes itself"
    assert _known(report, "macs") == ("unknown" if form != "exported" else f"{report['macs']:,}")
    assert not any("probabilities" in warning for warning in report["warnings"])
    assert 0 <= report["test_accuracy"] <= 1
    changes = {
        "distill_student.stored_views": 1,
        "distill_student.training.epochs": 2,
    }
    for stage in ("distill_student", "calibrate_steps", "trace_flow"):
        result = bench.run(stage, changes)
        assert result.exit_code == 0, result.output
    assert bench.json("student.json")["warnings"] is not None


def test_probabilities_are_found_on_the_images_and_said(bench: Bench, tmp_path: Path) -> None:
    result = teach(bench, export_onnx(tmp_path / "soft.onnx", Softened(network()).eval()))
    assert result.exit_code == 0, result.output
    assert bench.json("teacher/network.json")["arguments"]["returns_probabilities"] is True
    assert "the teacher returns probabilities, not logits: their logarithms are taken" in result.output
    assert bench.json("teacher.json")["warnings"][0].startswith("the teacher returns probabilities")


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "classes": ({"num_classes": 7}, ("returns (2, 7) for 2 images", "needed are logits (2, 10)")),
    "image size": (
        {"shape": ("n", 3, 9, 8)},
        ("takes images of 9 x 8 pixels, these have 8 x 8",),
    ),
    "channels": ({"shape": ("n", 1, 8, 24)}, ("takes float32 (any, 1, 8, 24)", "RGB")),
    "flat": ({"shape": ("n", 192)}, ("takes float32 (any, 192)", "(N, 3, H, W)")),
    "type": ({"dtype": TensorProto.DOUBLE}, ("takes tensor(double)", "float32, float16 or uint8")),
    "outputs": ({"outputs": ("a", "b")}, ("returns 2 outputs (a, b)", "one named logits")),
    "inputs": ({"inputs": ("a", "b")}, ("takes 2 inputs (a, b)", "needed is one")),
    "not finite": ({"scale": float("nan")}, ("returns values that are not finite",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_the_images_is_refused_in_one_line(name: str, bench: Bench, tmp_path: Path) -> None:
    form, words = REFUSED[name]
    path = tmp_path / "teacher.onnx"
    refused(teach(bench, linear_onnx(path, **form)), f"train_teacher.backbone: {path}: ", *words)


def test_bytes_are_not_normalised_twice(bench: Bench, tmp_path: Path) -> None:
    backbone = linear_onnx(tmp_path / "bytes.onnx", dtype=TensorProto.UINT8)
    refused(teach(bench, backbone, mean=MEAN, std=STD), "takes pixels as uint8; set train_teacher.mean and std to null")


class InTraining(nn.Module):
    """Changes its statistics with each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.layers(images)
        return found


def test_files_that_are_none_are_refused_in_one_line(bench: Bench, tmp_path: Path) -> None:
    for source, words in (("onnx", "is no ONNX file"), ("exported", "is nothing that torch.export.save has written")):
        for content in (b"n", b"nonsense" * 100):
            path = tmp_path / "file"
            path.write_bytes(content)
            refused(teach(bench, f"{source}:{path}"), "train_teacher.backbone: ", str(path), words)
    path.write_bytes(b"")
    refused(teach(bench, f"exported:{path}"), f"train_teacher.backbone: {path}: the file is empty")
    backbone = export_torch(tmp_path / "training.pt2", InTraining().train())
    refused(teach(bench, backbone), "answers an image differently beside another one")


FEATURES = {"distill_student__transfer": "features", "distill_student__loss": "pkd"}


def check(tmp_path: Path, **changes: Any) -> Any:
    given = {"train_teacher.training.epochs": 0} if "train_teacher__backbone" in changes else {}
    params = write_params(
        tmp_path / "params.yaml", given | {key.replace("__", "."): value for key, value in changes.items()}
    )
    return check_params(load_params(params))


def test_the_probe_knows_the_file_and_all_that_belongs_to_it(exports: dict[str, str], tmp_path: Path) -> None:
    single, split = (exports[form].partition(":")[2] for form in ("onnx", "onnx, weights beside it"))
    found = set()
    for path in (Path(single), Path(split)):
        copy = tmp_path / path.name
        shutil.copy(path, copy)
        beside = path.with_name(f"{path.name}.data")
        if beside.exists():
            shutil.copy(beside, tmp_path / beside.name)
        found.add(check(tmp_path, train_teacher__backbone=f"onnx:{copy}")["teacher_network"])
    changed = bytearray((tmp_path / "large.onnx.data").read_bytes())
    changed[100] ^= 1
    (tmp_path / "large.onnx.data").write_bytes(changed)
    found.add(check(tmp_path, train_teacher__backbone=f"onnx:{tmp_path / 'large.onnx'}")["teacher_network"])
    assert len(found) == 3
    assert check(tmp_path)["teacher_network"] is None
    (tmp_path / "large.onnx.data").unlink()
    with pytest.raises(UserError, match=r"train_teacher.backbone: .*its weights large.onnx.data are not beside it"):
        check(tmp_path, train_teacher__backbone=f"onnx:{tmp_path / 'large.onnx'}")


def test_weights_outside_the_folder_are_not_read(exports: dict[str, str], tmp_path: Path) -> None:
    model = onnx.load(exports["onnx, weights beside it"].partition(":")[2], load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = "../large.onnx.data"
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/teacher.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "large.onnx.data").write_bytes(b"secret")
    with pytest.raises(UserError, match="has weights outside its folder"):
        check(tmp_path, train_teacher__backbone=f"onnx:{tmp_path / 'inside/teacher.onnx'}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_teacher__backbone": "onnx:"}, "train_teacher.backbone: got 'onnx:' without a file; give onnx:FILE"),
        ({"train_teacher__backbone": "onnx:nowhere.onnx"}, "train_teacher.backbone: no such file: nowhere.onnx"),
        ({"distill_student__backbone": "onnx:a.onnx"}, "onnx:a.onnx can teach, but not be trained; give the name"),
        (
            {"train_teacher__backbone": "onnx:a.onnx", "train_teacher__weights": "w.pt"},
            "onnx:a.onnx holds its own",
        ),
        (
            {"train_teacher__backbone": "onnx:a.onnx", **FEATURES},
            "distill_student.transfer: got features, but the teacher onnx:a.onnx shows none; set it to logits",
        ),
    ],
)
def test_what_a_program_cannot_do_is_refused_before_anything_runs(
    changes: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    linear_onnx(Path("a.onnx"))
    with pytest.raises(UserError) as caught:
        check(tmp_path, **changes)
    assert words in str(caught.value)
