"""What it is worth to start from weights: a student on 2,000 images of CIFAR-10, from scratch and from given weights.

    python -m benchmarks.fine_tuning data/cifar10 --out runs/fine_tuning --output benchmarks/results/fine_tuning.json

CIFAR-10 is given as folders, train/CLASS and test/CLASS. Five of its classes, every other one by name, are the task:
400 images of each to train on, 100 to calibrate on, and all their test images. The weights come from the five others,
of which all training images are taken, so that no image and no class is seen twice. Everything runs through the stages,
the seeds and methods through the comparison: both students have the same recipe and the same number of epochs. A third
one from scratch has three times as many.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.measuring import output_option, write_result
from pipeline.comparison.config import folder_name
from pipeline.params.presets import PRESETS, load_preset
from pipeline.preflight.stage_table import command_line

ROOT = Path(__file__).parent.parent
SCRATCH, STARTED, LONGER = "from scratch", "from given weights", "from scratch three times as long"
TRAIN, CALIB = 400, 100
"""Images of each class of the task."""
DATA = {"source": "imagefolder", "image_size": 32, "download": False}
OPTIMIZER = {"name": "sgd", "learning_rate": 0.05, "weight_decay": 5e-4}


def link_images(cifar: Path, out: Path) -> dict[str, list[str]]:
    """Lay links to the images into the folders ``task`` and ``other`` of ``out``; return the classes of each."""
    classes = sorted(path.name for path in (cifar / "train").iterdir() if path.is_dir())
    found = {"task": classes[::2], "other": classes[1::2]}
    for part, names in found.items():
        for name in names:
            images = sorted((cifar / "train" / name).iterdir())
            splits = {"train": images, "test": sorted((cifar / "test" / name).iterdir())}
            if part == "task":
                splits |= {"train": images[:TRAIN], "val": images[TRAIN : TRAIN + CALIB]}
            for split, files in splits.items():
                folder = out / part / split / name
                folder.mkdir(parents=True, exist_ok=True)
                for file in files:
                    link = folder / file.name
                    if not link.is_symlink():
                        link.symlink_to(file.resolve())
    return found


def changes(root: Path, *, backbone: str, epochs: int) -> dict[str, Any]:
    """Return what the runs change of the preset cifar10."""
    training = {"epochs": epochs, "precision": "auto", "batch_size": 128}
    schedule = {"name": "cosine", "warmup_epochs": 1, "milestones": [], "gamma": 0.1}
    return {
        "base.num_threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "prepare_data.root": str(root.resolve()),
        **{f"prepare_data.{key}": value for key, value in DATA.items()},
        "distill_student.method": "none",
        "distill_student.backbone": backbone,
        **{f"distill_student.training.{key}": value for key, value in training.items()},
        **{f"distill_student.training.optimizer.{key}": value for key, value in OPTIMIZER.items()},
        "distill_student.training.schedule": schedule,
        "evaluate.latency_iterations": 10,
    }


def write_params(path: Path, values: dict[str, Any]) -> None:
    """Write the preset cifar10 with ``values`` (dotted key to value) to ``path``."""
    content: Any = load_preset(PRESETS, "cifar10").model_dump(mode="json")
    for key, value in values.items():
        *sections, last = key.split(".")
        target = content
        for section in sections:
            target = target[section]
        target[last] = value
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(content, file)


def run(words: list[str]) -> float:
    """Run ``python -m`` with ``words`` from the root of the project and return its seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True)
    return round(time.perf_counter() - started, 1)


def train_weights(out: Path, values: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Train on the other classes, once with the same ``values``; return the file of weights and what is said of it."""
    folder = out / f"weights-{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]}"
    folder.mkdir(exist_ok=True)
    write_params(folder / "params.yaml", values)
    student = {
        "data": folder / "data",
        "teacher": folder / "teacher",  # the method has none
        "out": folder / "student",
        "metrics": folder / "student.json",
        "history": folder / "history.csv",
    }
    if not (folder / "student").exists():
        run(command_line("prepare_data", {"out": folder / "data"}, folder / "params.yaml"))
        seconds = run(command_line("distill_student", student, folder / "params.yaml"))
        (folder / "seconds").write_text(str(seconds))
    report = json.loads((folder / "student.json").read_text())
    return folder / "student/model.safetensors", {
        "val_accuracy": report["val_accuracy"],
        "seconds": float((folder / "seconds").read_text()),
    }


def write_comparison(path: Path, values: dict[str, Any], weights: Path, *, epochs: int, seeds: int) -> None:
    """Write what trains the students with each seed to ``path``."""
    content = {
        "title": "Starting from given weights",
        "preset": "cifar10",
        "changes": values,
        "seeds": [*range(seeds)],
        "baseline": SCRATCH,
        "methods": {
            SCRATCH: {"distill_student.weights": None},
            STARTED: {"distill_student.weights": str(weights.resolve())},
            LONGER: {"distill_student.training.epochs": 3 * epochs},
        },
    }
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(content, file)


def row(out: Path, method: str, seeds: int) -> dict[str, Any]:
    """Return what was found of ``method``."""
    folders = [out / "runs/trials" / f"{folder_name(method)}-{seed}" for seed in range(seeds)]
    scores = [100 * json.loads((folder / "evaluation.json").read_text())["accuracy"] for folder in folders]
    return {
        "method": method,
        "test_accuracy_percent": [round(score, 2) for score in scores],
        "mean": round(statistics.mean(scores), 2),
        "standard_deviation": round(statistics.stdev(scores), 2) if len(scores) > 1 else None,
        "seconds": [json.loads((folder / "done.json").read_text())["seconds"] for folder in folders],
    }


@click.command()
@click.argument("cifar", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for runs; what is done stays done.")
@output_option
@click.option("--backbone", default="resnet8_x0_5", show_default=True)
@click.option("--weights-epochs", default=10, show_default=True, help="Epochs on the other classes.")
@click.option("--epochs", default=20, show_default=True, help="Epochs of each student.")
@click.option("--seeds", default=3, show_default=True)
def main(
    cifar: Path, out: Path, output: Path | None, backbone: str, weights_epochs: int, epochs: int, seeds: int
) -> None:
    """Print what students of CIFAR, a folder, reach from scratch and from given weights."""
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    classes = link_images(cifar, out)
    weights, about = train_weights(out, changes(out / "other", backbone=backbone, epochs=weights_epochs))
    comparison, values = out / "comparison.yaml", changes(out / "task", backbone=backbone, epochs=epochs)
    write_comparison(comparison, values, weights, epochs=epochs, seeds=seeds)
    places = {"--out": out / "runs", "--report": out / "report", "--jobs": "1"}
    run(["stages", "compare", str(comparison), *(str(word) for pair in places.items() for word in pair)])
    protocol = (
        f"{backbone}; task: {TRAIN} training, {CALIB} calibration and all test images of each of "
        f"{len(classes['task'])} classes, {epochs} epochs of batches of 128, SGD at 0.05 with momentum 0.9, cosine, "
        f"one epoch of warm-up, shifted crops and flips; weights: the same for {weights_epochs} epochs on all training "
        "images of the other classes; the output layer is new in both; a seed decides about weights, order and crops"
    )
    rows = [row(out, method, seeds) for method in (SCRATCH, STARTED, LONGER)]
    for found in rows:
        click.echo(f"{found['method']:35} {found['mean']:6.2f} ({found['standard_deviation']})  {found}")
    write_result(output, protocol=protocol, classes=classes, weights=about, students=rows)


if __name__ == "__main__":
    main()
