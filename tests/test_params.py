"""Parameters: strict, typed, and wrong ones answered with one line that names section.key."""

import difflib
import functools
import operator
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from dvc.utils.hydra import apply_overrides

from models.backbones.sources import BACKBONE_SOURCES
from models.core.table import Entry, Table
from models.schedules import SCHEDULES
from pipeline.core.errors import UserError
from pipeline.core.settings import Base, Section, entry_of, knob
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES
from pipeline.distillation.criteria import CRITERIA, FEATURES, LOGITS, TRANSFERS, CriterionEntry
from pipeline.distillation.settings import DistillStudent, losses_section
from pipeline.export.precisions import PRECISIONS, PrecisionEntry
from pipeline.export.settings import ExportOnnx, Gates, gates_section
from pipeline.export.tensorrt.settings import ENGINE_PRECISIONS, ExportTensorrt
from pipeline.params.loading import load_section, missing_keys, validated
from pipeline.params.reference import parameters
from pipeline.params.rendering import RARE, explain, overview, render
from pipeline.params.schema import Params, load_params
from stages.__main__ import main as stages_main
from tests.helpers import ROOT
from workbench.project import default_params

WriteParams = Callable[[dict[str, Any]], Path]
ENGINE_WIDTH = max(map(len, ENGINE_PRECISIONS))
"""Of the column of names where precisions of engines are explained."""


def changed_by_dvc(path: Path, *overrides: str) -> set[str]:
    """Return the keys and values in the lines of ``path`` that are new after ``dvc exp run -S`` of ``overrides``.

    As many lines as are new must be gone.
    """
    before = path.read_text().splitlines()
    apply_overrides(path, list(overrides))
    lines = [line for line in difflib.ndiff(before, path.read_text().splitlines()) if line[:2] in ("+ ", "- ")]
    new = [line[2:].partition("#")[0].strip() for line in lines if line[0] == "+"]
    assert len(lines) == 2 * len(new)
    assert len(new) == len(set(new))
    return set(new)


