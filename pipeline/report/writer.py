"""The report of a run: figures, tables, pictures and the page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.files import write_csv, write_json, write_text
from pipeline.core.likelihood_line import LIKELIHOOD
from pipeline.report.charts import Chart, Line, column_line, plot_chart
from pipeline.report.confusion_plot import plot_confusion
from pipeline.report.gallery import write_gallery
from pipeline.report.headline import headline
from pipeline.report.page import report_page
from pipeline.report.records import Results
from pipeline.report.tradeoff_plot import plot_tradeoff
from pipeline.tasks.base import Confusion, CurvePoint, Row

SHOWN = 48
"""Images of a gallery."""
CARD_RIGHT, CARD_WRONG = 16, 8
"""Images of the model card: right ones, and wrong ones where there are so many."""
LIKELIHOODS = {
    "bound": "bound of theorem 3.1",
    "mixture": "mixture of the steps",
    "ensemble": "mean of the steps, which deploys",
}
"""What a chart shows of a flow, by column."""
CARD = "card"
"""The folder of what the package's model card shows."""
GALLERIES = "galleries"
"""The folder of galleries, all of which DVC shows among the plots."""


@dataclass(frozen=True)
class Tables:
    """The files to write beside the folder, by the names of the stage's options."""

    metrics: Path
    """JSON of the headline figures."""
    mistakes: Path
    classes: Path
    confusion: Path
    precision_recall: Path
    score_by_epoch: Path
    score_by_steps: Path
    likelihood_by_steps: Path


def write_report(results: Results, folder: Path, tables: Tables) -> None:
    """Write the pictures and the page into ``folder``, and ``tables``.

    Raises:
        UserError: a record is missing or damaged.
    """
    _write_tables(results, tables)
    (folder / CARD).mkdir()
    _write_card(results, folder / CARD)
    charts = [folder / CARD / "tradeoff.svg", folder / CARD / "confusion.png"]
    for name, chart in _charts(results):
        if plot_chart(chart, folder / f"{name}.svg"):
            charts.append(folder / f"{name}.svg")
    galleries = _write_galleries(results, folder / GALLERIES)
    write_text(folder / "report.html", report_page(results, charts, galleries))


def _write_tables(results: Results, tables: Tables) -> None:
    review = results.review
    write_json(tables.metrics, headline(results))
    write_csv(tables.mistakes, review.mistake_columns, review.mistakes)
    write_csv(tables.classes, review.class_columns, review.classes)
    write_csv(tables.confusion, ["truth", "prediction", review.confusion.counted], _pairs(review.confusion))
    write_csv(tables.precision_recall, CurvePoint._fields, _points(review.precision_recall))
    write_csv(tables.score_by_epoch, ["curve", "epoch", "score"], _score_by_epoch(results))
    write_csv(tables.score_by_steps, ["num_steps", "calib", "test"], _score_by_steps(results))
    likely = [{key: row[key] for key in ("num_steps", *LIKELIHOODS)} for row in results.likelihood]
    write_csv(tables.likelihood_by_steps, ["num_steps", *LIKELIHOODS], likely)


def _pairs(confusion: Confusion) -> Iterator[Row]:
    """Yield a row for each pair of truth and prediction that occurs."""
    for (right, found), count in np.ndenumerate(confusion.counts):
        if count:
            yield {"truth": confusion.names[right], "prediction": confusion.names[found], confusion.counted: str(count)}


def _points(points: Sequence[CurvePoint]) -> Iterator[Row]:
    for point in points:
        yield {"curve": point.curve, "recall": f"{point.recall:.6g}", "precision": f"{point.precision:.6g}"}


def _score_by_epoch(results: Results) -> Iterator[Row]:
    """Yield the primary score on the calib split after each epoch, by a name that is the same for every task."""
    for name, rows in results.histories.items():
        for row in rows:
            yield {"curve": name, "epoch": row["epoch"], "score": row[f"val_{results.task.primary}"]}


def _score_by_steps(results: Results) -> Iterator[Row]:
    primary = results.task.primary
    test = {row["num_steps"]: row[primary] for row in results.flow_by_num_steps}
    for point in results.calibration["curve"]:
        if point["num_steps"] is not None:
            steps = str(point["num_steps"])
            yield {"num_steps": steps, "calib": f"{point[primary]:.6g}", "test": test.get(steps, "")}


