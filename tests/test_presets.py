"""Presets: their values, the files that they become, faults in them, and the networks that they choose."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML
from torch import nn

from models.classifier import Classifier
from models.detection.detector import Detector
from models.students import SampledStudent
from pipeline.core.errors import UserError
from pipeline.data.dataset import DataInfo
from pipeline.data.sources.table import SOURCES
from pipeline.distillation.method import Networks, build_student
from pipeline.distillation.methods import METHODS
from pipeline.distillation.pairs import with_pairs
from pipeline.networks.origins import find_weights
from pipeline.networks.saved import build_network
from pipeline.params.loading import read_yaml
from pipeline.params.presets import DEFAULT, apply_preset, list_presets, load_preset, render_preset
from pipeline.params.rendering import render
from pipeline.params.schema import Params, load_params
from pipeline.tasks.table import TASKS
from stages.__main__ import main as stages_main
from tests.helpers import ROOT

FOLDER = ROOT / "presets"
PRESETS = sorted(list_presets(FOLDER))

GPU = {"base.num_threads": None, "distill_student.flow.num_steps": [8]}
CROPS = {"training.precision": "auto", "training.augment.crop_padding": 4, "training.augment.horizontal_flip": True}
CRD = CROPS | {
    "training.epochs": 240,
    "training.optimizer.learning_rate": 0.05,
    "training.optimizer.nesterov": False,
    "training.schedule.name": "multistep",
    "training.schedule.warmup_epochs": 0,
    "training.schedule.milestones": [150, 180, 210],
}
STEADY = {
    "training.precision": "auto",
    "training.optimizer.name": "adamw",
    "training.optimizer.weight_decay": 0.05,
    "training.optimizer.decay_all": False,
    "training.augment.horizontal_flip": True,
    "training.clip_norm": 1.0,
}
LARGE = {
    "training.epochs": 100,
    "training.batch_size": 512,
    "training.precision": "auto",
    "training.optimizer.learning_rate": 0.2,
    "training.optimizer.weight_decay": 1e-4,
    "training.optimizer.decay_all": False,
    "training.schedule.name": "multistep",
    "training.schedule.warmup_epochs": 1,
    "training.schedule.milestones": [30, 60, 90],
    "training.augment.crop_padding": 0,
    "training.augment.horizontal_flip": True,
    "training.augment.resized_crop_scale": [0.08, 1.0],
}


def both(training: Mapping[str, object]) -> dict[str, object]:
    """Return the changes for teacher and student alike."""
    return {
        f"{stage}.{key}": value for stage in ("train_teacher", "distill_student") for key, value in training.items()
    }


def cifar(source: str, teacher: str, student: str, **changes: object) -> dict[str, object]:
    """Return what the CRD protocol changes; ``changes`` are of ``distill_student``."""
    data = {"source": source, "root": f"data/{source}", "download": True, "calib_fraction": 0.02}
    return (
        GPU
        | {f"prepare_data.{key}": value for key, value in data.items()}
        | both(CRD)
        | {"train_teacher.backbone": teacher, "distill_student.backbone": student}
        | {f"distill_student.{key.replace('__', '.')}": value for key, value in changes.items()}
    )


def imagenet(teacher: str, student: str) -> dict[str, object]:
    return (
        GPU
        | {f"distill_student.{key}": value for key, value in LARGE.items()}
        | {
            "prepare_data.source": "imagefolder",
            "prepare_data.root": "data/imagenet",
            "prepare_data.image_size": 224,
            "prepare_data.calib_fraction": 0.01,
            "prepare_data.max_packed_gib": 16.0,
            "prepare_data.storage": "index",
            "train_teacher.backbone": teacher,
            "train_teacher.weights": "torchvision",
            "train_teacher.training.epochs": 0,
            "distill_student.backbone": student,
            "distill_student.feature_pairs": [[4, 4], [5, 5]],
            "distill_student.losses.kd.temperature": 1.0,
            "distill_student.losses.dkd.alpha": 0.5,
            "distill_student.losses.dkd.beta": 0.5,
            "distill_student.losses.dkd.temperature": 1.0,
            "distill_student.losses.dkd.warmup_epochs": 5,
        }
    )


PHOTOS = STEADY | {
    "training.min_epoch_steps": 15,
    "training.batch_size": 32,
    "training.optimizer.learning_rate": 0.001,
    "training.augment.crop_padding": 0,
    "training.augment.resized_crop_scale": [0.25, 1.0],
}
RESNET_TO_MOBILENET: dict[str, object] = {
    "base.num_threads": None,
    "prepare_data.source": "imagefolder",
    "prepare_data.root": "data/images",
    "prepare_data.image_size": 128,
    "prepare_data.storage": "index",
    "train_teacher.backbone": "resnet18",
    "distill_student.backbone": "mobilenet_v3_small",
    "distill_student.flow.meta_encoder": "conv_mobile",
    "distill_student.feature_pairs": [[4, 4], [5, 5]],
}
PYRAMID: dict[str, object] = {
    "distill_student.transfer": "features",
    "distill_student.loss": "pkd",
    "distill_student.feature_pairs": None,
    "export_onnx.batch_sizes": [1, 2, 7],
}
DETECTION = {
    "weights": "torchvision:IMAGENET1K_V1",
    "training.epochs": 24,
    "training.batch_size": 16,
    "training.precision": "auto",
    "training.optimizer.learning_rate": 0.01,
    "training.optimizer.weight_decay": 1e-4,
    "training.optimizer.nesterov": False,
    "training.schedule.name": "multistep",
    "training.schedule.warmup_epochs": 0.1,
    "training.schedule.milestones": [16, 22],
    "training.augment.crop_padding": 0,
    "training.augment.horizontal_flip": True,
    "training.fine_tuning.batch_norm": "frozen",
}


def detection(source: str, size: int, teacher: str, student: str) -> dict[str, object]:
    """Return what the authors' settings of detection change."""
    data = {"source": source, "root": f"data/{source}", "image_size": size, "storage": "index"}
    return (
        GPU
        | {f"prepare_data.{key}": value for key, value in data.items()}
        | {"prepare_data.calib_fraction": 0.02, "prepare_data.max_packed_gib": 16.0}
        | both(DETECTION)
        | {"train_teacher.backbone": teacher, "distill_student.backbone": student}
        | PYRAMID
        | {"distill_student.loss_weight": 10.0, "distill_student.flow.meta_encoder": "convnext"}
        | {"evaluate.batch_size": 16, "package.description": "A compact object detector."}
    )