def refusal(path: Path) -> str:
    """Return what ``load_params`` says, which must be one line."""
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("base.seed", "zero", "got the text 'zero'; give an integer >= 0"),
        ("base.seed", 1.5, "got 1.5; give an integer >= 0"),
        ("base.seed", True, "got true; give an integer >= 0"),
        ("base.device", "gpu", "got 'gpu'; give auto, cpu, cuda, or cuda:N with the number of a GPU"),
        ("prepare_data.calib_fraction", 1.0, "got 1.0; give a number > 0 and < 1"),
        ("train_teacher.training.epochs", -1, "got -1; give an integer >= 0"),
        (
            "train_teacher.training.optimizer.learning_rate",
            float("nan"),
            "got nan; give a number > 0, neither infinite nor nan",
        ),
        (
            "prepare_data.source",
            "cifar",
            "unknown data source 'cifar'; did you mean cifar10 or cifar100? known: digits,",
        ),
        ("distill_student.method", "fmkt", "unknown method 'fmkt'; did you mean fm_kt or ofm_kt? known: fm_kt,"),
        ("distill_student.loss", None, "got None; give the name of a criterion: kd, dkd, dist, pkd, mse"),
        ("distill_student.flow.schedule", "vpp", "unknown schedule 'vpp'; did you mean vp? known: rectified, vp, ve"),
        (
            "distill_student.flow.meta_encoder",
            "conw",
            "unknown meta-encoder 'conw'; did you mean conv? known: conv, conv_",
        ),
        ("distill_student.transfer", "labels", "got 'labels'; give one of logits, features"),
        ("distill_student.flow.num_steps", [], "got []; give a list of at least one, each an integer >= 1"),
        ("distill_student.flow.num_steps", [4, 0], "got 0; give an integer >= 1"),
        ("calibrate_steps.candidates", [], "got []; give a list of at least one, each an integer >= 1"),
        ("export_onnx.opset", 17, "got 17; give an integer >= 18"),
        ("export_onnx.input", "float16", "give one of float32, uint8"),
        (
            "export_onnx.precisions",
            ["fp32", "int4"],
            "precisions.1: unknown precision 'int4'; known: fp32, fp16, int8-cpu",
        ),
        ("export_onnx.precisions", ["fp16"], "got ['fp16']; fp32 must be among them"),
        ("export_onnx.calibration.method", "random", "give one of minmax, percentile"),
        ("export_onnx.gates.int8-cpu.max_drop", -0.1, "export_onnx.gates.int8-cpu.max_drop: got -0.1"),
        (
            "export_tensorrt.precisions",
            ["fp32", "int8-cpu"],
            "unknown precision of engines 'int8-cpu'; did you mean int8-trt?",
        ),
        ("export_tensorrt.hardware_compatibility", "all", "give one of none, ampere_plus, same_compute_capability"),
        ("evaluate.provider", "gpu", "give one of cpu, cuda, tensorrt"),
        ("package.version", "one", "got 'one'; give a version as Python or Semantic Versioning writes it, e.g. 1.2.0"),
        ("package.version", " 1.0", "got ' 1.0'; leave out the blanks"),
        ("package.version", 1.2, "got 1.2; give a version as Python or Semantic Versioning writes it, e.g. 1.2.0 or "),
        (
            "package.licence",
            "free",
            "got 'free'; give an SPDX expression, e.g. Apache-2.0 or LicenseRef-Proprietary; or ",
        ),
        ("package.precisions", [], "got []"),
        ("package.precisions", ["fp8"], "unknown precision 'fp8'"),
        ("package.name", "My Model", "got 'My Model'; give lower-case letters, digits and, between them, hyphens"),
        ("train_teacher.std", [0.2, 0.0, 0.2], "got 0.0; give a number > 0"),
        ("train_teacher.mean", [0.5], "mean: got [0.5]; give a list of 3, each a number, or null"),
        ("train_teacher.mean", [0.5] * 4, "mean: got [0.5, 0.5, 0.5, 0.5]; give a list of 3"),
        ("train_teacher.weights", "", "got ''; give a text that is not empty, or null"),
        (
            "prepare_data.image_size",
            "128",
            "got the text '128'; give one number of pixels from 4 on, e.g. 128; for images",
        ),
        (
            "prepare_data.image_size",
            [128, 2],
            "got [128, 2]; give one number of pixels from 4 on, e.g. 128; for images",
        ),
        (
            "prepare_data.image_size",
            [128, 96],
            "image_size: got [128, 96], but images that have one class become square",
        ),
        ("prepare_data.image_size", "128x128", "got the text '128x128'; give one number of pixels from 4 on"),
        ("calibrate_steps.candidates", [0], "calibrate_steps.candidates.0: got 0; give an integer >= 1"),
        (
            "calibrate_steps.candidates",
            [1, 2, 1],
            "got [1, 2, 1], with 1 more than once; give each once",
        ),
        ("calibrate_steps.candidates", 4, "got 4; give a list of at least one, each an integer >= 1"),
        (
            "export_onnx.precisions",
            ["fp32", "fp32", "fp16"],
            "with fp32 more than once; give each once",
        ),
        ("distill_student.feature_pairs", [[1]], "feature_pairs.0: got [1]; give a list of 2, each an integer >= 1"),
        ("base.deterministic", "yes", "got the text 'yes'; give true or false"),
        ("base", None, "base: got null; give a section with the keys seed, device, num_threads, deterministic"),
        ("base", [1], "base: got [1]; give a section with the keys seed, device, num_threads, deterministic"),
        ("evaluate.gate.max_drop", float("inf"), "got inf; give a number >= 0, neither infinite nor nan"),
        ("train_teacher.weights", "~no-such-user/w.pt", "home directory"),
        ("evaluate.num_threads", 10**12, "got 1000000000000; give an integer >= 1 and <= 1024"),
        ("execution.compile", "on", "give one of auto, always, never"),
        ("execution.num_processes", 0, "got 0; give an integer >= 1"),
        ("execution.hosts.num_hosts", 0, "got 0; give an integer >= 1 and <= 1024"),
        (
            "execution.hosts.endpoint",
            "node 1:29400",
            "got 'node 1:29400'; give HOST:PORT with a name or an IPv4 address, e.g. 10.0.0.1:29400",
        ),
        ("execution.hosts.endpoint", "node1:0", "got 'node1:0'; give a port from 1 to 65535"),
        ("execution.hosts.wait_minutes", 0.0, "got 0.0; give a number > 0"),
        ("execution.hosts.silence_seconds", 1.0, "got 1.0; give a number >= 3 and <= 3600"),
        ("prepare_data.unreadable", "ignore", "give one of stop, skip"),
        ("distill_student.training.precision", "int8", "give one of auto, fp32, bf16, fp16"),
        ("distill_student.training.clip_norm", 0.0, "got 0.0; give a number > 0, or null"),
        ("distill_student.training.ema_decay", 1.0, "got 1.0; give a number > 0 and < 1, or null"),
        ("distill_student.training.optimizer.name", "adam", "give one of sgd, adamw"),
        ("distill_student.training.optimizer.betas", [0.9, 1.0], "got 1.0; give a number >= 0 and < 1"),
        ("distill_student.training.augment.color_jitter", 1.0, "got 1.0; give a number >= 0 and < 1"),
        ("distill_student.training.augment.resized_crop_scale", [0.0, 1.0], "got 0.0; give a number > 0 and <= 1"),
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
        ("engine", "got 3, but the key is unknown; did you mean execution? allowed here: base"),
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
    assert (
        "calibrate_steps.tolerance: missing; fmkt params --explain calibrate_steps.tolerance describes it, "
        "fmkt preset NAME writes a complete file"
    ) in refusal(path)


