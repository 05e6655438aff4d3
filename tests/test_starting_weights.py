"""Networks that start from given weights: their origins, and what stages and probe make of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner, Result

from models.factory import build_classifier
from pipeline.core.errors import UserError
from pipeline.core.records import started_lines
from pipeline.distillation.settings import DistillStudent
from pipeline.networks.origins import ORIGINS, find_weights
from pipeline.networks.saved import load_network
from pipeline.networks.spec import NetworkSpec
from pipeline.networks.weights import save_network
from pipeline.training.settings import FineTuning, LearningRate, Training
from pipeline.training.start import find_start
from pipeline.training.teacher_settings import TrainTeacher
from stages.probe_environment import main as probe
from tests.helpers import fill_folder, refused
from tests.toy_objectives import INFO
from workbench.bench import Bench, taught_bench

WriteParams = Callable[[dict[str, Any]], Path]
KEY = "distill_student.weights"
OTHER_CLASSES = {"backbone": "resnet8", "num_classes": 7, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
AS_IT_IS = {"distill_student.method": "none", "distill_student.training.epochs": 0}
AT_ONCE = LearningRate(warmup_epochs=0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return taught_bench(tmp_path_factory.mktemp("started"))


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    """Return a file as this pipeline writes it, of a network of seven classes with a normalisation of its own."""
    torch.manual_seed(5)
    network = build_classifier(**OTHER_CLASSES)  # type: ignore[arg-type]
    save_network(tmp_path / "seven", network, NetworkSpec("classifier", OTHER_CLASSES), about={})
    return tmp_path / "seven/model.safetensors"


def frozen(weights: Path, **changes: Any) -> dict[str, Any]:
    """Return the changes for a student whose given backbone does not learn in the first of two epochs."""
    tuning = {"frozen_epochs": 1, "batch_norm": "frozen"}
    named = {f"distill_student.training.fine_tuning.{key}": value for key, value in tuning.items()}
    return {KEY: str(weights), "distill_student.training.epochs": 2, **named, **changes}


@pytest.mark.parametrize(
    "method",
    [
        {"distill_student.method": "fm_kt"},
        {"distill_student.method": "fm_kt", "distill_student.transfer": "features", "distill_student.loss": "pkd"},
        {"distill_student.method": "metric_meta"},
        {"distill_student.method": "fm_kt_theta"},
    ],
    ids=["logits", "features", "layers", "theta"],
)
def test_a_student_goes_on_from_weights_of_other_classes(method: dict[str, Any], bench: Bench, seven: Path) -> None:
    """Its first convolution has moved from where it was given, and not far; its batch statistics have not."""
    small = {"distill_student.training.optimizer.learning_rate": 1e-3}
    result = bench.distill(frozen(seven, **method, **small))
    assert result.exit_code == 0, result.output
    assert "distill_student: images are normalised by the mean and std of the weights" in result.output
    assert "distill_student starts from the weights in model.safetensors (sha256 " in result.output
    assert "made anew" in result.output
    student, about = load_network(bench.folder / "student")
    assert about["arguments"]["mean"] == OTHER_CLASSES["mean"]
    report = bench.json("student.json")
    assert report["started_from"] == about["started_from"]
    assert report["started_from_sha256"][:12] in report["started_from"]
    given, now = load_network(seven.parent)[0].state_dict(), student.state_dict()
    assert 0 < (given["backbone.conv1.weight"] - now["backbone.conv1.weight"]).abs().max() < 0.02
    torch.testing.assert_close(given["backbone.bn1.running_var"], now["backbone.bn1.running_var"], rtol=0, atol=0)


def test_a_student_is_taken_as_it_is_and_goes_through_to_the_export(bench: Bench) -> None:
    """Its outputs are those of the teacher whose weights it takes."""
    weights = bench.folder / "teacher/model.safetensors"
    taken = {**AS_IT_IS, KEY: str(weights)}
    for run in (bench.distill, bench.calibrate, bench.trace, bench.export):
        result = run(taken)
        assert result.exit_code == 0, result.output
        assert "epoch 1" not in result.output
    assert len((bench.folder / "student.csv").read_text().splitlines()) == 1, "a header, and no epochs"
    report = bench.json("student.json")
    assert 0 <= report["val_accuracy"] <= 1
    images = torch.rand(4, 3, 8, 8)
    networks = [load_network(bench.folder / name)[0] for name in ("teacher", "student")]
    torch.testing.assert_close(networks[0](images), networks[1](images), rtol=0, atol=0)


def test_a_teacher_goes_on_from_given_weights(bench: Bench, seven: Path) -> None:
    paths = {"out": "tuned", "metrics": "tuned.json", "history": "tuned.csv"}
    result = bench.run("train_teacher", {"train_teacher.weights": str(seven)}, **paths)
    assert result.exit_code == 0, result.output
    assert bench.json("tuned.json")["started_from"].startswith("the weights in model.safetensors")
    assert len((bench.folder / "tuned.csv").read_text().splitlines()) == 2


def test_weights_of_other_classes_are_not_taken_as_they_are(bench: Bench, seven: Path) -> None:
    as_it_is = {"train_teacher.weights": str(seven), "train_teacher.training.epochs": 0}
    result = bench.run("train_teacher", as_it_is, out="tuned", metrics="tuned.json", history="tuned.csv")
    refused(result, "train_teacher.weights: ", "train_teacher.training.epochs above 0", "train_teacher.classes")
    result = bench.distill({**AS_IT_IS, KEY: str(seven)})
    refused(result, "distill_student.weights: ", "model.safetensors", "7", "distill_student.training.epochs above 0")
    result = bench.distill({**AS_IT_IS, KEY: str(seven), "distill_student.backbone": "resnet20"})
    refused(result, "distill_student.weights: ", "fit")
    assert "training.epochs above 0" not in result.output, "another backbone does not fit either way"


def test_other_weights_are_another_training(bench: Bench, seven: Path, tmp_path: Path) -> None:
    """A file of the same path with other content does not go on where the first was interrupted."""

    def kept() -> set[str]:
        return {path.name for path in bench.folder.glob(".checkpoints/distill_student/*")}

    changes = {"distill_student.method": "none", **frozen(seven)}
    wild = {"distill_student.training.optimizer.learning_rate": 1e30}
    runs = []
    for _ in range(2):
        before = kept()
        assert bench.distill(changes | wild).exit_code == 1, "it diverges, and its checkpoints stay"
        runs.append(kept() - before)
        network = build_classifier(**OTHER_CLASSES)  # type: ignore[arg-type]
        save_network(tmp_path / "seven", network, NetworkSpec("classifier", OTHER_CLASSES), about={})
    assert all(runs)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"training": Training(epochs=0)}, "training.epochs: got 0 without weights"),
        (
            {"training": Training(fine_tuning=FineTuning(frozen_epochs=1, batch_norm="frozen"))},
            "training.fine_tuning: frozen_epochs, batch_norm count where the network starts from weights",
        ),
        ({"weights": "torchvision"}, "torchvision has no weights of 'resnet8'; give a file, or null"),
        ({"weights": "timm:a1_in1k", "backbone": "resnet18"}, "timm has no weights of 'resnet18'"),
        ({"weights": "torchvision", "backbone": "timm:resnet18"}, "torchvision has no weights of 'timm:resnet18'"),
        (
            {"weights": "w.pt", "training": Training(epochs=0)},
            "method 'fm_kt' learns in training alone; train for an epoch at least, or take .* with method none",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DistillStudent(**{"backbone": "resnet8", **settings})


def test_frozen_epochs_end_before_the_training_does() -> None:
    with pytest.raises(ValueError, match=r"frozen_epochs must be fewer than epochs, got 2 of 2; lower it, or train"):
        Training(epochs=2, schedule=AT_ONCE, fine_tuning=FineTuning(frozen_epochs=2))
    TrainTeacher(weights="w.pt", training=Training(epochs=0, fine_tuning=FineTuning(frozen_epochs=2)))


def test_the_normalisation_is_the_one_that_is_set_or_that_of_the_weights_or_of_the_images(
    seven: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = tmp_path / "plain.pt"
    torch.save(build_classifier(**OTHER_CLASSES).state_dict(), plain)  # type: ignore[arg-type]
    caplog.set_level("INFO")
    for weights, given, mean, whose in (
        (seven, {}, (0.1, 0.2, 0.3), "the weights"),
        (plain, {}, INFO.mean, "the training images"),
        (seven, {"mean": (0.9, 0.9, 0.9), "std": (1.0, 1.0, 1.0)}, (0.9, 0.9, 0.9), "train_teacher.mean and std"),
    ):
        start = find_start(TrainTeacher(weights=str(weights), **given), INFO, section="train_teacher")
        assert start.info.mean == mean
        assert caplog.messages[-1] == f"train_teacher: images are normalised by the mean and std of {whose}"
    assert find_start(TrainTeacher(), INFO, section="train_teacher").info == INFO


def test_timm_names_the_tags_that_there_are() -> None:
    with pytest.raises(
        UserError, match=rf"^{KEY}: timm has no weights 'x' of resnet18; it has a1_in1k, .*a file's path"
    ):
        find_weights("timm:resnet18", "timm:x", entry=None, key=KEY)
    with pytest.raises(UserError, match=r"timm has no weights of 'no_such_net'; give a file, or null"):
        find_weights("timm:no_such_net", "timm", entry=None, key=KEY)
    found = find_weights("timm:resnet18", "timm", entry=None, key=KEY)
    assert found.title.startswith("timm's weights a1_in1k of resnet18")
    assert found.statistics is not None
    assert found.statistics.mean == [0.485, 0.456, 0.406]


def test_timms_weights_are_those_that_it_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What timm would download stands for itself; without a network there is one line."""
    network = timm.create_model("resnet10t")
    asked = []

    def create(name: str, *, pretrained: bool) -> torch.nn.Module:
        asked.append((name, pretrained))
        return network

    monkeypatch.setattr(timm, "create_model", create)
    read = find_weights("timm:resnet10t", "timm:c3_in1k", entry=None, key=KEY).read()
    assert asked == [("resnet10t.c3_in1k", True)]
    assert all(torch.equal(read.tensors[name], value) for name, value in network.state_dict().items())

    def offline(name: str, *, pretrained: bool) -> torch.nn.Module:  # noqa: ARG001
        raise FileNotFoundError("no connection\nto the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        UserError, match=r"resnet10t.c3_in1k cannot be fetched \(no connection to the hub\); .*the file's path"
    ):
        find_weights("timm:resnet10t", "timm:c3_in1k", entry=None, key=KEY).read()


