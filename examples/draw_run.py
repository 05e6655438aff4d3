"""Draw what the last dvc repro found: python examples/draw_run.py [PICTURE], in the folder of dvc.yaml."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt


def read(name: str) -> Any:
    """Return the content of a JSON file, or the rows of a CSV file."""
    if not Path(name).exists():
        sys.exit(f"error: there is no {name}; run dvc repro, then this in the folder of dvc.yaml")
    with Path(name).open(newline="") as file:
        return json.load(file) if name.endswith("json") else list(csv.DictReader(file))


def draw(axes: Any, title: str, rows: list[dict[str, Any]], key: str, x: str, y: str) -> None:
    """Draw a line for each value of ``key``, with standard errors where the rows have them."""
    axes.set(title=title, xlabel=x, ylabel=y)
    for label in dict.fromkeys(row[key] for row in rows):
        own = [row for row in rows if row[key] == label]
        columns = [[float(row.get(name) or 0) for row in own] for name in (x, y, f"{y}_standard_error")]
        axes.errorbar(*columns, fmt="o-", markersize=4, capsize=3, alpha=0.8, label=label)
    axes.xaxis.get_major_locator().set_params(integer=x in {"epoch", "num_steps"})
    if rows:
        axes.legend()
    axes.set_visible(bool(rows))  # there is no likelihood where no flow is compared with a teacher


curve = read("artifacts/calibration/calibration.json")["curve"]
points = read("artifacts/tradeoff/tradeoff.json")["points"]
score = next(key for key in curve[0] if f"{key}_standard_error" in curve[0])  # accuracy, or ap
plt.rcParams |= {"axes.formatter.useoffset": False, "axes.grid": True, "grid.alpha": 0.3}
figure, panels = plt.subplots(2, 3, figsize=(16, 9), layout="constrained")
(epochs, steps, latency), (likelihood, trust, classes) = panels

draw(epochs, "Held-out images, in training", read("reports/score_by_epoch.csv"), "curve", "epoch", "score")
both = [{**p, "of": "held-out images"} for p in curve] + [{**p, "of": f"test, {p['precision']}"} for p in points]
draw(steps, "Score by steps (0: none), with standard errors", both, "of", "num_steps", score)
front = sorted((point["latency_ms"], point[score]) for point in points if point["on_the_front"])
latency.step(*zip(*front, strict=True), "k--", where="post", label="Pareto front")
draw(latency, "Score by latency of one image, at each K", points, "precision", "latency_ms", score)
latency.set_xlim(0, 1.1 * max(point["latency_ms"] for point in points))
rows, kinds = read("reports/likelihood_by_steps.csv"), ("bound", "mixture", "ensemble")
nats = [{**row, "of": kind, "nats": row[kind]} for kind in kinds for row in rows]
draw(likelihood, "-log p(teacher | student) of an image, theorem 3.1", nats, "of", "num_steps", "nats")

rows = sorted(read("reports/per_class.csv"), key=lambda row: float(row["recall"] or 2))[:15]
shares = [(classes, row["class"], float(row["recall"] or 0), int(row.get("images") or row["objects"])) for row in rows]
classes.set(title="Recall of classes, test, the lowest first", ylabel="recall", ylim=(0, 1.02))
classes.tick_params(axis="x", rotation=45)
answers = read("artifacts/evaluation/onnx_predictions.csv")
if "probability" in answers[0]:  # labels: of those that are equally sure, how many are right?
    trust.set(title="Reliability, in tenths", xlabel="mean probability of the answer", ylabel="share that is right")
    trust.axline((0, 0), (1, 1), color="k", linestyle=":")
    sure = sorted((float(row["probability"]), row["truth"] == row["prediction"]) for row in answers)
    size = -(-len(sure) // 10)
    for tenth in (sure[start : start + size] for start in range(0, len(sure), size)):
        probability, right = (sum(column) / len(tenth) for column in zip(*tenth, strict=True))
        shares.append((trust, probability, right, len(tenth)))
else:
    draw(trust, "Detections", read("reports/precision_recall.csv"), "curve", "recall", "precision")
for axes, x, share, count in shares:  # with Wilson's intervals of 68%, which hold near 0 and 1 as well
    middle, half = (share * count + 0.5) / (count + 1), (count * share * (1 - share) + 0.25) ** 0.5 / (count + 1)
    axes.plot([x, x, x], [middle - half, share, middle + half], "C0o-", markevery=[1])
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "run.png")
