"""The project in small: parameters with which its whole chain takes seconds, and a copy to run it in."""

import copy
import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.params.presets import DEFAULT, render_preset
from pipeline.preflight.code import PROJECT

TINY = {
    "base.num_threads": 1,
    "prepare_data.max_train_images": 300,
    "train_teacher.backbone": "resnet8",
    "train_teacher.training.epochs": 6,
    "train_teacher.training.batch_size": 32,
    "train_teacher.training.schedule.warmup_epochs": 0,
    "distill_student.allow_larger": True,
    "distill_student.training.epochs": 6,
    "distill_student.training.batch_size": 32,
    "distill_student.training.schedule.warmup_epochs": 0,
    "calibrate_steps.candidates": [1, 2],
    "export_onnx.precisions": ["fp32", "int8-cpu"],
    "export_onnx.gates.int8-cpu.min_agreement": 0.8,
    "export_onnx.gates.int8-cpu.max_drop": 0.1,
    "export_tensorrt.precisions": ["fp32"],
    "measure_tradeoff.precisions": ["fp32"],
    "measure_tradeoff.iterations": 10,
    "evaluate.latency_iterations": 10,
}
"""Changes to the default parameters with which the whole chain takes seconds."""

PARTS = (
    "models",
    "pipeline",
    "stages",
    "presets",
    "dvc.yaml",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
)
"""Files and folders of this repository with which a chain runs."""


def copy_project(root: Path, changes: Mapping[str, Any]) -> None:
    """Copy what a chain runs with into ``root``, beside the default parameters with ``changes``."""
    for name in PARTS:
        source, target = PROJECT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    write_params(root / "params.yaml", changes)


@functools.cache
def default_params() -> str:
    """Return the text of a fresh clone's parameters file, whatever the working one holds."""
    return render_preset(PROJECT / "presets", DEFAULT)


@functools.lru_cache(maxsize=4)
def _plain(text: str) -> Any:
    return _yaml().load(text)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    return yaml


def write_params(path: Path, changes: Mapping[str, Any], base: Path | None = None) -> Path:
    """Write the parameters in ``base``, or the default ones, with ``changes`` (dotted key to value) to ``path``.

    Their comments are left out, which takes half the time.
    """
    content = copy.deepcopy(_plain(base.read_text() if base else default_params()))
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = content
        for section in sections:
            target = target[section]
        target[last] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        _yaml().dump(content, file)
    return path