SLOWER: dict[str, object] = {"training__optimizer__learning_rate": 0.01}
PHOTOS_WITH_BOXES = (
    both(
        STEADY
        | {
            "detector.width": 64,
            "detector.num_convs": 2,
            "detector.extra": "pool",
            "training.min_epoch_steps": 30,
            "training.batch_size": 16,
            "training.optimizer.learning_rate": 0.001,
            "training.augment.crop_padding": 0,
            "training.augment.scale_jitter": [0.7, 1.5],
            "training.clip_norm": 10.0,
        }
    )
    | PYRAMID
    | {
        "base.num_threads": None,
        "prepare_data.source": "coco",
        "prepare_data.root": "data/photos",
        "prepare_data.image_size": 256,
        "prepare_data.storage": "index",
        "train_teacher.backbone": "resnet18",
        "distill_student.backbone": "mobilenet_v3_small",
        "distill_student.loss_weight": 6.0,
        "distill_student.flow.meta_encoder": "conv_mobile",
        "evaluate.batch_size": 32,
        "package.description": "A compact object detector.",
    }
)
EXPECTED: dict[str, dict[str, object]] = {
    "digits": {},
    "detection-photos": PHOTOS_WITH_BOXES
    | both({"training.epochs": 15, "weights": "torchvision"})
    | both({"training.fine_tuning.backbone_learning_rate_factor": 0.1, "training.fine_tuning.frozen_epochs": 2}),
    "detection-photos-scratch": PHOTOS_WITH_BOXES | both({"training.epochs": 25}),
    "detection-digits": both(
        {
            "detector.width": 32,
            "detector.num_convs": 2,
            "detector.levels": [2, 3],
            "detector.extra": "pool",
            "training.epochs": 10,
            "training.batch_size": 16,
            "training.optimizer.name": "adamw",
            "training.optimizer.learning_rate": 0.006,
            "training.optimizer.weight_decay": 1e-4,
            "training.schedule.name": "one_cycle",
            "training.schedule.warmup_epochs": 1,
            "training.augment.crop_padding": 0,
            "training.clip_norm": 10.0,
        }
    )
    | PYRAMID
    | {
        "prepare_data.source": "digit_scenes",
        "prepare_data.calib_fraction": 0.1,
        "train_teacher.backbone": "resnet8",
        "distill_student.backbone": "resnet8_x0_5",
        "distill_student.loss_weight": 6.0,
        "detections.candidates": 600,
        "evaluate.batch_size": 32,
        "evaluate.latency_batch_sizes": [1, 8],
        "evaluate.latency_warmup": 5,
        "evaluate.latency_iterations": 20,
        "calibrate_steps.candidates": [1, 2, 4],
        "package.description": "A compact detector of handwritten digits.",
    },
    "coco-retinanet-resnet101-resnet50": detection("coco", 640, "resnet101", "resnet50")
    | both({"detector.kind": "retinanet"}),
    "coco-faster_rcnn-resnet101-resnet50": detection("coco", 640, "resnet101", "resnet50")
    | both({"detector.levels": [2, 3, 4, 5], "detector.extra": "pool"})
    | {
        "train_teacher.detector.kind": "faster_rcnn",
        "train_teacher.training.optimizer.learning_rate": 0.02,
        "train_teacher.training.clip_norm": 2.5,
        "distill_student.loss_weight": 6.0,
    },
    "coco-fcos-resnet50-mobilenet_v3": {
        key: value
        for key, value in detection("coco", 640, "resnet50", "mobilenet_v3_large").items()
        if key != "train_teacher.training.fine_tuning.batch_norm"
    }
    | {
        "train_teacher.weights": "torchvision:COCO_V1",
        "train_teacher.training.epochs": 0,
        "distill_student.detector.width": 128,
    },
    "voc-fcos-resnet50-resnet18": detection("voc", 512, "resnet50", "resnet18")
    | {"distill_student.detector.width": 128},
    "cifar10": cifar("cifar10", "resnet56", "resnet20"),
    "cifar100-resnet110-resnet32": cifar("cifar100", "resnet110", "resnet32"),
    "cifar100-resnet32x4-resnet8x4": cifar("cifar100", "resnet32x4", "resnet8x4"),
    "cifar100-resnet32x4-shufflenet_v2": cifar(
        "cifar100", "resnet32x4", "cifar_shufflenet_v2", feature_pairs=[[3, 2], [4, 3]], **SLOWER
    ),
    "cifar100-resnet50-mobilenet_v2": cifar(
        "cifar100", "cifar_resnet50", "cifar_mobilenet_v2", feature_pairs=[[3, 4], [4, 4]], **SLOWER
    ),
    "cifar100-resnet56-resnet20": cifar("cifar100", "resnet56", "resnet20"),
    "cifar100-vgg13-vgg8": cifar("cifar100", "cifar_vgg13", "cifar_vgg8", feature_pairs=[[3, 3], [4, 4]]),
    "cifar100-wrn_40_2-wrn_16_2": cifar("cifar100", "wrn_40_2", "wrn_16_2"),
    "cifar100-wrn_40_2-wrn_40_1": cifar("cifar100", "wrn_40_2", "wrn_40_1"),
    "imagenet-resnet34-resnet18": imagenet("resnet34", "resnet18"),
    "imagenet-resnet50-mobilenet_v2": imagenet("resnet50", "mobilenet_v2"),
    "photos-scratch": both(PHOTOS | {"training.epochs": 25}) | RESNET_TO_MOBILENET,
    "photos": both(PHOTOS | {"training.epochs": 15, "weights": "torchvision"})
    | both({"training.fine_tuning.backbone_learning_rate_factor": 0.1, "training.fine_tuning.frozen_epochs": 2})
    | RESNET_TO_MOBILENET,
    "imagefolder-trial": both(CROPS | STEADY | {"training.epochs": 4, "training.min_epoch_steps": 50})
    | both({"training.optimizer.learning_rate": 0.004, "training.schedule.warmup_epochs": 1})
    | {
        "prepare_data.source": "imagefolder",
        "prepare_data.root": "data/images",
        "prepare_data.image_size": 32,
        "prepare_data.calib_fraction": 0.1,
        "prepare_data.max_train_images": 10000,
        "prepare_data.max_test_images": 2000,
        "train_teacher.backbone": "resnet20",
    },
    "tiny-imagenet": GPU
    | both(CROPS | {"training.epochs": 40, "training.batch_size": 128})
    | {
        "prepare_data.source": "imagefolder",
        "prepare_data.root": "data/tiny-imagenet",
        "prepare_data.image_size": 32,
        "prepare_data.calib_fraction": 0.02,
        "train_teacher.backbone": "wrn_40_2",
        "distill_student.backbone": "wrn_16_2",
    },
}
"""What each preset changes of the defaults."""