def test_every_origin_answers_for_weights_that_are_not_there() -> None:
    backbones = {"timm": "timm:resnet18", "torchvision": "resnet18", "file": "resnet18"}
    assert set(backbones) == set(ORIGINS)
    for name, backbone in backbones.items():
        with pytest.raises(UserError, match=f"^{KEY}: "):
            find_weights(backbone, "nowhere.pt" if name == "file" else f"{name}:nowhere", entry=None, key=KEY)


def run_probe(params: Path, out: Path) -> Result:
    words = ["--params", str(params), "--out", str(out), "--code", str(out.with_name("code.json"))]
    return CliRunner().invoke(probe, words)


def test_the_probe_fits_the_weights_before_anything_runs(
    seven: Path, tmp_path: Path, params_file: WriteParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "environment.json"
    refused(run_probe(params_file({KEY: str(seven), "distill_student.backbone": "resnet20"}), out), f"{KEY}: ", "fit")
    refused(run_probe(params_file({KEY: str(tmp_path / "no.pt")}), out), f"{KEY}: no such file")
    refused(run_probe(params_file({KEY: "two\nlines.pt"}), out), f"{KEY}: no such file: two\\nlines.pt")
    refused(run_probe(params_file({KEY: f"folder/{'a' * 256}"}), out), f"{KEY}: got 263 characters")
    (tmp_path / "empty.pt").touch()
    refused(run_probe(params_file({KEY: str(tmp_path / "empty.pt")}), out), f"{KEY}: ", "the file is empty")
    assert not out.exists()
    params = params_file({KEY: str(seven)})
    assert run_probe(params, out).exit_code == 0
    first = json.loads(out.read_text())["inputs"]
    assert (first["teacher_weights"], len(first["student_weights"])) == (None, 64)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.preflight.weights._check_fit", lambda *_, **__: pytest.fail("it is known to fit"))
        assert run_probe(params, out).exit_code == 0
    network = build_classifier(**OTHER_CLASSES)  # type: ignore[arg-type]
    save_network(seven.parent, network, NetworkSpec("classifier", OTHER_CLASSES), about={})
    assert run_probe(params, out).exit_code == 0
    second = json.loads(out.read_text())["inputs"]["student_weights"]
    assert second != first["student_weights"]
    save_network(seven.parent, network, NetworkSpec("classifier", OTHER_CLASSES | {"mean": [0.5] * 3}), about={})
    assert run_probe(params, out).exit_code == 0
    assert json.loads(out.read_text())["inputs"]["student_weights"] != second, "the same weights, normalised otherwise"


@pytest.mark.parametrize("arguments", [{"mean": None, "std": None}, {}, ["no arguments"]])
def test_a_description_without_a_normalisation_says_none(arguments: object, seven: Path) -> None:
    """As that of a program, which may normalise by itself."""
    seven.with_name("network.json").write_text(json.dumps({"kind": "onnx_program", "arguments": arguments}))
    found = find_weights("resnet8", str(seven), entry=None, key=KEY)
    assert found.statistics is None
    assert found.files == [seven, seven.with_name("network.json")]


@pytest.mark.slow
def test_the_probe_fits_weights_to_the_network_that_is_trained(tmp_path: Path, params_file: WriteParams) -> None:
    """A vision transformer of the images' size; as a student with a flow its tokens alone."""
    out, sizes = tmp_path / "environment.json", {"student": {"img_size": 96}, "other": {}}
    for name, options in sizes.items():
        torch.save(timm.create_model("test_vit", **options).state_dict(), tmp_path / f"{name}.pth")
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "headless.pth")
    changes = {"distill_student.backbone": "timm:test_vit", "distill_student.allow_larger": True}
    fill_folder(tmp_path / "images", {"a": 1, "b": 1})

    def probed(name: str, size: int | None, method: str = "fm_kt") -> Result:
        chosen = {KEY: str(tmp_path / f"{name}.pth"), "prepare_data.image_size": size, "distill_student.method": method}
        chosen |= {"prepare_data.source": "imagefolder", "prepare_data.root": str(tmp_path / "images")}
        chosen |= {"package.name": "tokens"}
        return run_probe(params_file(changes | chosen), out)

    fitting = [("student", 96), ("student", 96, "metric"), ("headless", 160), ("student", None)]
    for result in [probed(*chosen) for chosen in fitting]:
        assert result.exit_code == 0, result.output
    refused(probed("other", 96), f"{KEY}: ", "pos_embed")


def test_reports_say_from_what_networks_started() -> None:
    assert started_lines({}, {"started_from": "w.pt"}) == ["The student started from w.pt"]
    assert started_lines({"started_from": "a"}, {"started_from": "b"})[0] == "The teacher started from a"
    assert started_lines({}, {}) == []
