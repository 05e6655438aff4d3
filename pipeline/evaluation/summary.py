"""The result of a run as one table, taken from the reports of the stages."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.files import Json, read_csv
from pipeline.core.likelihood_line import likelihood_line, likelihood_of
from pipeline.core.records import (
    CalibrationRecord,
    EvaluationRecord,
    ManifestRecord,
    StudentNetworkRecord,
    StudentRecord,
    TeacherRecord,
    TradeoffRecord,
    by_precision,
    collect_warnings,
    read_record,
    same_answers,
    started_lines,
)
from pipeline.core.text_table import aligned, described, with_error, wrapped
from pipeline.evaluation.runtimes import RUNTIMES
from pipeline.export.precisions import FP32, PRECISIONS
from pipeline.runtimes.fastest import fastest_in_words
from pipeline.tasks.base import Task
from pipeline.tasks.table import exported_task

EVALUATION = Path("reports/evaluation")
PAGE = "artifacts/report/report.html"
PACKAGE = "artifacts/package"
ONNX = "onnx"
"""The runtime whose report has a row for each file."""


def summarize(root: Path) -> str:
    """Return the summary of the run in the project folder ``root``, for a terminal.

    Raises:
        UserError: a report is missing.
    """
    teacher = read_record(root / "reports/teacher.json", TeacherRecord)
    student = read_record(root / "reports/student.json", StudentRecord)
    network = read_record(root / "artifacts/student/network.json", StudentNetworkRecord)
    calibration = read_record(root / "artifacts/calibration/calibration.json", CalibrationRecord)
    manifest = read_record(root / "artifacts/onnx/manifest.json", ManifestRecord)
    tradeoff = read_record(root / "artifacts/tradeoff/tradeoff.json", TradeoffRecord)
    task = exported_task(manifest)
    reports = {name: root / EVALUATION / f"{name}.json" for name in RUNTIMES}
    runs = {
        name: read_record(path, EvaluationRecord) for name, path in reports.items() if name == ONNX or path.exists()
    }
    chosen = next(point for point in calibration["curve"] if point["num_steps"] == calibration["num_steps"])
    header = ["", "teacher", *(f"student, {name}" for name in runs)]
    empty = [""] * (len(runs) - 1)
    rows = [
        [
            task.primary_title,
            _score(teacher, f"test_{task.primary}", f"test_{task.primary_error}", "none"),
            *(_score(run, task.primary, task.primary_error, "skipped") for run in runs.values()),
        ],
        ["parameters", _known(teacher, "num_parameters"), _relative(network, teacher, "num_parameters"), *empty],
        ["multiply-adds", _known(teacher, "macs"), _relative(chosen, teacher, "macs"), *empty],
        *_runtime_rows(list(runs.values())),
    ]
    warnings = collect_warnings(teacher, student, manifest, runs[ONNX], tradeoff)
    lines = described(
        [
            ("ships", f"method {network['method']}, backbone {network['backbone']}{_steps(calibration)}: {PACKAGE}"),
            ("how good", f"{rows[0][0]} {rows[0][2 + list(runs).index(ONNX)]} {_tested(runs[ONNX])}; {_taught(rows)}"),
            ("how large", _size(network, chosen, teacher)),
            ("how fast", _fastest(manifest, runs[ONNX])),
            ("how sure", f"{_same(runs[ONNX])}; {_warned(warnings)}"),
            *(("from", line) for line in started_lines(teacher, student)),
            *_reasons(root, calibration),
        ]
    )
    lines += ["", *aligned(header, rows), ""]
    lines += [*_files(manifest, runs[ONNX], task), ""]
    if tradeoff["plain"] is not None and calibration.get("plain") is not None:
        lines += [*_beside_plain(network, chosen, calibration["plain"], tradeoff["plain"], runs[ONNX]), ""]
    notes = [f"{name} was skipped: {run['reason']}" for name, run in runs.items() if run["status"] == "skipped"]
    notes += [f"warning: {text}" for text in warnings]
    lines += [line for note in notes for line in wrapped(note)]
    return "\n".join([*lines, *_where_to_look(root)])


def _steps(calibration: Json) -> str:
    steps = calibration["num_steps"]
    return "" if steps is None else f", {steps} sampling step" + "s" * (steps != 1)


def _size(network: Json, chosen: Json, teacher: Json) -> str:
    """Return the student's parameters and multiply-adds, each with its share of the teacher's where that is known."""

    def share(content: Json, key: str) -> str:
        return f", {content[key] / teacher[key]:.1%} of the teacher's" if teacher.get(key) else ""

    return (
        f"{network['num_parameters']:,} parameters{share(network, 'num_parameters')}; "
        f"{chosen['macs']:,} multiply-adds{share(chosen, 'macs')}"
    )


def _tested(report: Json) -> str:
    return f"on {report['num_images']:,} test images"


def _taught(rows: Sequence[Sequence[str]]) -> str:
    return f"the teacher's {rows[0][1]}" if rows[0][1] != "none" else "no teacher"


def _same(report: Json) -> str:
    file, share = PRECISIONS[FP32].file_name, same_answers(report["parity"])
    return f"{file} and the trained network give the same answer for {share}"


def _warned(warnings: Sequence[str]) -> str:
    return f"{len(warnings)} warning{'s' * (len(warnings) != 1)} below" if warnings else "no warnings"


def _reasons(root: Path, calibration: Json) -> Iterator[tuple[str, str]]:
    """Yield why so many sampling steps, and what theorem 3.1 says of them."""
    steps = calibration["num_steps"]
    if steps is not None:
        yield f"why K = {steps}", calibration["reason"]
        likely = likelihood_of(read_csv(root / "reports/likelihood.csv"), steps)
        if likely is not None:
            yield "how close", likelihood_line(likely)


def _beside_plain(network: Json, chosen: Json, size: Json, timed: Json, report: Json) -> list[str]:
    """Return a table of the deployed student beside the plain one, without sampling steps, and their ratios."""
    batches = sorted(report["latency_ms"].keys() & timed.get("latency_by_batch_ms", {}).keys(), key=int)
    own = [network["num_parameters"], chosen["macs"], *(report["latency_ms"][size]["p50"] for size in batches)]
    plain = [size["num_parameters"], size["macs"], *(timed["latency_by_batch_ms"][size] for size in batches)]
    header = ["fp32", "parameters", "multiply-adds", *(f"batch {size}, ms" for size in batches)]
    rows = [
        ["plain student, without sampling steps", *map(_figure, plain)],
        [f"student as deployed, K = {chosen['num_steps']}", *map(_figure, own)],
        ["ratio", *(f"{mine / other:.2f}x" for mine, other in zip(own, plain, strict=True))],
    ]
    return aligned(header, rows)


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _where_to_look(root: Path) -> list[str]:
    """Return where the rest of the result is; the report's files only where it was written."""
    lines = []
    if (root / PAGE).exists():
        lines += [
            f"all of it on one page: {PAGE}",
            "what it gets wrong: reports/mistakes.csv, as pictures in artifacts/report/galleries",
            "each class: reports/per_class.csv, what is taken for what: reports/confusion.csv",
        ]
    return [*lines, f"package: {PACKAGE} (start with its README.md)"]