def test_every_key_must_be_there_although_it_has_a_default() -> None:
    for parameter in parameters().all_below():
        content = Params().model_dump(mode="json")
        *above, name = parameter.key.split(".")
        del functools.reduce(operator.getitem, above, content)[name]
        with pytest.raises(UserError) as caught:
            validated(content, Params, "params.yaml")
        assert str(caught.value).startswith(f"params.yaml: {parameter.key}: missing; ")
        assert "\n" not in str(caught.value), "a rule that reads the missing key is not checked"


def test_nothing_is_missing_from_what_is_no_section() -> None:
    assert list(missing_keys(None, Base)) == []
    assert list(missing_keys({"seed": 1}, Base)) == [("device",), ("num_threads",), ("deterministic",)]


def test_a_misspelt_key_beside_a_missing_one(params_file: WriteParams) -> None:
    path = params_file({})
    text = path.read_text().replace("  seed: 0", "  sead: 0")
    path.write_text(re.sub(r"  tolerance: .*\n", "", text))
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "base.sead",
        "calibrate_steps.tolerance",
    ]


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


def criteria_of(transfer: str, *known: str) -> str:
    """Return the criteria that apply to ``transfer`` as a refusal lists them; ``known`` must be among them."""
    able = [name for name, entry in CRITERIA.items() if transfer in entry.applies_to]
    assert set(known) <= set(able)
    return " or ".join(able)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"loss": "pkd"},
            (
                "loss 'pkd' does not work on logits; "
                f"use {criteria_of(LOGITS, 'kd', 'dkd', 'dist', 'mse')}, or set transfer"
            ),
        ),
        (
            {"transfer": "features", "loss": "dkd"},
            f"loss 'dkd' does not work on features; use {criteria_of(FEATURES, 'pkd', 'mse')}, or set",
        ),
        ({"transfer": "features", "loss": "kd"}, "loss 'kd' does not work on features"),
        (
            {"transfer": "features", "loss": "pkd", "method": "fm_kt_theta"},
            "does not transfer features; use fm_kt or",
        ),
        ({"transfer": "features", "loss": "mse", "method": "ofm_kt"}, "method 'ofm_kt' does not transfer features"),
        (
            {"transfer": "features_and_logits", "loss": "pkd", "method": "metric_meta"},
            "method 'metric_meta' does not transfer features_and_logits; use fm_kt or none or metric",
        ),
        (
            {"transfer": "features_and_logits", "loss": "dist"},
            f"loss 'dist' does not work on features; use {criteria_of(FEATURES, 'pkd', 'mse')}, or set",
        ),
        (
            {"transfer": "features_and_logits", "loss": "pkd"},
            "logit_loss.weight: got 0, by which no logits are transferred; give a weight, 1 is usual, or set",
        ),
        (
            {"logit_loss.weight": 0.5},
            "logit_loss.weight: got 0.5, but transfer logits has loss for them; set it to 0 or transfer to features",
        ),
        (
            {"transfer": "features", "loss": "pkd", "logit_loss": {"weight": 1.0, "criterion": "pkd"}},
            "logit_loss.criterion: got 'pkd', which does not work on logits; use kd",
        ),
        (
            {"transfer": "features_and_logits", "loss": "pkd", "logit_loss.weight": 1.0, "stored_views": 2},
            "stored_views: got 2, but feature maps are too large to be stored",
        ),
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


