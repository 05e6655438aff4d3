"""Parameters: strict, typed, and wrong ones answered with one line that names section.key."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.core.errors import UserError
from pipeline.params.loading import load_params
from pipeline.params.presets import apply_preset, list_presets
from pipeline.preflight.checks import check_backbones, check_device, data_fingerprint, earlier_inputs
from stages.__main__ import main as stages_main
from stages.probe_environment import main as probe
from tests.helpers import ROOT, fill_folder

WriteParams = Callable[[dict[str, Any]], Path]
FEATURES = {"distill_student.transfer": "features", "distill_student.loss": "pkd"}


def refusal(path: Path) -> str:
    """Return what ``load_params`` says, which must be one line."""
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("base.seed", "zero", "got 'zero'; input should be a valid integer"),
        ("base.seed", 1.5, "got 1.5; input should be a valid integer"),
        ("base.seed", True, "got True; input should be a valid integer"),
        ("base.device", "gpu", "got 'gpu'"),
        ("prepare_data.calib_fraction", 1.0, "got 1.0; input should be less than 1"),
        ("train_teacher.training.epochs", 0, "got 0; input should be greater than or equal to 1"),
        ("train_teacher.training.optimizer.learning_rate", float("nan"), "got nan"),
        ("distill_student.method", "fmkt", "input should be 'fm_kt', 'fm_kt_theta', 'ofm_kt', 'none'"),
        ("distill_student.loss", None, "got None; input should be 'kd', 'dkd', 'dist', 'pkd' or 'mse'"),
        ("distill_student.flow.num_steps", [], "at least 1 item"),
        ("distill_student.flow.num_steps", [4, 0], "got 0; input should be greater than or equal to 1"),
        ("calibrate_steps.candidates", [], "at least 1 item"),
        ("export_onnx.opset", 17, "got 17; input should be greater than or equal to 18"),
        ("export_onnx.input", "float16", "input should be 'float32' or 'uint8'"),
        ("export_onnx.precisions", ["fp32", "int4"], "input should be 'fp32', 'fp16', 'int8-cpu' or 'int8-trt'"),
        ("export_onnx.precisions", ["fp16"], "got ['fp16']; fp32 must be among them"),
        ("export_onnx.calibration.method", "random", "input should be 'minmax' or 'percentile'"),
        ("export_onnx.gates.int8-cpu.max_drop", -0.1, "export_onnx.gates.int8-cpu.max_drop: got -0.1"),
        ("export_tensorrt.precisions", ["int8-trt", "int8-cpu"], "input should be 'fp32', 'fp16' or 'int8-trt'"),
        ("export_tensorrt.hardware_compatibility", "all", "'none', 'ampere_plus' or 'same_compute_capability'"),
        ("evaluate.provider", "gpu", "input should be 'cpu', 'cuda' or 'tensorrt'"),
        ("package.name", "My Model", "got 'My Model'"),
        ("train_teacher.std", [0.2, 0.0, 0.2], "got 0.0; input should be greater than 0"),
        ("train_teacher.weights", "~no-such-user/w.pt", "home directory"),
        ("evaluate.num_threads", 10**12, "less than or equal to 1024"),
        ("execution.compile", "on", "input should be 'auto', 'always' or 'never'"),
        ("execution.num_processes", 0, "got 0; input should be greater than or equal to 1"),
        ("prepare_data.unreadable", "ignore", "input should be 'stop' or 'skip'"),
        ("distill_student.training.precision", "int8", "input should be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ("distill_student.training.clip_norm", 0.0, "got 0.0; input should be greater than 0"),
        ("distill_student.training.ema_decay", 1.0, "got 1.0; input should be less than 1"),
        ("distill_student.training.optimizer.name", "adam", "input should be 'sgd' or 'adamw'"),
        ("distill_student.training.optimizer.betas", [0.9, 1.0], "got 1.0; input should be less than 1"),
        ("distill_student.training.augment.color_jitter", 1.0, "got 1.0; input should be less than 1"),
        ("distill_student.training.augment.resized_crop_scale", [0.0, 1.0], "got 0.0; input should be greater than 0"),
    ],
)
def test_an_ill_typed_or_forbidden_value_is_named(
    key: str, value: object, words: str, params_file: WriteParams
) -> None:
    message = refusal(params_file({key: value}))
    assert f"params.yaml: {key}" in message
    assert words in message


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("distill_student.training.epoch", "got 3, but the key is unknown; allowed here: epochs, batch_size"),
        ("base.sead", "got 3, but the key is unknown; did you mean seed? allowed here: seed, device"),
        ("prepare_dta", "got 3, but the key is unknown; did you mean prepare_data? allowed here: base"),
    ],
)
def test_an_unknown_key_is_named_with_those_allowed(key: str, words: str, params_file: WriteParams) -> None:
    message = refusal(params_file({key: 3}))
    assert f"params.yaml: {key}" in message
    assert words.replace("unknown; allowed", "unknown; did you mean epochs? allowed") in message or words in message


def test_a_misspelt_key_is_one_mistake_not_two(params_file: WriteParams) -> None:
    path = params_file({})
    path.write_text(path.read_text().replace("  seed: 0", "  sead: 0"))
    assert "base.sead: got 0, but the key is unknown; did you mean seed?" in refusal(path)


def test_a_missing_key_is_named(params_file: WriteParams) -> None:
    path = params_file({})
    path.write_text(re.sub(r"  tolerance: .*\n", "", path.read_text()))
    assert "calibrate_steps.tolerance: missing" in refusal(path)


def test_several_mistakes_are_all_named(params_file: WriteParams) -> None:
    with pytest.raises(UserError) as caught:
        load_params(params_file({"base.seed": -1, "evaluate.num_threads": 0}))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["base.seed", "evaluate.num_threads"]


def test_rules_between_keys(params_file: WriteParams) -> None:
    assert "export_tensorrt: min_batch, opt_batch and max_batch must not decrease" in refusal(
        params_file({"export_tensorrt.min_batch": 9})
    )
    assert "train_teacher.training.optimizer: nesterov needs a momentum above 0" in refusal(
        params_file({"train_teacher.training.optimizer.momentum": 0.0})
    )
    assert "distill_student.training: schedule.warmup_epochs must be fewer than epochs, got 2 of 2" in refusal(
        params_file({"distill_student.training.epochs": 2})
    )
    assert "prepare_data: source imagefolder needs root" in refusal(params_file({"prepare_data.source": "imagefolder"}))
    assert "train_teacher: mean and std belong together" in refusal(
        params_file({"train_teacher.mean": [0.5, 0.5, 0.5]})
    )
    assert "prepare_data: source digits comes with the pipeline" in refusal(params_file({"prepare_data.root": "x"}))
    scale = "distill_student.training.augment.resized_crop_scale"
    assert "resized_crop_scale: got [1.0, 0.5]; give the smaller" in refusal(params_file({scale: [1.0, 0.5]}))
    assert f"params.yaml: {scale}: got [0.5, 1.0], but packed images are cut already; set prepare_data.storage" in (
        refusal(params_file({scale: [0.5, 1.0]}))
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"loss": "pkd"},
            "loss 'pkd' does not work on logits; use kd or dkd or dist or mse, or set transfer",
        ),
        (
            {"transfer": "features", "loss": "dkd"},
            "loss 'dkd' does not work on features; use pkd or mse, or set",
        ),
        ({"transfer": "features", "loss": "kd"}, "loss 'kd' does not work on features"),
        (
            {"transfer": "features", "loss": "pkd", "method": "fm_kt_theta"},
            "does not transfer features; use fm_kt or",
        ),
        ({"transfer": "features", "loss": "mse", "method": "ofm_kt"}, "method 'ofm_kt' does not transfer features"),
        ({"transfer": "features", "loss": "mse", "method": "metric_meta"}, "method 'metric_meta' does not transfer"),
        (
            {"feature_pairs": [[3, 3], [2, 2]]},
            "feature_pairs: got the student's stages [3, 2]; give each once",
        ),
    ],
)
def test_combinations_that_make_no_sense_are_refused_with_what_to_use(
    changes: dict[str, Any], words: str, params_file: WriteParams
) -> None:
    message = refusal(params_file({f"distill_student.{key}": value for key, value in changes.items()}))
    assert "params.yaml: distill_student: " in message
    assert words in message


def test_torchvision_has_no_weights_of_networks_for_small_images(params_file: WriteParams) -> None:
    assert "train_teacher: torchvision has no weights of 'resnet8x4'; give a file, or null to train" in refusal(
        params_file({"train_teacher.weights": "torchvision"})
    )


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "base: {}\nbase: {}", "\x00"])
def test_what_is_no_parameters_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params.yaml"):
        load_params(tmp_path / "params.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nothing.yaml: cannot be read" in refusal(tmp_path / "nothing.yaml")


def test_a_home_directory_is_expanded(params_file: WriteParams) -> None:
    assert load_params(params_file({"train_teacher.weights": "~/w.pt"})).train_teacher.weights == str(
        Path.home() / "w.pt"
    )


@pytest.mark.parametrize("content", ["{", "{}", '{"inputs": {}}'])
def test_the_probe_outlives_a_damaged_or_older_file_of_facts(
    content: str, tmp_path: Path, params_file: WriteParams
) -> None:
    out = tmp_path / "environment.json"
    out.write_text(content)
    assert CliRunner().invoke(probe, ["--params", str(params_file({})), "--out", str(out)]).exit_code == 0
    assert earlier_inputs(out)["backbones"] == ["resnet8", "resnet8x4"]


def test_a_gpu_that_is_not_there_is_noticed_at_once() -> None:
    with pytest.raises(
        UserError, match=r"base.device: got 'cuda:1', but this host has 1 NVIDIA GPU\(s\); use auto or cpu"
    ):
        check_device("cuda:1", num_gpus=1)
    check_device("cuda:1", num_gpus=2)
    check_device("auto", num_gpus=0)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"cat": 2, "dog": 2})
    (images / "cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"cat/gone.png: cannot be read \(No such file or directory\)"):
        data_fingerprint("imagefolder", images)


def test_an_unknown_section_is_named_without_its_content(params_file: WriteParams) -> None:
    assert "distil_student: the key is unknown; did you mean distill_student?" in refusal(
        params_file({"distil_student": {"method": "fm_kt"}})
    )


def test_numbers_are_read_as_yaml_1_2_writes_them(params_file: WriteParams) -> None:
    path = params_file({})
    path.write_text(path.read_text().replace("max_abs_diff: 1.0e-4", "max_abs_diff: 1e-4"))
    assert load_params(path).export_onnx.gates.fp32.max_abs_diff == 1e-4


def test_the_probe_ends_with_two_and_one_line_and_writes_nothing(tmp_path: Path, params_file: WriteParams) -> None:
    out = tmp_path / "environment.json"
    for changes in (
        {"base.seed": "x"},
        {"prepare_data.source": "imagefolder", "prepare_data.root": str(tmp_path / "nowhere")},
        {"train_teacher.weights": str(tmp_path / "no.pt")},
        {"distill_student.backbone": "resnet9"},
        {"train_teacher.backbone": "resnet19"},
        {"prepare_data.source": "imagefolder", "prepare_data.root": str(tmp_path / "params.yaml")},
        {"prepare_data.source": "cifar10", "prepare_data.root": str(tmp_path / "nowhere")},
        FEATURES | {"distill_student.feature_pairs": [[2, 2], [4, 3]]},
        FEATURES | {"distill_student.backbone": "vit_b_16"},
        {"distill_student.method": "fm_kt_theta", "distill_student.backbone": "squeezenet1_1"},
    ):
        result = CliRunner().invoke(probe, ["--params", str(params_file(changes)), "--out", str(out)])
        assert result.exit_code == 2
        assert len(result.output.splitlines()) == 1
        assert not out.exists()


def test_the_probe_notices_changed_images(tmp_path: Path, params_file: WriteParams) -> None:
    images = fill_folder(tmp_path / "images", {"cat": 2, "dog": 2})
    params = params_file({"prepare_data.source": "imagefolder", "prepare_data.root": str(images)})
    facts = []
    for _ in range(2):
        out = tmp_path / "environment.json"
        assert CliRunner().invoke(probe, ["--params", str(params), "--out", str(out)]).exit_code == 0
        facts.append(out.read_text())
        (images / "cat/new.png").write_bytes(b"new")
    assert facts[0] != facts[1]


@pytest.mark.parametrize("name", sorted(list_presets(ROOT / "presets")))
def test_every_preset_is_complete(name: str) -> None:
    params = load_params(ROOT / f"presets/{name}.yaml")
    backbones = {"train_teacher.backbone": params.train_teacher.backbone}
    backbones |= {"distill_student.backbone": params.distill_student.backbone}
    check_backbones(backbones, known=[])
    assert (ROOT / f"presets/{name}.yaml").read_text().startswith("# "), "its first line says what it is for"


def test_the_default_parameters_are_the_digits_preset() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "presets/digits.yaml").read_bytes()


def test_a_preset_is_put_in_place_and_an_edited_file_is_kept(tmp_path: Path, params_file: WriteParams) -> None:
    path = params_file({"base.seed": 7})
    edited = path.read_bytes()
    kept = apply_preset(ROOT / "presets", "tiny-imagenet", path)
    assert kept is not None
    assert kept.read_bytes() == edited
    assert path.read_bytes() == (ROOT / "presets/tiny-imagenet.yaml").read_bytes()
    path.write_bytes(edited)
    assert apply_preset(ROOT / "presets", "digits", path) not in {None, kept}, "an earlier copy is never overwritten"
    kept.unlink()
    assert apply_preset(ROOT / "presets", "digits", path) is None
    assert not kept.exists()
    with pytest.raises(UserError, match=r"unknown preset 'imagenet'; known: cifar10, cifar100-"):
        apply_preset(ROOT / "presets", "imagenet", tmp_path / "p.yaml")


def test_the_preset_command_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    output = CliRunner().invoke(stages_main, ["preset"]).output
    assert all(name in output for name in list_presets(ROOT / "presets"))