def _fastest(manifest: Json, report: Json) -> str:
    """Return which ONNX file is the fastest at each batch size, and by how much faster it is than that of fp32."""
    files = {entry["precision"]: name for name, entry in manifest["files"].items()}
    timed = {files[name]: found["latency_ms"] for name, found in by_precision(report).items() if name in files}
    words = [
        f"at batch {size} {fastest_in_words({name: found[size] for name, found in timed.items()})}"
        for size in sorted(report["latency_ms"], key=int)
    ]
    return f"{'; '.join(words)}: the fastest files on this host"


def _files(manifest: Json, report: Json, task: Task) -> list[str]:
    """Return a table of the ONNX files: size, score, parity, latency, and what is known of TensorRT."""
    evaluated = by_precision(report)
    sizes = sorted(report["latency_ms"], key=int)
    latencies = [f"batch {size}, ms" for size in sizes]
    header = ["ONNX file", "bytes", task.primary_in_words, "same answer", *latencies, "TensorRT"]
    rows = []
    for name, entry in manifest["files"].items():
        if entry["precision"] not in evaluated:
            raise UserError(f"reports/evaluation/onnx.json: says nothing of {name}; run evaluate@onnx (dvc repro)")
        found = evaluated[entry["precision"]]
        rows.append(
            [
                name,
                _count(entry["bytes"]),
                _percent(found[task.primary]),
                _percent(found["parity"]["agreement"]),
                *(_latency(found, size) for size in sizes),
                _accepted(entry["tensorrt_static_check"]),
            ]
        )
    return aligned(header, rows)


def _accepted(checks: Mapping[str, Json]) -> str:
    """Return which versions of TensorRT take a file, as far as its operators tell."""
    taken = [version for version, check in checks.items() if check["accepted"]]
    if len(taken) in {0, len(checks)}:
        return "accepted" if taken else "refused"
    return f"{', '.join(taken)} alone"


def _runtime_rows(runs: Sequence[Json]) -> list[list[str]]:
    sizes = next((list(run["latency_ms"]) for run in runs if "latency_ms" in run), [])
    rows = [[f"batch {size}, median ms", "", *(_latency(run, size) for run in runs)] for size in sorted(sizes, key=int)]
    differences = [f"{run['parity']['max_abs']:.1e}" if "parity" in run else "skipped" for run in runs]
    compared = [run["parity"] for run in runs if "parity" in run]
    lists = {parity["counted"] for parity in compared if parity["difference"] is None}
    what = f"{lists.pop()} that are the same" if lists else "an output"
    return [[f"max difference of {what}", "", *differences], *rows]


def _latency(run: Json, size: str) -> str:
    return f"{run['latency_ms'][size]['p50']:.3f}" if "latency_ms" in run else "skipped"


def _score(report: Json, key: str, error: str, absent: str) -> str:
    return with_error(report[key], report.get(error)) if key in report else absent


def _percent(value: float) -> str:
    return f"{value:.2%}"


def _count(value: int) -> str:
    return f"{value:,}"


def _known(teacher: Json, key: str) -> str:
    """Return the figure ``key`` of the teacher; where there is no teacher it has none."""
    if key not in teacher:
        return "none"
    return "unknown" if teacher[key] is None else _count(teacher[key])


def _relative(student: Json, teacher: Json, key: str) -> str:
    share = f" ({student[key] / teacher[key]:.1%})" if teacher.get(key) else ""
    return _count(student[key]) + share
