"""Measured figures in the documentation, from the results under benchmarks/results.

A table is a block, as those of ``tests/documented_tables.py``. A single number has its place beside it, in a comment
that no reader of the page sees, as ``72.64<!-- = cifar10-subset/table.csv; fm_kt (dist); accuracy; .2% -->``: the file,
the keys on the way (of a CSV file the first column's value and the column, of differences.csv both methods as ``A less
B``, of a document the words before the number),
and how the number is written: a format of Python, with a unit of ``UNITS`` after it, without the percent sign. A key
``A - B`` stands for the difference of two, ``A / B`` for their quotient.

The host of a result is ``<!-- host of loader.json -->2 CPU cores (AMD EPYC)<!-- end of host -->``.

A ``?`` at the end of either waits for a measurement: what is typed there stays until the file is there, and then goes
together with the ``?``.
"""

import csv
import json
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks/results"
NUMBER = re.compile(r"(?P<shown>[+-]?\d[\d.,]*)<!-- = (?P<place>[^>]*?) -->")
HOST = re.compile(r"<!-- host of (?P<place>[^>]*?) -->(?P<shown>.*?)<!-- end of host -->", re.DOTALL)
MARK = "<!-- = "
UNITS = {"M": 1e6, "MB": 1e6, "GB": 1e9, "min": 60.0}
"""What a number is divided by, after its format."""
OPERATIONS: Mapping[str, Callable[[float, float], float]] = {" - ": operator.sub, " / ": operator.truediv}


