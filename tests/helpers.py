"""Small builders for the tests."""

import functools
import io
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import Result
from PIL import Image
from ruamel.yaml import YAML

from pipeline.params.presets import DEFAULT, render_preset

ROOT = Path(__file__).parent.parent

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

SPLIT_LAYOUT = {"train/cat": 12, "train/dog": 14, "test/cat": 3, "test/dog": 4}


PROJECT = (
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
    for name in PROJECT:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    write_params(root / "params.yaml", changes)


@functools.cache
def default_params() -> str:
    """Return the text of a fresh clone's parameters file, whatever the working one holds."""
    return render_preset(ROOT / "presets", DEFAULT)


def write_params(path: Path, changes: Mapping[str, Any], base: Path | None = None) -> Path:
    """Write the parameters in ``base``, or the default ones, with ``changes`` (dotted key to value) to ``path``."""
    yaml = YAML()
    content = yaml.load(base.read_text() if base else default_params())
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = content
        for section in sections:
            target = target[section]
        target[last] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        yaml.dump(content, file)
    return path


def image_bytes(*, size: tuple[int, int] = (8, 6), mode: str = "RGB", kind: str = "PNG", seed: int = 0) -> bytes:
    """Return an encoded image of random pixels; ``size`` is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def fill_folder(root: Path, layout: dict[str, int], **options: Any) -> Path:
    """Write ``count`` images into each folder of ``layout`` (relative name to count)."""
    for number, (name, count) in enumerate(layout.items()):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (folder / f"{i:03}.png").write_bytes(image_bytes(seed=1000 * number + i, **options))
    return root


def refused(result: Result, *words: str) -> None:
    """Assert one error line with ``words`` and exit code 2."""
    assert result.exit_code == 2, result.output
    errors = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert all(word in errors[0] for word in words), errors[0]


def make_archive(images: Path, kind: str) -> Path:
    path = images.parent / f"images.{kind}"
    if kind.lower() == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(images.rglob("*"), reverse=True):
                archive.write(file, file.relative_to(images))
    else:
        mode: Any = f"w:{kind.lower().rpartition('.')[2]}" if "." in kind else "w"
        with tarfile.open(path, mode) as archive:
            archive.add(images, "some/where" if kind.startswith("nested") else ".")
    return path