def flat(content: Mapping[str, Any], above: str = "") -> dict[str, object]:
    """Return the values of ``content`` by their dotted keys."""
    values: dict[str, object] = {}
    for name, value in content.items():
        values |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return values


def make(folder: Path, **texts: str) -> Path:
    """Write a preset file for each of ``texts``; they need no title."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(f"# Title of {name}.\n{text}\n")
    return folder


def test_the_presets_are_those_expected() -> None:
    assert sorted(EXPECTED) == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_changes_of_the_defaults_what_it_should(name: str) -> None:
    defaults = flat(Params().model_dump(mode="json"))
    found = flat(load_preset(FOLDER, name).model_dump(mode="json"))
    assert list(found) == list(defaults)
    assert {key: value for key, value in found.items() if value != defaults[key]} == EXPECTED[name]


@pytest.mark.parametrize("name", PRESETS)
def test_a_rendered_preset_reads_back_as_it_was(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(render_preset(FOLDER, name))
    read = load_params(path)
    assert read == load_preset(FOLDER, name)
    title = list_presets(FOLDER)[name]
    assert render(read, title) == path.read_text() == render_preset(FOLDER, name)
    assert path.read_text().startswith(f"# {title}\n")
    old = YAML(typ="safe", pure=True)
    old.version = (1, 1)
    assert old.load(path.read_text()) == read_yaml(path), "programs that read YAML 1.1 find the same values"


def test_every_preset_file_is_short_and_says_only_what_differs() -> None:
    defaults = flat(Params().model_dump(mode="json"))
    for path in FOLDER.glob("*.yaml"):
        assert len(path.read_text().splitlines()) <= 25, path.name
        content: Any = read_yaml(path) or {}
        extends = content.pop("extends", None)
        if extends is None:
            same = [key for key, value in flat(content).items() if value == defaults[key]]
            assert not same, f"{path.name} repeats defaults"


def test_what_presets_extend_is_not_listed() -> None:
    assert (FOLDER / "_crd.yaml").exists()
    assert not [name for name in PRESETS if name.startswith("_")]
    with pytest.raises(UserError, match=r"preset: unknown preset '_crd'; .*known: cifar10, cifar100-"):
        load_preset(FOLDER, "_crd")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: {sead: 1}", "own.yaml: base.sead: unknown key 'sead'; did you mean seed? known: seed, device"),
        ("bass: {seed: 1}", "own.yaml: bass: unknown key 'bass'; did you mean base? known: base, execution"),
        ("train_teacher: {training: {optimizer: {lr: 1.0}}}", "own.yaml: train_teacher.training.optimizer.lr: unknown"),
        ("base: {seed: x}", "own.yaml: base.seed: got the text 'x'; give an integer >= 0"),
        ("base: 3", "own.yaml: base: got 3; give a section with the keys seed, device"),
        ("base: {seed: {a: 1}}", "own.yaml: base.seed: got {'a': 1}; give an integer >= 0"),
        ("prepare_data: {source: cifar10}", "own.yaml: prepare_data: source cifar10 needs root"),
        ("- 1", "own.yaml: holds no keys"),
        ("a: [", "own.yaml: not valid YAML"),
        ("base: {seed: 2001-13-45}", "own.yaml: not valid YAML"),
        ("base: {seed: !!bool maybe}", "own.yaml: not valid YAML"),
        ("base: {seed: !!int abc}", "own.yaml: not valid YAML"),
        ("base: {seed: !!float ''}", "own.yaml: not valid YAML"),
        ("[[1]]: 2", "own.yaml: not valid YAML"),
        (5000 * "[", "own.yaml: not valid YAML: nested too deeply"),
        ("extends: othr", "own.yaml: extends: unknown preset 'othr'; did you mean other? known: other, own"),
        ("extends: [other]", "own.yaml: extends: unknown preset"),
        ("extends: own", "own.yaml: extends: goes round in a circle: own, own"),
        ("extends: other", r"own.yaml (extends other): base.seed: got -1"),
    ],
)
def test_a_fault_in_a_preset_is_named_with_file_and_key(text: str, words: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "presets", own=text, other="base: {seed: -1}")
    with pytest.raises(UserError) as caught:
        load_preset(folder, "own")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_presets_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "presets", a="extends: b", b="extends: c", c="extends: b")
    with pytest.raises(UserError, match=r"c.yaml: extends: goes round in a circle: a, b, c, b"):
        load_preset(folder, "a")


def test_a_preset_can_extend_one_that_extends_another(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "presets",
        _a="base: {seed: 1, num_threads: 3}\nevaluate: {latency_batch_sizes: [1, 2]}",
        b="extends: _a\nbase: {seed: 2}",
        c="extends: b\nevaluate: {latency_batch_sizes: [4]}",
    )
    found = load_preset(folder, "c")
    assert (found.base.seed, found.base.num_threads, found.evaluate.latency_batch_sizes) == (2, 3, (4,))
    assert list_presets(folder) == {"b": "Title of b.", "c": "Title of c."}


def test_a_preset_without_a_title_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("base: {seed: 1}\n")
    with pytest.raises(UserError, match=r"own.yaml: its first line must be a comment that says what the preset is for"):
        list_presets(tmp_path)


@pytest.mark.slow
def test_a_preset_is_put_in_place_and_an_edited_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    assert apply_preset(FOLDER, DEFAULT, path) is None
    assert path.read_text() == render_preset(FOLDER, DEFAULT)
    assert apply_preset(FOLDER, "cifar10", path) is None, "a preset is no edited file"
    edited = path.read_bytes() + b"# mine\n"
    path.write_bytes(edited)
    kept = apply_preset(FOLDER, "tiny-imagenet", path)
    assert kept == tmp_path / "params.yaml.bak"
    assert kept.read_bytes() == edited
    assert path.read_text() == render_preset(FOLDER, "tiny-imagenet")
    path.write_bytes(edited)
    assert apply_preset(FOLDER, DEFAULT, path) == tmp_path / "params.yaml.bak1", "an earlier copy is never overwritten"
    assert kept.read_bytes() == edited


def test_a_faulty_or_unknown_preset_changes_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "presets", good="base: {seed: 1}", bad="base: {seed: x}")
    path = tmp_path / "params.yaml"
    path.write_text("mine")
    for name in ("bad", "imagenet"):
        with pytest.raises(UserError):
            apply_preset(folder, name, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["params.yaml", "presets"]
    assert apply_preset(folder, "good", path) == tmp_path / "params.yaml.bak", "the fault of another does not hinder"


def test_a_file_that_is_no_preset_hinders_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "good.yaml").write_text("# Good.\nbase:\n  seed: 3\n")
    (folder / "folder.yaml").mkdir()
    (folder / "gone.yaml").symlink_to(tmp_path / "nowhere")
    (folder / "binary.yaml").write_bytes(b"# \xff\n")
    (folder / "untitled.yaml").write_text("base:\n  seed: 4\n")
    params = tmp_path / "params.yaml"
    assert apply_preset(folder, "good", params) is None
    assert load_params(params).base.seed == 3
    for name in ("folder", "gone", "binary", "untitled"):
        with pytest.raises(UserError, match=rf"{folder}/{name}.yaml: "):
            apply_preset(folder, name, params)
    with pytest.raises(UserError, match=rf"{folder}/binary.yaml: not a text in UTF-8"):
        list_presets(folder)


def test_a_parameters_file_that_is_a_link_stays_one_and_a_folder_is_named(tmp_path: Path) -> None:
    place, link = tmp_path / "elsewhere.yaml", tmp_path / "params.yaml"
    place.write_text("mine")
    link.symlink_to(place)
    assert apply_preset(FOLDER, "digits", link) == tmp_path / "elsewhere.yaml.bak"
    assert link.is_symlink()
    assert load_params(place).base.seed == 0
    with pytest.raises(UserError, match=rf"{tmp_path}: cannot be read \(Is a directory\)"):
        apply_preset(FOLDER, "digits", tmp_path)
    beside = CliRunner().invoke(stages_main, ["preset", "digits", "--params", str(place / "params.yaml")])
    assert (beside.exit_code, beside.stderr) == (1, f"error: {place}: File exists\n")


def test_without_presets_the_command_says_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["preset"], ["preset", "digits"]):
        done = CliRunner().invoke(stages_main, words)
        assert (done.exit_code, done.stderr) == (
            2,
            f"error: {tmp_path}/presets: no such folder; run this in the root of a clone, which has it\n",
        )
    assert not list(tmp_path.iterdir())


def test_the_preset_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    lines = CliRunner().invoke(stages_main, ["preset"]).output.splitlines()
    assert [line.split()[0] for line in lines] == PRESETS
    assert len({line.index(title) for line, title in zip(lines, list_presets(FOLDER).values(), strict=True)}) == 1
    path = tmp_path / "params.yaml"
    path.write_text("mine")
    done = CliRunner().invoke(stages_main, ["preset", "digits", "--params", str(path)])
    assert done.exit_code == 0
    assert f"your edited {path} is kept as {path}.bak" in done.output
    unknown = CliRunner().invoke(stages_main, ["preset", "digit", "--params", str(path)])
    assert unknown.exit_code == 2
    assert "error: preset: unknown preset 'digit'; did you mean digits? known: cifar10" in unknown.output
    for part, meant in (("imagenet", "tiny-imagenet"), ("folder", "imagefolder-trial")):
        line = CliRunner().invoke(stages_main, ["preset", part, "--params", str(path)]).output
        assert f"unknown preset '{part}'; did you mean " in line
        assert meant in line


@pytest.mark.parametrize("name", PRESETS)
def test_the_weights_that_a_preset_starts_from_are_those_of_coco_where_it_says_so_alone(name: str) -> None:
    params = load_preset(FOLDER, name)
    task = TASKS[SOURCES[params.prepare_data.source].task].load().training()
    for settings in (params.train_teacher, params.distill_student):
        if settings.weights is not None:
            whole = task.published_names(settings)
            found = find_weights(settings.backbone, settings.weights, entry=None, key="weights", whole=whole)
            assert ("COCO" in found.title) == ("COCO" in settings.weights)


def test_the_usual_cifar_100_pairs_are_there() -> None:
    loaded = [load_preset(FOLDER, name) for name in PRESETS if name.startswith("cifar100-")]
    pairs = {(params.train_teacher.backbone, params.distill_student.backbone) for params in loaded}
    assert {
        ("resnet56", "resnet20"),
        ("resnet32x4", "resnet8x4"),
        ("wrn_40_2", "wrn_16_2"),
        ("cifar_vgg13", "cifar_vgg8"),
    } < pairs


@pytest.mark.parametrize("name", PRESETS)
def test_dvc_changes_the_lines_of_the_keys_that_it_is_told_and_no_others(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(render_preset(FOLDER, name))
    before = path.read_text().splitlines()
    apply_overrides(
        path, ["train_teacher.weights='/my weights (1)/new [2].pt'", "distill_student.losses.dist.gamma=0.25"]
    )
    after = path.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [new.partition("#")[0].strip() for _, new in changed] == [
        "weights: /my weights (1)/new [2].pt",
        "gamma: 0.25",
    ]
    assert [old.partition("#")[2] for old, _ in changed] == [new.partition("#")[2] for _, new in changed]
    assert load_params(path).distill_student.losses.dist.gamma == 0.25  # type: ignore[attr-defined]


def test_a_list_loses_no_comment_when_dvc_changes_it(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(render_preset(FOLDER, DEFAULT))
    comments = [line.partition("#")[2] for line in path.read_text().splitlines() if "#" in line]
    mean = "train_teacher.mean=[0.5,0.5,0.5]"
    apply_overrides(path, [mean, mean.replace("mean", "std"), "calibrate_steps.candidates=[1]"])
    assert [line.partition("#")[2] for line in path.read_text().splitlines() if "#" in line] == comments
    assert load_params(path).train_teacher.mean == (0.5, 0.5, 0.5)


SIZES = {"digits": (8, 8), "imagenet": (224, 224), "detection": (64, 64), "coco": (640, 640), "voc": (512, 512)}
"""Image sizes by the first part of the preset's name; 32 x 32 for the others."""