def _write_card(results: Results, folder: Path) -> None:
    """Write what the model card shows; all of it is the same in every run but the latency in the trade-off."""
    task, review = results.task, results.review
    plot_tradeoff(results.tradeoff, results.teacher_score, task, folder / "tradeoff.svg")
    title = f"confusion on the test split ({len(results.rows):,} images)"
    plot_confusion(review.confusion, folder / "confusion.png", title=title)
    likely = [results.deployed_likelihood] if results.deployed_likelihood else []
    write_csv(folder / LIKELIHOOD, [*likely[0]] if likely else ["flow"], likely)
    write_csv(folder / "classes.csv", review.class_columns, [review.classes[i] for i in review.worst_first])
    wrong = _drawn(review.wrong, CARD_WRONG)
    right = _drawn(sorted(set(range(len(results.rows))) - set(review.wrong)), CARD_RIGHT)
    title = f"drawn at random from the test split: {len(right)} right, {len(wrong)} wrong"
    write_gallery(results.tiles(right + wrong), folder / "predictions.jpg", title=title, empty="no test images")


def _drawn(positions: list[int], count: int) -> list[int]:
    """Return ``count`` of ``positions`` in their order, the same in every run; all where there are fewer."""
    chosen = np.random.default_rng(0).permutation(len(positions))[:count]
    return sorted(positions[i] for i in chosen)


def _write_galleries(results: Results, folder: Path) -> list[Path]:
    """Write a picture for each gallery of the task, and return their paths."""
    folder.mkdir()
    paths = []
    for gallery in results.review.galleries:
        tiles = results.tiles(gallery.positions[:SHOWN])
        paths.append(folder / f"{gallery.name}.jpg")
        write_gallery(tiles, paths[-1], title=gallery.title, empty=gallery.empty)
    return paths


def _charts(results: Results) -> Iterator[tuple[str, Chart]]:
    """Yield name and content of each chart; a chart without lines is one of a method without a flow."""
    primary, title = results.task.primary, results.task.primary_title
    histories = results.histories
    losses = [column_line(f"{name}, train split", rows, "epoch", "loss") for name, rows in histories.items()]
    yield "training_loss", Chart("Training loss", "epoch", "loss", losses)
    scores = [
        column_line(f"{name}, calib split", rows, "epoch", f"val_{primary}", scale=100)
        for name, rows in histories.items()
    ]
    yield "training_scores", Chart(f"{title} on held-out images", "epoch", f"{title}, %", scores)
    yield "precision_recall", Chart("Precision over recall, test split", "recall", "precision", _curves(results))
    yield "score_by_steps", Chart(
        f"{title} against the number of sampling steps", "sampling steps K", f"{title}, %",
        [_calibrated(results), _traced(results)], counts_steps=True,
    )  # fmt: skip
    yield "likelihood", Chart(
        "Theorem 3.1: the teacher's negative log-likelihood, test split", "sampling steps K", "nats per image",
        [column_line(title, results.likelihood, "num_steps", key) for key, title in LIKELIHOODS.items()],
        counts_steps=True,
    )  # fmt: skip
    steps = results.flow_steps
    distances = [
        column_line("state after the step", steps, "step", "state_distance"),
        column_line("estimate of the teacher at the step", steps, "step", "estimate_distance"),
    ]
    yield (
        "distance_to_teacher",
        Chart(
            "Distance to the teacher along the flow, test split",
            "step",
            "distance / norm of the teacher's output",
            distances,
        ),
    )
    each = [
        column_line("the step alone", steps, "step", f"step_{primary}", scale=100),
        column_line("the mean of the steps up to it", steps, "step", f"ensemble_{primary}", scale=100),
    ]
    yield "scores_of_steps", Chart(f"{title} of each step, test split", "step", f"{title}, %", each)


def _curves(results: Results) -> list[Line]:
    """Return a line for each curve of precision over recall."""
    points = results.review.precision_recall
    return [
        Line(name, [p.recall for p in points if p.curve == name], [p.precision for p in points if p.curve == name])
        for name in dict.fromkeys(point.curve for point in points)
    ]


def _calibrated(results: Results) -> Line:
    """Return the curve of the calibration."""
    curve = [point for point in results.calibration["curve"] if point["num_steps"] is not None]
    return _scored(results, f"calib split, {results.calibration['num_images']:,} images", curve)


def _traced(results: Results) -> Line:
    """Return the same on the test split."""
    return _scored(results, f"test split, {len(results.rows):,} images", results.flow_by_num_steps)


def _scored(results: Results, name: str, points: Sequence[Mapping[str, Any]]) -> Line:
    """Return a line of ``points``, whose score may be text of a table, with bars of one standard error."""
    steps = [float(point["num_steps"]) for point in points]
    scores, bars = (
        [100 * float(point[key]) for point in points] for key in (results.task.primary, results.task.primary_error)
    )
    return Line(name, steps, scores, bars)
