"""The model card: Markdown made of recorded facts alone."""

import re
from collections.abc import Mapping, Sequence
from string import Template
from typing import NamedTuple

from pipeline.core.files import Json
from pipeline.core.likelihood_line import likelihood_line
from pipeline.core.printable import printable
from pipeline.core.records import started_lines
from pipeline.core.text_table import with_error
from pipeline.export.precisions import FP32, PRECISIONS
from pipeline.package.about import origin_rows
from pipeline.package.card_example import FITTINGS, PIXELS
from pipeline.package.card_files import file_row, what_differs
from pipeline.package.card_outputs import what_outputs_mean
from pipeline.package.clients import client_rows
from pipeline.package.reader import Package
from pipeline.tasks.base import Row, Task

TEMPLATE = """\
# $name $version
$warnings
$description

| | student (this package) | teacher |
|---|---|---|
| $primary, $num_images test images, with its standard error | $score | $teacher_score |
| parameters | $num_parameters | $teacher_parameters |
$other_scores
$plain
Backbone `$backbone`, method `$method`, images of $image_size pixels, $num_names classes.
Sampling steps: $num_steps ($reason).$likelihood$started

| file (opset $opset) | bytes | $primary | largest difference | same answer as trained | TensorRT 10, 11 |
|---|---:|---:|---:|---:|---|
$files

$differences $precisions.
The last column is a static check against the published operator tables; the builder on the target decides.

## Use it

With Python 3.10 or later, and nothing of the project:

```bash
pip install -r requirements-edge.txt
python fmkt.pyz verify
python fmkt.pyz predict ../image.png
```

Keep pictures, results and Python environments out of this folder: `verify` refuses what its sums do not list.
`python fmkt.pyz --help` names the other commands. In a program of your own:

```python
import json
import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded: from 1.31 on it sends events to its maker

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

preprocessing = json.load(open("preprocessing.json"))
labels = json.load(open("labels.json"))["labels"]
height, width = preprocessing["image_size"]

image = ImageOps.exif_transpose(Image.open("image.png")).convert("RGB")
$fitting
$pixels
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
$usage
```

Normalisation is inside the graph.$outputs
`sha256sum -c SHA256SUMS` tells whether the package is whole. $signed

`samples.safetensors` holds test images with the outputs that the trained network gives them.
`triton` has configurations for NVIDIA Triton, from which
`python fmkt.pyz triton-repository --out ../models` puts a model repository together.

## Ask a server

`python fmkt.pyz serve` serves this package (`pip install -r requirements-serve.txt` first). An image file, sent as it
is, is answered with the JSON that `python fmkt.pyz predict --json` prints:

```bash
curl --data-binary @image.png http://localhost:8000/predict
```

Programs to start from, each of them whole; its first lines say how it is run:

| program | |
|---|---|
$clients

## What it gets right, and what it takes for what

![Some of the test images with what is found on them, drawn at random](predictions.jpg)

$classes_title

$classes

![Confusion of the classes on the test images](confusion.png)

## Accuracy and latency

Each number of steps in each precision: $primary on the test images, and the median latency of a call. Those of
the Pareto front are beaten in both by no other. The last column has the file of a point that is in this package.

![$primary against latency](tradeoff.svg)

| steps | precision | $primary | bytes | latency, ms | Pareto front | file |
|---|---|---:|---:|---:|---|---|
$points

Protocol: $protocol. Latency differs from host to host.

## Calibration of the sampling steps

On images held out from training, not on the test images above.

$steps

## Where it comes from

$origin

Written with $versions.

Method: Shao, Shen, Gong, Chen, Dai, "Precise Knowledge Transfer via Flow Matching", arXiv 2402.02012.
"""


SIGNED = """\
Its sums are signed; before you run anything of it,
`ssh-keygen -Y verify -f allowed_signers -I NAME -n fmkt-package -s SHA256SUMS.sig < SHA256SUMS` tells whether by a
signer whom you trust: `allowed_signers` is your own file, with a line for each name and its public key."""
NOT_SIGNED = "It is not signed: sums that agree do not tell who made it."
LISTED_CLASSES = 20
"""Classes that the card lists."""


class Facts(NamedTuple):
    """What the card says beside what the package itself says."""

    description: str
    metadata: Mapping[str, str]
    """That of the ONNX file."""
    student: Json
    """Scores of ONNX Runtime on the test split, and the number of parameters."""
    teacher: Json
    """Report of the teacher."""
    calibration: Json
    tradeoff: Json
    classes: Sequence[Row]
    """Figures of each class on the test split, the worst class first."""
    likelihood: Sequence[Row]
    """What theorem 3.1 says of the steps that deploy; empty where nothing that deploys is compared with a teacher."""
    is_signed: bool