@pytest.mark.parametrize("value", [0, -1, 4097, 1.5, "8", "", None, True, []])
def test_a_value_that_is_none_of_several_types_is_refused_in_one_line(value: object, params_file: WriteParams) -> None:
    refused = refusal(params_file({"distill_student.flow.width": value}))
    assert len(refused.splitlines()) == 1
    assert ": distill_student.flow.width: got " in refused
    assert refused.endswith("; give auto, full, or a number of channels from 1 to 4096")


def test_torchvision_has_no_weights_of_networks_for_small_images(params_file: WriteParams) -> None:
    assert "train_teacher: weights: torchvision has no weights of 'resnet8x4'; give a file, or null" in refusal(
        params_file({"train_teacher.weights": "torchvision"})
    )


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "base: {}\nbase: {}", "\x00"])
def test_what_is_no_parameters_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params.yaml"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("written", "instead", "words"),
    [
        ("  seed: 0", "\tseed: 0", "line 7, column 1, 'seed: 0': a tab; indent with spaces"),
        ("  seed: 0", "  seed: 0\n  seed: 1", "line 8, column 3, 'seed: 1': the key seed stands there twice; keep one"),
        ("  seed: 0", "  seed: 0: 1", "line 7, column 10, 'seed: 0: 1': a colon where none fits"),
        ("  device:", "   device:", "line 8, column 4, 'device: auto': it does not fit what stands above"),
        ("  root: ", "  root: [a", "'download: false': a bracket that is not closed; ']' is missing"),
        ("  root: ", '  root: "C:\\data"', "a backslash in double quotes; use single quotes"),
        ("  root: ", "  root: '", "quotes"),
        ("  root: ", "  root: *x ", "found undefined alias 'x'"),
        ("base:", "---\na: 1\n---\nbase:", "'---': a second document begins; a file holds one"),
        ("  seed: 0", "  seed: 0 # \x07", "line 7: a character that YAML does not allow"),
        ("  seed: 0", "  seed: 0 # \udcff", "no text in UTF-8 from byte "),
    ],
)
def test_broken_yaml_is_named_with_its_line_and_what_is_wrong(
    written: str, instead: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(default_params().replace(written, instead, 1), errors="surrogateescape")
    message = refusal(path)
    assert message.startswith(f"{path}: not valid YAML: ")
    assert words in message
    assert "unicode string" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nothing.yaml: cannot be read" in refusal(tmp_path / "nothing.yaml")


def test_a_home_directory_is_expanded(params_file: WriteParams) -> None:
    assert load_params(params_file({"train_teacher.weights": "~/w.pt"})).train_teacher.weights == str(
        Path.home() / "w.pt"
    )


def test_an_unknown_section_is_named_without_its_content(params_file: WriteParams) -> None:
    assert "distil_student: the key is unknown; did you mean distill_student?" in refusal(
        params_file({"distil_student": {"method": "fm_kt"}})
    )


def test_numbers_are_read_as_yaml_1_2_writes_them(params_file: WriteParams) -> None:
    path = params_file({})
    path.write_text(path.read_text().replace("max_difference: 1.0e-4", "max_difference: 1e-4"))
    assert load_params(path).export_onnx.gates.fp32.max_difference == 1e-4


def test_a_section_is_read_although_others_are_wrong(params_file: WriteParams) -> None:
    path = params_file({"base.seed": 7, "distill_student.method": "none such", "evaluate.num_threads": "x", "more": 1})
    assert load_section(path, "base", Base).seed == 7
    assert load_section(path, "prepare_data", PrepareData) == PrepareData()
    assert load_section(path, "export_onnx.gates", Gates).gate("fp16") == PRECISIONS["fp16"].gate
    with pytest.raises(UserError, match=r"params.yaml: distill_student.method: unknown method 'none such'"):
        load_section(path, "distill_student", DistillStudent)


def test_a_section_alone_is_as_strict_as_the_file(params_file: WriteParams) -> None:
    path = params_file({"base.seed": True, "base.sede": 1})
    with pytest.raises(UserError) as caught:
        load_section(path, "base", Base)
    assert [line.partition(": ")[2] for line in str(caught.value).splitlines()] == [
        "base.seed: got true; give an integer >= 0",
        (
            "base.sede: got 1, but the key is unknown; did you mean seed? allowed here: seed, device, num_threads, "
            "deterministic"
        ),
    ]


def test_a_section_that_is_read_in_part_has_no_other_keys(params_file: WriteParams) -> None:
    """So a stage cannot depend on a parameter that it does not declare to DVC."""
    only = ["base.seed", "export_onnx.gates.fp16.max_difference", "export_onnx.calibration"]
    base = load_section(params_file({"base.seed": 7}), "base", Base, only=only)
    assert base.seed == 7
    with pytest.raises(AttributeError, match="device"):
        _ = base.device
    onnx = load_section(params_file({}), "export_onnx", ExportOnnx, only=only)
    assert onnx.calibration == ExportOnnx().calibration
    assert onnx.gates.fp16.max_difference == ExportOnnx().gates.fp16.max_difference
    for read in (lambda: onnx.opset, lambda: onnx.gates.fp32, lambda: onnx.gates.fp16.min_agreement):
        with pytest.raises(AttributeError):
            read()


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("base: {}", "evaluate", "evaluate: missing; fmkt params --explain evaluate describes it"),
        ("export_onnx: {}", "export_onnx.gates", "export_onnx.gates: missing;"),
        ("export_onnx: 3", "export_onnx.gates", "export_onnx.gates: missing;"),
        ("evaluate:", "evaluate", "evaluate: got null; give a section with the keys seed, device"),
        ("evaluate: {1: 2}", "evaluate", "evaluate: got the key 1, which is no text"),
        ("- 1", "evaluate", "holds no sections; fmkt preset NAME writes a complete file"),
    ],
)
def test_a_section_that_is_not_there_is_named(text: str, name: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_section(path, name, Base)
    assert words in str(caught.value)


def test_loading_a_section_imports_no_other_settings() -> None:
    script = (
        "import sys, pipeline.params.loading, pipeline.data.settings\n"
        "print([name for name in sys.modules if name.endswith('.settings')])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pipeline.core.settings', 'pipeline.data.settings']"


def test_the_schema_imports_nothing_heavy() -> None:
    script = (
        "import sys, pipeline.params.schema, pipeline.params.rendering\n"
        "print({'torch', 'torchvision', 'sklearn', 'onnx', 'onnxruntime', 'tensorrt'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_rules_between_sections(params_file: WriteParams) -> None:
    assert "execution.hosts: endpoint: got null for 2 hosts; give the name or address of this host" in refusal(
        params_file({"execution.num_processes": 2, "execution.hosts.num_hosts": 2})
    )
    hosts = {"execution.hosts.num_hosts": 2, "execution.hosts.endpoint": "10.0.0.1:29400"}
    assert "params.yaml: execution: num_processes: got 1 for 2 hosts; give one for each at least" in refusal(
        params_file(hosts)
    )
    processes = {"execution.num_processes": 3, "distill_student.training.batch_size": 48}
    assert (
        "params.yaml: train_teacher.training.batch_size: got 64, which execution.num_processes = 3 cannot share"
    ) in refusal(params_file(processes))
    assert "export_tensorrt.precisions: got fp16, int8-trt, which export_onnx.precisions does not write" in refusal(
        params_file({"export_onnx.precisions": ["fp32"], "export_tensorrt.precisions": ["fp32", "fp16", "int8-trt"]})
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"storage": "index"}, "storage index needs files: source imagefolder or coco"),
        ({"storage": "index", "source": "cifar10", "root": "x"}, "storage index needs files"),
        ({"storage": "index", "source": "imagefolder", "root": "x.tar.gz"}, "storage index needs files"),
        ({"storage": "index", "source": "imagefolder", "root": "x"}, "storage index needs image_size"),
        ({"source": "cifar100"}, "source cifar100 needs root"),
    ],
)
def test_storage_and_root_fit_the_source(changes: dict[str, Any], words: str, params_file: WriteParams) -> None:
    message = refusal(params_file({f"prepare_data.{key}": value for key, value in changes.items()}))
    assert f"params.yaml: prepare_data: {words}" in message


