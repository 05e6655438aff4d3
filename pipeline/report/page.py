"""One page that shows a run: all in one file, so that it opens anywhere and without a network."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from string import Template

from pipeline.core.files import Json
from pipeline.core.likelihood_line import likelihood_line
from pipeline.core.records import by_precision, same_answers, started_lines
from pipeline.core.text_table import with_error
from pipeline.report.records import Results
from pipeline.tasks.base import Row

NO_TEACHER = "no teacher"
LISTED = 50
"""Mistakes that the page lists."""
TYPES = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}
PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 84em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1em 0; display: inline-block; vertical-align: top; }
img { max-width: 100%; }
.charts img { width: 40em; }
.warning { background: #fff3cd; border-left: 4px solid #d39e00; padding: .6em 1em; margin: .5em 0; }
</style>
</head>
<body>
<h1>$title</h1>
$sections
</body>
</html>
""")


def report_page(results: Results, charts: Sequence[Path], galleries: Sequence[Path]) -> str:
    """Return the page; ``charts`` and ``galleries`` are image files that become part of it."""
    review = results.review
    classes = [review.classes[i] for i in review.worst_first]
    sections = [
        *(f'<p class="warning">{html.escape(text)}</p>' for text in results.warnings),
        _headline(results),
        "<h2>Files</h2>",
        _files(results),
        "<h2>Plots</h2>",
        f'<div class="charts">{"".join(map(_image, charts))}</div>',
        "<h2>Images</h2>",
        f"<p>{html.escape(review.summary)}; reports/mistakes.csv names them all.</p>",
        *map(_image, galleries),
        "<h2>Classes, the worst first</h2>",
        f"<p>{html.escape(review.class_note)}</p>",
        _table(review.class_columns, classes),
        "<h2>The surest mistakes</h2>",
        _table(review.mistake_columns, review.mistakes[:LISTED]) if review.mistakes else "<p>None.</p>",
    ]
    return PAGE.substitute(title=html.escape(results.tradeoff["network"]), sections="\n".join(sections))


def _headline(results: Results) -> str:
    """Return what the networks are and score."""
    task, teacher, student = results.task, results.teacher, results.student
    primary, split = task.primary, f"test, {len(results.rows):,} images"
    num_steps = results.calibration["num_steps"]
    chosen = next(point for point in results.calibration["curve"] if point["num_steps"] == num_steps)
    rows = [
        [
            f"{task.primary_title} ({split})",
            _score(teacher, f"test_{primary}", f"test_{task.primary_error}"),
            _score(results.trained, primary, task.primary_error),
            _score(results.evaluation, primary, task.primary_error),
        ],
        ["parameters", _known(teacher, "num_parameters"), _count(student["num_parameters"]), ""],
        ["multiply-adds", _known(teacher, "macs"), _count(chosen["macs"]), ""],
        ["sampling steps K", "", "none" if num_steps is None else str(num_steps), ""],
    ]
    header = ["", "teacher, PyTorch", "student, PyTorch", "student, ONNX Runtime fp32"]
    plain = results.calibration.get("plain")
    if plain is not None:
        header.append("plain student, without its flow")
        for row, cell in zip(rows, ["", _count(plain["num_parameters"]), _count(plain["macs"]), "none"], strict=True):
            row.append(cell)
    reason = html.escape(results.calibration["reason"])
    likely = results.deployed_likelihood
    theorem = f"<p>{html.escape(likelihood_line(likely))}</p>" if likely else ""
    started = "".join(f"<p>{html.escape(line)}.</p>" for line in started_lines(teacher, student))
    return _cells(header, rows) + f"<p>Behind +/- stands the standard error. K: {reason}.</p>{theorem}{started}"


def _files(results: Results) -> str:
    """Return the ONNX files with size, score, parity and latency."""
    figures = by_precision(results.evaluation)
    sizes = sorted(results.evaluation["latency_ms"], key=int)
    header = ["file", "bytes", f"{results.task.primary_title}, test", "same answer as trained"]
    rows = []
    for name, entry in sorted(results.manifest["files"].items()):
        found = figures[entry["precision"]]
        scores = [
            _score(found, results.task.primary, results.task.primary_error),
            same_answers(found["parity"]),
        ]
        latency = [f"{found['latency_ms'][size]['p50']:.3f}" for size in sizes]
        rows.append([name, f"{entry['bytes']:,}", *scores, *latency])
    protocol = html.escape(results.evaluation["protocol"])
    header += [f"batch {size}, median ms" for size in sizes]
    return _cells(header, rows) + f"<p>Latency: {protocol}.</p>"


def _score(report: Json, key: str, error: str) -> str:
    return with_error(report[key], report.get(error)) if key in report else NO_TEACHER


def _count(value: int) -> str:
    return f"{value:,}"


def _known(teacher: Json, key: str) -> str:
    if key not in teacher:
        return NO_TEACHER
    return "unknown" if teacher[key] is None else _count(teacher[key])


def _table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    return _cells(columns, [[row[column] for column in columns] for row in rows])


def _cells(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img alt="{html.escape(path.stem)}" src="data:{TYPES[path.suffix]};base64,{data}"></figure>'