def rows_of(name: str) -> list[dict[str, str]]:
    """Return the rows of the CSV file ``name`` below the results."""
    with (RESULTS / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def json_of(name: str) -> Any:
    """Return the content of the JSON file ``name`` below the results."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def measured(place: str) -> str:
    """Return the number at ``place``, as it is written.

    Raises:
        ValueError: there is no such result, or no such number in it; names the place.
    """
    name, *keys, form = (part.strip() for part in place.split(";"))
    try:
        value = _value(_content(name, keys), keys)
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"no result {place!r} in benchmarks/results ({type(error).__name__}: {error})") from error
    unit = next((unit for unit in UNITS if form.endswith(unit)), "")
    return format(value / UNITS.get(unit, 1.0), form.removesuffix(unit)).removesuffix("%")


def _content(name: str, keys: list[str]) -> Any:
    if name.endswith("differences.csv"):
        return {f"{row['first']} less {row['second']}": row for row in rows_of(name)}
    if name.endswith(".csv"):
        return {next(iter(row.values())): row for row in rows_of(name)}
    if name.endswith(".md"):
        text = (RESULTS / name).read_text(encoding="utf-8")
        return {words: number for words in keys for number in re.findall(re.escape(words) + r" ([\d.]+)", text)}
    return json_of(name)


def _value(found: Any, keys: list[str]) -> float:
    for number, key in enumerate(keys):
        for sign, operation in OPERATIONS.items():
            if sign in key:
                first, second = (_value(found, [part, *keys[number + 1 :]]) for part in key.split(sign))
                return operation(first, second)
        found = found[int(key)] if isinstance(found, list) else found[key]
    return float(found)


def host(name: str) -> str:
    """Return in words the host of the result ``name``."""
    about = json_of(name)["host"]
    model = re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b|@.*", "", about["cpu"])
    return f"{about['cpus']} CPU cores ({' '.join(model.split())})"


def waits(place: str) -> bool:
    """Return whether ``place`` waits for a file of results that is not there yet."""
    return place.endswith("?") and not (RESULTS / place.partition(";")[0].removesuffix("?").strip()).exists()


def renumbered(text: str) -> str:
    """Return the document ``text`` with each number and each host that has a place as the results have it."""

    def number(found: re.Match[str]) -> str:
        place = found["place"].removesuffix("?").strip()
        return found[0] if waits(found["place"]) else f"{measured(place)}{MARK}{place} -->"

    def words(found: re.Match[str]) -> str:
        name = found["place"].removesuffix("?").strip()
        return found[0] if waits(found["place"]) else f"<!-- host of {name} -->{host(name)}<!-- end of host -->"

    return HOST.sub(words, NUMBER.sub(number, text))


def _table(header: str, *rows: str) -> str:
    columns = [part.strip() for part in header.strip("|").split("|")]
    rule = "|".join("---" if number == 0 else "---:" for number in range(len(columns)))
    return "\n".join([header, f"|{rule}|", *rows])


SHOWN = {
    "none": "`none`: labels alone",
    "kd": "`metric`, KD",
    "dkd": "`metric`, DKD",
    "dist": "`metric`, DIST",
    "student + meta (dist)": "`metric_meta`, DIST: the same layers without a flow",
    "fm_kt (dist)": "`fm_kt`, DIST",
    "fm_kt_theta (dist)": "`fm_kt_theta`, DIST",
    "ofm_kt (dist)": "`ofm_kt`, no teacher",
    "metric (pkd)": "`metric`, PKD",
    "student + meta (pkd)": "`metric_meta`, PKD: the same layers without a flow",
    "fm_kt (pkd)": "`fm_kt`, PKD",
}


def comparison(name: str, score: str, title: str, digits: int) -> str:
    """Return the table of a comparison: score, gain over ``none`` with its standard deviation, multiply-adds."""
    rows = []
    trials = rows_of(f"{name}/trials.csv")
    for row in rows_of(f"{name}/table.csv"):
        method = row["method"]
        macs = sorted({float(trial["macs"]) for trial in trials if trial["method"] == method})
        cost = " to ".join(f"{value / 1e6:.{digits}f}" for value in dict.fromkeys((macs[0], macs[-1])))
        steps = row["num_steps"].split()
        cost += " M" + (f" (K = {' or '.join(steps)})" if steps else "")
        gain = "" if method == "none" else f"{100 * float(row['gain']):+.2f} ({100 * float(row['gain_std']):.2f})"
        points = f"{100 * float(row[score]):.2f} ({100 * float(row['std']):.2f})"
        rows.append(f"| {SHOWN[method]} | {points} | {gain} | {cost} |")
    header = f"| method | {title} (std) | gain over `none`, paired (std) | multiply-adds |"
    return _table(header, *rows)


HEADLINE = "cifar10-long"
PLAIN = {
    "none": "student, labels alone (`none`)",
    "metric": "student, KD (`metric`)",
    "metric_meta": "student, KD, the flow's layers without a flow (`metric_meta`)",
    "metric_meta, 4 heads": "student, KD, four such heads (`layers.num_heads`)",
    "theta flow": "student, KD with the flow in training alone (`fm_kt_theta`)",
}
FLOW, SHOWN_STEPS = "fm_kt", ("1", "4")


def headline() -> str:
    """Return accuracy and latency of the teacher and of what matters of the long comparison on CIFAR-10."""
    networks = json_of(f"{HEADLINE}/latency.json")["networks"]
    scores = {row["method"]: row for row in rows_of(f"{HEADLINE}/table.csv")}
    teacher = measured(f"{HEADLINE}/README.md; Teacher: resnet20, top-1 accuracy; .2f")
    rows = [f"| teacher, resnet20 | {teacher} | | {_cost(networks['teacher'])} |"]
    rows += [f"| {text} | {_score(scores[method])} | {_cost(networks[method])} |" for method, text in PLAIN.items()]
    for row in rows_of(f"{HEADLINE}/steps.csv"):
        if row["method"] == FLOW and row["num_steps"] in SHOWN_STEPS:
            steps = row["num_steps"]
            name = f"student, KD with the flow (`fm_kt`), K = {steps}"
            rows.append(f"| {name} | {_score(row)} | {_cost(networks[f'{FLOW}, K = {steps}'])} |")
    return _table("| | top-1 % (std) | gain over `none` | ms for one image | multiply-adds |", *rows)


def _score(row: Mapping[str, str]) -> str:
    """Return score and gain of a row, of table.csv or steps.csv."""
    score = f"{100 * float(row['score']):.2f} ({100 * float(row['std']):.2f})"
    gain = "" if not row["verdict"] else f"{100 * float(row['gain']):+.2f} ± {100 * float(row['gain_error']):.2f}"
    return f"{score} | {gain}"


def _cost(network: Mapping[str, Any]) -> str:
    return f"{network['p50_ms']:.3f} | {network['macs'] / 1e6:.1f} M"


def fine_tuning() -> str:
    """Return the students from scratch and from given weights."""
    epochs = {"from scratch": 20, "from given weights": 20, "from scratch three times as long": 60}
    rows = []
    for student in json_of("fine_tuning.json")["students"]:
        seeds = ", ".join(f"{value:.2f}" for value in student["test_accuracy_percent"])
        score = f"{student['mean']:.2f} ({student['standard_deviation']:.2f})"
        rows.append(f"| {student['method']} | {epochs[student['method']]} | {score} | {seeds} |")
    return _table("| student | epochs | top-1 % (std) | seeds 0, 1, 2 |", *rows)


def training_step() -> str:
    """Return what a training step takes, against a plain loop."""
    rows = []
    for steps, found in json_of("training-step/cpu-bf16.json")["results"].items():
        low, high = found["speedup_range"]
        rows.append(
            f"| {steps} | {found['plain']} | {found['ours']} | {found['speedup']:.2f} ({low:.2f} to {high:.2f}) "
            f"| {found['floor']:.0%} | {found['plain_mib']}, {found['ours_mib']} |"
        )
    header = "| N | plain, images/s | this pipeline, images/s | speedup | floor / step | peak MiB, plain and this |"
    return _table(header, *rows)


def deployed_graph() -> str:
    """Return what steps cost in what deploys, on a host without instructions for INT8 and on one that has them."""
    hosts = [json_of(f"deployed-graph/{name}.json")["timings"] for name in ("epyc-2-cores", "xeon-vnni-2-cores")]
    columns = [timings[size] for timings in hosts for size in ("1", "64")]
    forms = {
        ("plain student", ""): ("plain student",),
        ("K = 1", "general, exported"): ("K = 1, fp32, general", "K = 1, fp32, collapsed"),
        ("K = 2", "general, exported"): ("K = 2, fp32, general", "K = 2, fp32, collapsed"),
        ("K = 4", "general, exported"): ("K = 4, fp32, general", "K = 4, fp32, folded"),
        ("K = 4, `int8-cpu`", "exported"): ("K = 4, int8-cpu, folded",),
        ("K = 4, torch.compile", "general"): ("K = 4, torch compiled",),
    }

    def cell(names: tuple[str, ...], found: Mapping[str, Any]) -> str:
        ratios = ", ".join(f"{found[name]['ratio']:.2f}" for name in names)
        plain = found["plain student"]["p50"]
        return f"{ratios} ({plain:.3g} ms)" if names == ("plain student",) else ratios

    rows = [
        f"| {steps} | {form} | {' | '.join(cell(names, column) for column in columns)} |"
        for (steps, form), names in forms.items()
    ]
    return _table("| | form | EPYC, batch 1 | batch 64 | Xeon with VNNI, batch 1 | batch 64 |", *rows)


def first_run() -> str:
    """Return what a first run prints at its end."""
    text = (RESULTS / "first-run/summary.txt").read_text(encoding="utf-8")
    return f"```text\n{text.rstrip()}\n```"


def first_run_in_short() -> str:
    """Return what a first run says of what ships, how good, how large and how fast it is."""
    text = (RESULTS / "first-run/summary.txt").read_text(encoding="utf-8")
    return f"```text\n{text[: text.index('how sure')].rstrip()}\n```"


MEASURED_RESULTS: Mapping[str, Callable[[], str]] = {
    "comparison on CIFAR-10": lambda: comparison("cifar10-subset", "accuracy", "top-1 %", 1),
    "headline": headline,
    "comparison on digits": lambda: comparison("digits", "accuracy", "top-1 %", 3),
    "comparison of detectors": lambda: comparison("detection-digits", "score", "AP", 1),
    "fine-tuning": fine_tuning,
    "training step": training_step,
    "deployed graph": deployed_graph,
    "first run": first_run,
    "first run in short": first_run_in_short,
}
"""From the name of a block to what writes it."""