def test_what_the_chosen_method_and_criterion_need() -> None:
    plain = DistillStudent()
    assert plain.needs_teacher
    assert plain.needs_feature_map
    assert plain.teacher_pairs == []
    chosen = plain.settings_of(plain.loss)
    assert chosen is not None
    assert chosen.model_dump() == {"beta": 2.0, "gamma": 2.0, "temperature": 1.0}
    features = DistillStudent(transfer="features", loss="pkd")
    assert features.teacher_pairs == [[2, 2], [3, 3]]
    assert features.settings_of(features.loss) is None
    alone = DistillStudent(method="none", transfer="features")  # no criterion is used, so none has to fit
    assert not alone.needs_teacher
    assert alone.teacher_pairs == []
    assert set(TRANSFERS) == set(
        Params.model_json_schema()["$defs"]["DistillStudent"]["properties"]["transfer"]["enum"]
    )


def test_gates_are_found_by_precision() -> None:
    settings = ExportOnnx()
    assert {name: settings.gates.gate(name) for name in PRECISIONS} == {
        name: entry.gate for name, entry in PRECISIONS.items()
    }
    assert settings.model_dump()["gates"]["int8-cpu"]["max_drop"] == 0.01
    with pytest.raises(ValueError, match=r"unknown precision 'int4'; known: fp32, fp16"):
        settings.gates.gate("int4")
    placed = settings.gates.placed("fp16")
    assert (placed.gate, placed.key) == (PRECISIONS["fp16"].gate, "export_onnx.gates.fp16")


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "export_onnx.precisions",
            ["fp32", "fp16", "fp16"],
            "precisions: got ['fp32', 'fp16', 'fp16'], with fp16",
        ),
        ("calibrate_steps.candidates", [1, 2, 1], "calibrate_steps.candidates: got [1, 2, 1], with 1 more than once"),
        (
            "measure_tradeoff.precisions",
            ["fp32", "fp32"],
            "precisions: got ['fp32', 'fp32'], with fp32 more",
        ),
        ("export_tensorrt.precisions", ["fp16", "fp16"], "export_tensorrt.precisions: got ['fp16', 'fp16'], with fp16"),
        ("export_onnx.required", ["fp16"], "export_onnx.required: got ['fp16']; fp32 must be among them"),
        ("export_onnx.precisions", ["fp32"], "export_onnx: required: got fp16, which precisions does not name"),
        ("export_onnx.gates.fp16.max_abs_diff", 1.0, "the key is unknown; did you mean max_difference?"),
        ("export_onnx.gates.fp16.max_relative_diff", 1.0, "the key is unknown; did you mean max_difference?"),
        ("export_onnx.gates.fp16.min_top1_agreement", 1.0, "the key is unknown; did you mean min_agreement?"),
        ("evaluate.max_drop", 0.1, "evaluate.max_drop: got 0.1, but the key is unknown; did you mean gate?"),
        ("evaluate.min_top1_agreement", 0.9, "the key is unknown; did you mean gate?"),
    ],
)
def test_precisions_steps_and_gates_that_cannot_be_meant_are_refused(
    key: str, value: object, line: str, params_file: WriteParams
) -> None:
    changes = {"export_onnx.required": ["fp32", "fp16"], "export_tensorrt.precisions": ["fp32"], key: value}
    assert line in refusal(params_file(changes))