def data_of(name: str, source: str) -> DataInfo:
    """Return what ``prepare_data`` would say of the preset's images, from ``source``."""
    return DataInfo(
        task=SOURCES[source].task,
        class_names=("a", "b", "c"),
        image_size=SIZES.get(name.partition("-")[0], (32, 32)),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        resize="none",
        storage="packed",
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("transfer", ["logits", "features"])
def test_the_networks_of_every_preset_can_be_built_and_fit_each_other(name: str, transfer: str) -> None:
    params = load_preset(FOLDER, name)
    info = data_of(name, params.prepare_data.source)
    task = TASKS[info.task].load().training()
    if task.kinds.logits is None and transfer == "logits":
        return  # refused by name; see test_detection_params
    loss = "pkd" if transfer == "features" else params.distill_student.loss
    settings = params.distill_student.model_copy(update={"transfer": transfer, "loss": loss})
    method = METHODS[settings.method].load()
    with torch.no_grad():
        settings = with_pairs(settings, info, task)
        teacher = build_network(
            task.plain_network(params.train_teacher, info, mean=list(info.mean), std=list(info.std))
        )
        assert isinstance(teacher, Classifier | Detector)
        student = build_student(method.student(settings, info, task), info.image_size)
        assert isinstance(student, SampledStudent)
        spec = method.adapter(settings, info, task, student, teacher)
        adapter = build_network(spec) if spec else None
        assert method.objective(
            settings,
            Networks(student, adapter, teacher),
            task.supervision(info, label_smoothing=0.0, class_weights=None),
        )
        assert (adapter is not None) == (transfer == "features")
    assert count(student.backbone) < count(teacher.backbone), "the student's backbone is the smaller one"


def count(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("digits", "run: dvc repro"),
        ("cifar10", "run: dvc repro"),
        (
            "photos",
            "run it on your images: dvc exp run -S prepare_data.root=/path/to/images -S package.name=my-model",
        ),
    ],
)
def test_a_preset_says_what_comes_next(name: str, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(stages_main, ["preset", name, "--params", str(tmp_path / "params.yaml")])
    assert result.stderr.splitlines()[-1].endswith(f"now holds the preset {name}; {step}")
