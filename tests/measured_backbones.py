"""The tables of docs/backbones.md, from what ``benchmarks/backbones.py`` found."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks/results/backbones.json"
EQUAL = 1e-4
"""Largest difference that counts as equal, as a share of the spread: the gate of float32. More where rounding is."""
Found = dict[str, Any]


def _results() -> dict[str, Found]:
    found: dict[str, Found] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def is_equal(part: Found) -> bool:
    """Return whether a network trained, exported and computed the same in ONNX Runtime, but for what both round."""
    return bool(part.get("difference", 1.0) <= max(EQUAL, 2 * part.get("rounding", 0.0)))


def summary() -> str:
    """Return how many networks of each kind work."""
    rows = ["| | tried | student: trained, exported, equal | teacher: learned from, exported, equal |"]
    rows.append("|---|---:|---:|---:|")
    for kind in ("timm, cut into stages", "timm, on tokens", "torchvision"):
        networks = [found for name, found in _results().items() if _kind(name, found) == kind]
        students = sum(is_equal(found.get("as_student", {})) for found in networks)
        teachers = sum(is_equal(found.get("as_teacher", found.get("as_student", {}))) for found in networks)
        rows.append(f"| {kind} | {len(networks)} | {students} | {teachers} |")
    return "\n".join(rows)


def _kind(name: str, found: Found) -> str:
    if not name.startswith("timm:"):
        return "torchvision"
    return "timm, cut into stages" if found.get("stages") else "timm, on tokens"


def _table(kind: str) -> str:
    rows = ["| network | images | parameters | stages (channels) | as a student | as a plain network |"]
    rows.append("|---|---|---:|---|---|---|")
    for name, found in sorted(_results().items()):
        if _kind(name, found) == kind:
            rows.append("| " + " | ".join(_row(name, found)) + " |")
    return "\n".join(rows)


def _row(name: str, found: Found) -> Iterable[str]:
    yield f"`{name}`"
    if "error" in found:
        yield from ("", "", "", found["error"].replace("|", "\\|"), "")
        return
    student = found["as_student"]
    yield " x ".join(map(str, found["image_size"]))
    yield f"{found['num_parameters']:,}"
    stages = found["stages"] or student.get("stages", [])
    yield ", ".join(map(str, stages)) + ("" if found["stages"] else " (tokens)" if stages else "none")
    yield _outcome(student)
    yield _outcome(found["as_teacher"]) if "as_teacher" in found else "the same parts"


def _outcome(part: Found) -> str:
    if "error" in part:
        return str(part["error"]).replace("|", "\\|")
    rounding = f", rounding {part['rounding']:.0e}" if "rounding" in part else ""
    return f"{'equal' if is_equal(part) else 'differs'}, {part['difference']:.0e}{rounding}"


MEASURED: Mapping[str, Callable[[], str]] = {
    "backbones in figures": summary,
    "timm backbones, cut": lambda: _table("timm, cut into stages"),
    "timm backbones, on tokens": lambda: _table("timm, on tokens"),
    "torchvision backbones": lambda: _table("torchvision"),
}
"""From the name of a block to what writes it."""