@pytest.mark.parametrize("method", ["none", "ofm_kt"])
def test_a_bound_cannot_choose_where_there_is_no_teacher(method: str, params_file: WriteParams) -> None:
    said = refusal(params_file({"distill_student.method": method, "calibrate_steps.criterion": "bound"}))
    assert said.count("\n") == 0
    assert f"calibrate_steps.criterion: got bound, but method '{method}' has no teacher" in said
    assert said.endswith("set it to score")


class ToySettings(Section):
    """Settings of a criterion that does not exist."""

    sharpness: float = knob(3.0, "how sharp it is")


def test_entries_of_tables_become_parameters() -> None:
    toy = CriterionEntry(name="toy", description="a toy", load=lambda: abs, applies_to=(LOGITS,), settings=ToySettings)  # type: ignore[arg-type]
    bare = CriterionEntry(name="bare", description="no settings", load=lambda: abs, applies_to=(LOGITS,))  # type: ignore[arg-type]
    assert losses_section(Table("criterion", toy, bare))().model_dump() == {"toy": {"sharpness": 3.0}}
    int4 = PrecisionEntry(name="int4", description="4 bits", load=lambda: abs, gate=PRECISIONS["int8-cpu"].gate)  # type: ignore[arg-type]
    gates = gates_section(Table("precision", int4))
    assert gates.model_fields["int4"].description == "4 bits"
    assert gates().model_dump() == {"int4": asdict(PRECISIONS["int8-cpu"].gate)}
    toys = Table("toy", Entry(name="top", description="spins", load=dict))
    assert entry_of(toys).table is toys


def test_a_fresh_clone_has_the_default_preset() -> None:
    path = ROOT / "params.yaml"
    edited = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", path.name], cwd=ROOT, check=False).returncode != 0
    if edited or load_params(path) != Params():
        pytest.skip("params.yaml is edited")
    assert path.read_text() == default_params(), "render it anew: fmkt preset digits"