def model_card(package: Package, facts: Facts) -> str:
    """Return the card of ``package``."""
    task, manifest, metadata = package.task, package.manifest, facts.metadata
    student, teacher, calibration = facts.student, facts.teacher, facts.calibration
    score = teacher.get(f"test_{task.primary}")
    return Template(TEMPLATE).substitute(
        name=package.name,
        warnings=_warnings_block(package.warnings),
        description=facts.description,
        primary=task.primary_title,
        backbone=metadata["backbone"],
        method=metadata["method"],
        num_steps="none" if calibration["num_steps"] is None else calibration["num_steps"],
        reason=calibration["reason"],
        likelihood="".join(f"\nBy {likelihood_line(row)}." for row in facts.likelihood),
        started="".join(f"\n{line}." for line in started_lines(teacher, student)),
        num_names=len(package.class_names),
        image_size=" x ".join(map(str, package.image_size)),
        num_images=student["num_images"],
        score=with_error(student[task.primary], student.get(task.primary_error)),
        other_scores="\n".join(f"| {title} | {value} | |" for title, value in task.card_rows(student)),
        num_parameters=f"{student['num_parameters']:,}",
        plain=_beside_plain(student["num_parameters"], calibration, facts.tradeoff),
        teacher_score="no teacher" if score is None else with_error(score, teacher.get(f"test_{task.primary_error}")),
        classes_title=_classes_title(facts.classes, student["num_images"]),
        classes=_class_table(facts.classes[:LISTED_CLASSES]),
        teacher_parameters=f"{teacher['num_parameters']:,}" if "num_parameters" in teacher else "no teacher",
        opset=manifest["opset"],
        files="\n".join(file_row(name, manifest["files"][name], task) for name in sorted(manifest["files"])),
        differences=what_differs(manifest["files"], student["num_images"]),
        precisions="; ".join(f"`{name}`: {PRECISIONS[name].description}" for name in package.files),
        fitting=FITTINGS[task.resize],
        pixels=PIXELS[package.input_dtype],
        usage=task.card_usage(),
        outputs=what_outputs_mean(package),
        signed=SIGNED if facts.is_signed else NOT_SIGNED,
        clients=client_rows(task),
        points="\n".join(_point_row(point, package) for point in facts.tradeoff["points"]),
        protocol=facts.tradeoff["protocol"],
        steps=_steps_table(calibration["curve"], task),
        version=manifest["about"]["version"],
        origin="\n".join(f"- {title}: {_plain(value)}" for title, value in origin_rows(manifest["about"])),
        versions=", ".join(_versions(metadata)),
    )


def _beside_plain(num_parameters: int, calibration: Json, tradeoff: Json) -> str:
    """Return a table of the student beside the plain one; nothing where it is the plain one."""
    size, timed = calibration.get("plain"), tradeoff["plain"]
    if size is None or timed is None:
        return ""
    chosen = next(point for point in calibration["curve"] if point["num_steps"] == calibration["num_steps"])
    own, plain = (num_parameters, chosen["macs"]), (size["num_parameters"], size["macs"])
    ratios = [f"{mine / other:.2f}x" for mine, other in zip(own, plain, strict=True)]
    measured = [
        point["latency_ms"]
        for point in tradeoff["points"]
        if (point["num_steps"], point["precision"]) == (calibration["num_steps"], FP32)
    ]
    latency = [f"{milliseconds:.3f}" for milliseconds in (timed["latency_ms"], *measured)]
    if measured:
        ratios.append(f"{measured[0] / timed['latency_ms']:.2f}x")
    rows = [
        ["", "parameters", "multiply-adds", "latency of fp32, ms"],
        ["---", "---:", "---:", "---:"],
        ["plain student, without sampling steps", *(f"{value:,}" for value in plain), latency[0]],
        [f"this student, {_steps(chosen)} step(s)", *(f"{value:,}" for value in own), *(latency[1:] or ["-"])],
        ["ratio", *ratios, *([] if measured else ["-"])],
    ]
    return "\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _warnings_block(warnings: Sequence[str]) -> str:
    """Return what is to be read before anything else; nothing where nothing was warned of."""
    if not warnings:
        return ""
    return "\n".join(
        [
            "",
            "> **Read this first.** While this model was made, its stages warned:",
            ">",
            *(f"> - {text}" for text in warnings),
            "",
        ]
    )


def _classes_title(classes: Sequence[Row], num_images: int) -> str:
    shown = f"The {LISTED_CLASSES} worst of {len(classes)} classes" if len(classes) > LISTED_CLASSES else "Each class"
    return f"{shown}, the worst first, on the {num_images:,} test images:"


def _class_table(classes: Sequence[Row]) -> str:
    columns = list(classes[0])
    rows = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    rows += [[_plain(row[column]) for column in columns] for row in classes]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _point_row(point: Json, package: Package) -> str:
    file = package.files.get(point["precision"]) if point["num_steps"] == package.manifest["num_steps"] else None
    cells = [
        _steps(point),
        point["precision"],
        f"{point[package.task.primary]:.2%}",
        f"{point['bytes']:,}",
        f"{point['latency_ms']:.3f}",
        "yes" if point["on_the_front"] else "",
        "" if file is None else f"`{file.name}`",
    ]
    return f"| {' | '.join(cells)} |"


def _steps(point: Json) -> str:
    return "-" if point["num_steps"] is None else str(point["num_steps"])


def _steps_table(curve: list[Json], task: Task) -> str:
    """Return the table of the calibration, a row for each number of steps."""
    titles = [title for title, _ in task.card_rows(curve[0])]
    rows = [["steps", task.primary_title, *titles, "multiply-adds"]]
    rows.append(["---"] * len(rows[0]))
    for point in curve:
        others = [value for _, value in task.card_rows(point)]
        rows.append([_steps(point), f"{point[task.primary]:.2%}", *others, f"{point['macs']:,}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _versions(metadata: Mapping[str, str]) -> list[str]:
    suffix = "_version"
    return [f"{key.removesuffix(suffix)} {metadata[key]}" for key in sorted(metadata) if key.endswith(suffix)]


def _plain(text: str) -> str:
    """Return ``text``, in which the user's folders and files may be named, so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", printable(text))
