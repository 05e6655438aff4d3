"""Networks and weights on disk."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from models.classifier import Classifier
from models.factory import build_classifier
from models.students import build_flow_student
from pipeline.core.errors import UserError
from pipeline.data.dataset import DataInfo
from pipeline.distillation.method import build_student
from pipeline.distillation.methods import METHODS
from pipeline.distillation.settings import DistillStudent
from pipeline.evaluation.calibration_file import load_calibrated, read_num_steps
from pipeline.networks.saved import load_network
from pipeline.networks.spec import NetworkSpec
from pipeline.networks.weights import read_weights, save_network
from pipeline.tasks.classification.training import ClassificationTraining
from pipeline.training.settings import Training
from pipeline.training.teacher import build_teacher, find_teacher
from pipeline.training.teacher_settings import TrainTeacher

SIZE = (8, 8)
INFO = DataInfo("classification", ("a", "b", "c"), (8, 8), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "none", "packed")
TASK = ClassificationTraining()


def student_spec(method: str = "fm_kt", backbone: str = "resnet8") -> NetworkSpec:
    settings = DistillStudent(method=method, backbone=backbone)
    return METHODS[method].load().student(settings, INFO, TASK)


def spec_of(info: DataInfo = INFO, **settings: Any) -> NetworkSpec:
    """Return how the teacher is made, which is a resnet8 unless ``settings`` say otherwise."""
    return find_teacher(TrainTeacher(**{"backbone": "resnet8", **settings}), info, TASK).spec


def given_teacher(weights: Path | str, info: DataInfo = INFO, **settings: Any) -> nn.Module:
    """Return the teacher that is taken as it is given."""
    taken = {"backbone": "resnet8", "weights": str(weights), "training": Training(epochs=0)}
    return build_teacher(TrainTeacher(**{**taken, **settings}), info, TASK).network.eval()


ARGUMENTS = spec_of().arguments


def test_a_saved_network_comes_back_the_same(tmp_path: Path) -> None:
    student = build_student(student_spec(), SIZE)
    save_network(tmp_path, student, student_spec(), about={"method": "fm_kt"})
    loaded, about = load_network(tmp_path)
    assert about["method"] == "fm_kt"
    assert about["num_parameters"] == sum(p.numel() for p in student.parameters())
    assert not loaded.training
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded(images, 2), student.eval()(images, 2), rtol=0, atol=0)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o044, "readable as other files are"


@pytest.mark.parametrize("method", ["fm_kt", "metric_meta"])
def test_a_student_that_version_0_1_saved_is_loaded(method: str, tmp_path: Path) -> None:
    """It called the backbone trunk, and a classifier with layers a classifier."""
    spec = student_spec(method)
    student = build_student(spec, SIZE).eval()
    earlier = {"layered_classifier": "classifier"}.get(spec.kind, spec.kind)
    save_network(tmp_path, student, NetworkSpec(earlier, spec.arguments), about={})
    weights = {re.sub("^backbone", "trunk", name): tensor for name, tensor in student.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    loaded, _ = load_network(tmp_path)
    for found, written in zip(loaded.state_dict().values(), student.state_dict().values(), strict=True):
        torch.testing.assert_close(found, written, rtol=0, atol=0)


@pytest.mark.parametrize("form", ["plain", "state_dict", "model", "data_parallel", "safetensors", "own"])
def test_teacher_weights_are_read_in_every_usual_form(form: str, tmp_path: Path) -> None:
    teacher = build_classifier(**ARGUMENTS).eval()
    own = teacher.state_dict()
    weights = {re.sub("^head.linear", "fc", name).removeprefix("backbone."): tensor for name, tensor in own.items()}
    path = tmp_path / ("weights.safetensors" if form in {"safetensors", "own"} else "weights.pt")
    if form == "safetensors":
        save_file(weights, path)
    elif form == "own":
        save_file(own, path)
    else:
        wrapped = {f"module.{name}": tensor for name, tensor in weights.items()} if form == "data_parallel" else weights
        torch.save({form: wrapped} if form in {"state_dict", "model"} else wrapped, path)
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(given_teacher(path)(images), teacher(images), rtol=0, atol=0)


def test_given_weights_keep_their_own_normalisation() -> None:
    spec = spec_of(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    assert build_classifier(**spec.arguments).normalize.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert ARGUMENTS["mean"] == list(INFO.mean)


def test_weights_of_another_network_are_refused_with_the_differences(tmp_path: Path) -> None:
    other = build_classifier(**{**ARGUMENTS, "num_classes": 5})
    torch.save(other.state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w.pt: the weights do not fit .*\(5, 64\) where \(3, 64\) is needed.*classes"):
        given_teacher(tmp_path / "w.pt")
    deeper = build_classifier(**{**ARGUMENTS, "backbone": "resnet20"})
    torch.save(deeper.state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w.pt: the weights do not fit the network: \d+ unknown \(backbone.layer1.1"):
        given_teacher(tmp_path / "w.pt")


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("harmed"),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w.pt: no readable weights"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pt", b"?"),
        ("w.safetensors", b"?"),
        ("w.pt", b""),
        ("w.pt", None),
        ("w.pt", b"hello world\n"),
        ("w.csv", b"a,b\n1,2\n"),
        ("w.pt", b"<html>"),
    ],
)
def test_files_that_hold_no_weights_are_named(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: no readable weights"):
        read_weights(tmp_path / name)


def test_a_damaged_network_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"network.json: no such file"):
        load_network(tmp_path)
    save_network(tmp_path, build_classifier(**ARGUMENTS), spec_of(), about={})
    about = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps({**about, "kind": "robot"}))
    with pytest.raises(UserError, match=r"describes no network .*unknown network 'robot'; known: classifier"):
        load_network(tmp_path)
    (tmp_path / "network.json").write_text(json.dumps(about))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"model.safetensors: no readable weights"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "the file is empty"), (b"<html>404</html>", "torch.save has not written this file"), (b"PK\x03\x04", "zip")],
)
def test_what_is_no_file_of_weights_is_said_to_be_none(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match=rf"w.pth: no readable weights \(.*{words}.*\); give a .safetensors file or"):
        read_weights(tmp_path / "w.pth")


def test_an_unknown_backbone_is_blamed_on_its_parameter(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    with pytest.raises(UserError, match=r"distill_student.backbone: unknown backbone 'resnet9'; did you mean"):
        build_student(student_spec(backbone="resnet9"), SIZE)
    with pytest.raises(UserError, match=r"train_teacher.backbone: unknown backbone 'resnet9'"):
        given_teacher(tmp_path / "any", backbone="resnet9")


def test_a_calibration_without_steps_or_of_another_student_is_named(tmp_path: Path) -> None:
    student, calibration = tmp_path / "student", tmp_path / "calibration"
    save_network(student, build_flow_student(**student_spec().arguments), student_spec(), about={"method": "fm_kt"})
    calibration.mkdir()
    path = calibration / "calibration.json"

    def write(num_steps: int | None) -> None:
        curve = [{"num_steps": num_steps, "macs": 1, "accuracy": 0.5}]
        path.write_text(json.dumps({"num_steps": num_steps, "reason": "of the test", "num_images": 9, "curve": curve}))

    path.write_text("{}")
    with pytest.raises(UserError, match=r"calibration.json: has no num_steps"):
        read_num_steps(calibration)
    write(None)
    with pytest.raises(UserError, match=r"calibration.json: the student takes sampling steps, got num_steps None; run"):
        load_calibrated(student, calibration)
    write(3)
    network, about = load_calibrated(student, calibration)
    assert (network.num_steps, about["method"]) == (3, "fm_kt")
    save_network(student, build_classifier(**ARGUMENTS), spec_of(), about={})
    with pytest.raises(UserError, match=r"the student does not take sampling steps, got num_steps 3; run"):
        load_calibrated(student, calibration)


def test_deployable_weights_are_all_that_is_saved(tmp_path: Path) -> None:
    save_network(tmp_path, build_flow_student(**student_spec().arguments), student_spec(), about={})
    names = {name.split(".")[0] for name in read_weights(tmp_path / "model.safetensors").tensors}
    assert names == {"backbone", "flow"}


@pytest.mark.parametrize("backbone", ["vit_b_16", "vgg11", "inception_v3"])
def test_a_backbone_for_larger_images_is_named(backbone: str) -> None:
    with pytest.raises(UserError, match=r"distill_student.backbone: cannot take images of 8 x 8 pixels \("):
        build_student(student_spec("none", backbone), SIZE)


def test_torchvisions_own_weights_come_with_their_normalisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in PyTorch's cache under the name that torchvision looks for stands for a download."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = torchvision.models.get_model_weights("shufflenet_v2_x0_5").IMAGENET1K_V1
    info = replace(INFO, class_names=tuple(map(str, range(1000))), image_size=(64, 64))
    whole = torchvision.models.get_model("shufflenet_v2_x0_5").eval()
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    weights = {name: value for name, value in whole.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "hub/checkpoints" / entry.url.rpartition("/")[2])
    for weights in ("torchvision", "torchvision:IMAGENET1K_V1"):
        teacher = given_teacher(weights, info, backbone="shufflenet_v2_x0_5")
        assert isinstance(teacher, Classifier)
        torch.testing.assert_close(teacher.normalize.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
        images = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(teacher(images), whole(teacher.normalize(images)), rtol=1e-4, atol=1e-5)
    statistics = {"mean": (0.1,) * 3, "std": (1.0,) * 3}
    given = spec_of(info, backbone="shufflenet_v2_x0_5", weights="torchvision", **statistics)
    assert given.arguments["mean"] == [0.1] * 3
    with pytest.raises(UserError, match=r"torchvision has no weights 'V9' of shufflenet_v2_x0_5; it has IMAGENET1K_V1"):
        spec_of(info, backbone="shufflenet_v2_x0_5", weights="torchvision:V9")


def test_weights_that_cannot_be_downloaded_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", raise_offline)
    with pytest.raises(UserError, match=r"train_teacher.weights: https://.* cannot be fetched .*give the file's path"):
        given_teacher("torchvision", replace(INFO, image_size=(64, 64)), backbone="resnet18")


def raise_offline(*_: object, **__: object) -> None:
    raise URLError("no route to host")