def test_a_file_tells_knobs_from_the_rest_and_says_what_each_key_takes() -> None:
    lines = default_params().splitlines()
    assert max(map(len, lines)) <= 120
    start = lines.index("prepare_data:                   # where the images come from and how they are split")
    section = lines[start + 1 : lines.index("", start)]
    until_root = next(number for number, line in enumerate(section) if line.startswith("  root:"))
    comment = " ".join(line.partition("# ")[2] for line in section[:until_root]).strip()
    assert comment == f"where the images come from; one of {', '.join(SOURCES)}", "at its end, and below if too long"
    rare = [line.partition(RARE)[1] == RARE for line in section if not line.lstrip().startswith("#")]
    assert rare == sorted(rare), "knobs stand above the rest"
    assert {True, False} == set(rare)
    assert (
        "  test_fraction: 0.2            # (rare) share of each class to test on, where the source has no test split"
        in (section)
    )
    assert "      weight_decay: 5.0e-4      # pulls weights towards zero" in lines
    keys = [line.split(":")[0] for line in lines]
    assert keys.index("  feature_pairs") < keys.index("  flow"), "keys stand above sections, the rare ones too"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("package.description", 'He said: "yes" # or no, [or] {this}: that'),
        ("package.description", "Schöne Bilder, 画像"),
        ("package.description", "two\nlines\tand \x07"),
        ("package.description", ""),
        ("package.description", "null"),
        ("package.description", " 12 "),
        ("package.description", "w" * 300 + " " + "w" * 300),
        ("package.name", "123"),
        ("prepare_data.max_packed_gib", 1e22),
        ("prepare_data.max_packed_gib", 3),
        ("evaluate.gate.max_difference", 1e-5),
        ("evaluate.gate.max_difference", 1.2345678901234567e-9),
        ("evaluate.gate.max_difference", 0.00099),
        ("distill_student.training.optimizer.betas", [0.0, 0.999999]),
        ("train_teacher.weights", "/data/a folder/with: colon.pt"),
        ("train_teacher.weights", "/data/" + "a folder with blanks/" * 20 + "w.pt"),
        ("calibrate_steps.candidates", list(range(1, 40))),
    ],
)
def test_whatever_is_rendered_is_read_back(key: str, value: object, tmp_path: Path) -> None:
    content: Any = Params().model_dump(mode="json")
    *above, name = key.split(".")
    functools.reduce(operator.getitem, above, content)[name] = value
    params = validated(content, Params, tmp_path / "params.yaml")
    path = tmp_path / "params.yaml"
    path.write_text(render(params, "A title."))
    assert load_params(path) == params
    assert render(load_params(path), "A title.") == path.read_text()
    assert changed_by_dvc(path, "base.seed=5", "evaluate.batch_size=77") == {"seed: 5", "batch_size: 77"}


def test_every_key_is_explained() -> None:
    for parameter in parameters().all_below():
        assert len(parameter.description.split()) >= 3, f"{parameter.key} needs a description"
        assert not parameter.description.endswith((".", ";")), parameter.key
        lines = explain(parameter.key).splitlines()
        assert lines[0] == f"{parameter.key}: {parameter.description}"
        if parameter.children:
            assert [line.split()[0] for line in lines[1:]] == list(parameter.children)
        else:
            assert lines[-1].startswith("  default  ")
            assert parameter.choices or f"  takes    {parameter.values}" in lines


def test_an_explanation_holds_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    output = CliRunner().invoke(stages_main, ["params", "--explain", "distill_student.flow.schedule"]).output
    width = max(map(len, SCHEDULES))
    assert f"    {'rectified':{width}}  the straight path, whose true velocity is constant\n" in output
    assert f"    {'vp':{width}}  variance preserving (Song et al. 2021)\n" in output
    assert f"    {'ve':{width}}  variance exploding (Song et al. 2021)\n" in output
    assert output.splitlines() == [
        "distill_student.flow.schedule: path from student to teacher",
        "  one of",
        *(f"    {name:{width}}  {entry.description}" for name, entry in SCHEDULES.items()),
        "  default  rectified",
    ]
    listed = CliRunner().invoke(stages_main, ["params"]).output
    assert listed == overview() + "\n"
    assert [line.split()[0] for line in listed.splitlines()] == list(Params.model_fields)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("distill_student.training.epochs", "takes    an integer >= 0\n  default  18"),
        ("train_teacher.training.epochs", "takes    an integer >= 0\n  default  12"),
        ("train_teacher.std", "takes    a list of 3, each a number > 0, or null\n  default  null"),
        ("distill_student.feature_pairs", "takes    a list of at least one, each a list of 2, each an integer >= 1"),
        ("base.deterministic", "takes    true or false\n  default  true"),
        ("base.device", "takes    auto, cpu, cuda, or cuda:N with the number of a GPU"),
        ("export_tensorrt.precisions", f"any of\n    {'fp32':{ENGINE_WIDTH}}  float32, as trained\n"),
        ("execution.compile", "one of\n    auto\n    always\n    never\n  default  auto"),
    ],
)
def test_an_explanation_says_what_a_key_takes_and_its_default(key: str, words: str) -> None:
    assert words in explain(key)


