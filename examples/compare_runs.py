"""Draw runs side by side, and print in which parameters they differ: python examples/compare_runs.py --help."""

import argparse
import sys
from typing import Any

import dvc.api
import matplotlib.pyplot as plt
from dvc.exceptions import DvcException

COSTS = {
    "ms": (1, "ms of the smallest batch, as each run timed it"),
    "bytes": (1000, "kB of the fp32 file"),
    "macs_ratio": (1, "multiply-adds, those of the plain student being 1"),
}


def flat(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the parameters by the keys that ``dvc exp run -S`` takes."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def read(run: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters and metrics of a run."""
    revision = None if run == "workspace" else run
    try:
        metrics = {"macs_ratio": 1, **dvc.api.metrics_show(rev=revision)}  # DVC leaves out what is null: it is plain
        return flat(dvc.api.params_show("params.yaml", rev=revision)), metrics
    except (DvcException, FileNotFoundError) as error:
        sys.exit(f"error: {run}: no result of dvc repro ({error}); give workspace, a commit, or an experiment's name")


parser = argparse.ArgumentParser(description="Draw runs side by side, and print in which parameters they differ.")
parser.add_argument("runs", nargs="+", help="workspace, a commit, a branch, a tag, or an experiment's name")
parser.add_argument("--out", default="runs.png", help="the picture to write (runs.png)")
options = parser.parse_args()
params, metrics = zip(*map(read, options.runs), strict=True)
for key in dict.fromkeys(key for one in params for key in one):
    values = [one.get(key) for one in params]
    if any(value != values[0] for value in values):
        print(key, *(f"{run}: {value}" for run, value in zip(options.runs, values, strict=True)), sep="  ")
scores = {str(next((key for key in one if f"{key}_error" in one), None)) for one in metrics}
if len(scores) > 1:
    sys.exit(f"error: the runs have different scores ({', '.join(sorted(scores))}); compare runs of one task")
(score,) = scores
figure, panels = plt.subplots(1, 4, figsize=(16, 1.5 + 0.6 * len(metrics)), sharey=True, layout="constrained")
values, errors = ([one[key] for one in metrics] for key in (score, f"{score}_error"))
panels[0].errorbar(values, options.runs, xerr=errors, fmt="o", capsize=3, label="student, with its standard error")
panels[0].plot([one.get("teacher") for one in metrics], options.runs, "k|", markersize=14, label="teacher")
panels[0].set_xlabel(f"{score}, test images")
panels[0].invert_yaxis()
for axes, (key, (unit, title)) in zip(panels[1:], COSTS.items(), strict=True):
    axes.barh(options.runs, [one[key] / unit for one in metrics], height=0.5, alpha=0.6)
    axes.set_xlabel(title)
figure.legend(loc="outside upper left", ncols=2)
figure.savefig(options.out)