@pytest.mark.parametrize("section", ["train_teacher", "distill_student"])
def test_an_explanation_lists_all_backbones(section: str) -> None:
    listed = re.findall(r"[\w]+", explain(f"{section}.backbone"))
    for source in BACKBONE_SOURCES.values():
        if not source.how_to_list:
            assert source.names is not None
            assert set(source.names()) <= set(listed)
    assert {"list_models", "FUNCTION"} <= set(listed), "or it is said how they are listed"


@pytest.mark.parametrize(
    "words", [["preset", "digits"], ["preset"], ["params"], ["compare", "a", "--out", "b", "--report", "c"]]
)
def test_commands_that_read_yaml_say_what_a_device_lacks(words: list[str], tmp_path: Path) -> None:
    """Where only a package is used there is no YAML."""
    code = f"import sys; sys.modules['ruamel.yaml'] = None; from stages.__main__ import main; main({words!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: the Python package ruamel.yaml is not installed; make install\n",
    )


@pytest.mark.parametrize(
    ("loss", "num_classes", "words"),
    [
        (
            "dist",
            2,
            ["loss: dist of 2 classes: its correlation of classes (beta) is constant", "kd or mse work"],
        ),
        ("dkd", 2, ["loss: dkd of 2 classes: its part on the classes among the others (beta) is constant"]),
        ("dist", 3, []),
        ("kd", 2, []),
    ],
)
def test_a_criterion_that_is_idle_in_part_is_named(loss: str, num_classes: int, words: list[str]) -> None:
    found = list(DistillStudent(loss=loss).warnings(num_classes))
    assert len(found) == bool(words)
    assert all(word in found[0] for word in words)
    assert not list(DistillStudent(loss=loss, method="none").warnings(num_classes))


@pytest.mark.parametrize("loss", [name for name, entry in CRITERIA.items() if LOGITS in entry.applies_to])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_what_is_called_idle_has_no_gradient(loss: str, num_classes: int) -> None:
    """The part weighted by beta alone; a criterion without such a part has a gradient with two classes."""
    entry = CRITERIA[loss]
    settings = entry.settings() if entry.settings is not None else None
    known = set(type(settings).model_fields) - {"warmup_epochs"} if settings is not None else set()
    values = {name: getattr(settings, name) for name in known}
    values |= {name: float(name == "beta") for name in ("alpha", "beta", "gamma") if "beta" in known and name in known}
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(16, num_classes, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(16, num_classes, generator=generator, dtype=torch.float64)
    labels = [torch.randint(num_classes, (16,), generator=generator)] if entry.takes_labels else []
    (gradient,) = torch.autograd.grad(entry.load()(student, teacher, *labels, **values), student)
    assert (gradient.abs().max() > 1e-6) == (num_classes >= entry.whole_from_classes)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("num_steps", "unknown parameter 'num_steps'; did you mean distill_student.flow.num_steps? the sections are"),
        ("distill_student.flow.stepz", "distill_student.flow has num_steps, schedule,"),
        ("base.sed", "did you mean base.seed? base has seed, device"),
        ("engine", "unknown parameter 'engine'; did you mean execution? the sections are"),
        ("base.seed.x", "base.seed has no keys"),
        ("", "the sections are base, execution"),
    ],
)
def test_an_unknown_key_cannot_be_explained(key: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        explain(key)
    assert words in str(caught.value)


def test_batches_of_engines_are_checked_alone() -> None:
    with pytest.raises(ValueError, match="must not decrease, got 9, 8, 64"):
        ExportTensorrt(min_batch=9)
