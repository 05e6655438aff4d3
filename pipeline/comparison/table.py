"""The result of a comparison as tables: each method's mean over its seeds, paired differences, and what they show."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scipy.special import stdtr

from pipeline.comparison.config import Side, described
from pipeline.comparison.results import Result
from pipeline.tasks.significance import STANDARD_ERRORS

COLUMNS = (
    "method", "score", "std", "n", "gain", "gain_error", "verdict", "tuned", "num_steps", "macs", "parameters",
    "train_seconds",
)  # fmt: skip
STEPS_COLUMNS = ("method", "num_steps", "score", "std", "n", "gain", "gain_error", "verdict", "macs")
DIFFERENCE_COLUMNS = ("first", "second", "difference", "error", "n", "verdict")
GAINS, LOSES, CHANCE, ONE_SEED = "gains", "loses", "within chance", "one seed"
Row = dict[str, Any]


class Difference(NamedTuple):
    """A mean of differences that are paired by seed."""

    mean: float
    error: float | None
    """Its standard error; None of one seed."""
    n: int

    @property
    def verdict(self) -> str:
        """Return what it shows: nothing of one seed, and nothing within two standard errors."""
        if self.error is None:
            return ONE_SEED
        if abs(self.mean) <= STANDARD_ERRORS * self.error:
            return CHANCE
        return GAINS if self.mean > 0 else LOSES

    def __str__(self) -> str:
        """Return it in points for a table."""
        return f"{100 * self.mean:+.2f}" + ("" if self.error is None else f" ± {100 * self.error:.2f}")


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """Return by how much the scores ``first`` exceed ``second``, both by seed, over the seeds that both have."""
    gaps = [first[seed] - second[seed] for seed in first if seed in second]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else None
    return Difference(statistics.fmean(gaps), error, len(gaps))


def chance_of_a_verdict(n: int) -> float:
    """Return how often ``n`` >= 2 seeds would show a gain or a loss where there is none, were differences normal."""
    return 2 * float(stdtr(n - 1, -STANDARD_ERRORS))


def scores_by_seed(rows: Sequence[Row], method: str) -> dict[int, float]:
    """Return the scores of ``method`` by seed."""
    return {row["seed"]: row["score"] for row in rows if row["method"] == method}


def scores_by_steps(results: Sequence[Result], method: str, primary: str) -> dict[int, dict[int, float]]:
    """Return the scores of ``method`` on the test split by number of steps and seed, ascending; none is chosen."""
    scores: dict[int, dict[int, float]] = {}
    for result in results:
        if result.method == method:
            for line in result.tables.get("flow_by_num_steps", []):  # flows at several stages share one score
                scores.setdefault(int(line["num_steps"]), {})[result.seed] = float(line[primary])
    return dict(sorted(scores.items()))


def trial_rows(results: Sequence[Result], primary: str) -> list[Row]:
    """Return a row for each finished trial: its score on the test split at the calibrated steps, and what it costs.

    Args:
        primary: the score that decides, e.g. ``accuracy``.
    """
    return [_trial_row(result, result.scores[primary]) for result in results if result.scores is not None]


def _trial_row(result: Result, score: float) -> Row:
    return {
        "method": result.method,
        "seed": result.seed,
        "score": score,
        "tuned": described(result.values),
        "num_steps": result.curve_point()["num_steps"],
        "macs": result.curve_point()["macs"],
        "parameters": result.num_parameters,
        "train_seconds": result.seconds,
    }


def summarize_methods(rows: Sequence[Row], baseline: str) -> list[Row]:
    """Return a row (see ``COLUMNS``) for each method, in the order of their first trials.

    ``score`` is a mean over the seeds and ``std`` its sample standard deviation (n - 1; None for one seed); ``gain`` is
    paired with the baseline by seed, ``gain_error`` its standard error. ``macs`` is the mean, since K may differ.
    """
    base = scores_by_seed(rows, baseline)
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        steps = sorted({row["num_steps"] for row in own if row["num_steps"] is not None})
        found.append(
            {
                "method": method,
                **_scored(scores_by_seed(rows, method), base, is_baseline=method == baseline),
                "tuned": own[0]["tuned"],
                "num_steps": " ".join(map(str, steps)),
                "macs": round(statistics.fmean(row["macs"] for row in own)),
                "parameters": own[0]["parameters"],
                "train_seconds": statistics.fmean(row["train_seconds"] for row in own),
            }
        )
    return found


def _scored(scores: Mapping[int, float], base: Mapping[int, float], *, is_baseline: bool) -> Row:
    """Return the columns from ``score`` to ``verdict`` of a method's ``scores`` by seed; gains are over ``base``."""
    gain = paired(scores, base)
    return {
        "score": statistics.fmean(scores.values()),
        "std": statistics.stdev(scores.values()) if len(scores) > 1 else None,
        "n": len(scores),
        "gain": gain.mean,
        "gain_error": gain.error,
        "verdict": "" if is_baseline else gain.verdict,
    }


def steps_rows(results: Sequence[Result], rows: Sequence[Row], baseline: str, primary: str) -> list[Row]:
    """Return a row (see ``STEPS_COLUMNS``) for each number of steps that was scored of each method that deploys steps.

    Gains are over ``baseline`` as it deploys, paired by seed. Nothing chose among the rows.
    """
    base, found = scores_by_seed(rows, baseline), []
    for method in dict.fromkeys(row["method"] for row in rows if row["num_steps"] is not None):
        macs: dict[int, int] = {}
        for result in results:
            if result.method == method and result.calibration is not None:
                macs |= {point["num_steps"]: point["macs"] for point in result.calibration["curve"]}
        for num_steps, own in scores_by_steps(results, method, primary).items():
            scored = _scored(own, base, is_baseline=method == baseline)
            found.append({"method": method, "num_steps": num_steps, **scored, "macs": macs[num_steps]})
    return found


def difference_rows(
    results: Sequence[Result], rows: Sequence[Row], pairs: Sequence[tuple[Side, Side]], primary: str
) -> list[Row]:
    """Return a row (see ``DIFFERENCE_COLUMNS``) for each of ``pairs``: the first less the second.

    A pair has none without a seed of which both are known: older runs did not score every number of steps.
    """

    def scores(side: Side) -> dict[int, float]:
        if side.num_steps is None:
            return scores_by_seed(rows, side.method)
        return scores_by_steps(results, side.method, primary).get(side.num_steps, {})

    found = []
    for first, second in pairs:
        own, others = scores(first), scores(second)
        if own.keys() & others.keys():
            gap = paired(own, others)
            values = {"difference": gap.mean, "error": gap.error, "n": gap.n, "verdict": gap.verdict}
            found.append({"first": str(first), "second": str(second), **values})
    return found


def markdown(rows: Sequence[Row], baseline: str, score: str) -> str:
    """Return the table as Markdown, scores and gains in percent; ``score`` is what they are: "top-1 accuracy"."""
    header = [
        "method",
        *_scored_header(baseline, score),
        "tuned",
        "K",
        "multiply-adds",
        "parameters",
        "s per run",
    ]
    lines = [
        [
            row["method"],
            *_scored_cells(row, with_gain=row["method"] != baseline),
            row["tuned"],
            row["num_steps"],
            f"{row['macs']:,}",
            f"{row['parameters']:,}",
            f"{row['train_seconds']:.0f}",
        ]
        for row in rows
    ]
    if not any(row["tuned"] for row in rows):
        at = header.index("tuned")
        header, lines = _without(header, at), [_without(line, at) for line in lines]
    return _table(header, lines)


def _scored_header(baseline: str, score: str) -> list[str]:
    return [f"{score}, %", "std", "n", f"gain over {baseline} ± standard error", "verdict"]


def _scored_cells(row: Row, *, with_gain: bool = True) -> list[str]:
    """Return what stands under ``_scored_header``."""
    return [
        f"{100 * row['score']:.2f}",
        "" if row["std"] is None else f"{100 * row['std']:.2f}",
        str(row["n"]),
        str(Difference(row["gain"], row["gain_error"], row["n"])) if with_gain else "",
        row["verdict"],
    ]


def _without(cells: list[str], at: int) -> list[str]:
    return cells[:at] + cells[at + 1 :]


def steps_markdown(rows: Sequence[Row], baseline: str, score: str) -> str:
    """Return the table of each number of steps as Markdown, scores and gains in percent."""
    lines = [[row["method"], str(row["num_steps"]), *_scored_cells(row), f"{row['macs']:,}"] for row in rows]
    return _table(["method", "K", *_scored_header(baseline, score), "multiply-adds"], lines)


def differences_markdown(rows: Sequence[Row]) -> str:
    """Return the table of differences as Markdown, in points."""
    lines = [
        [
            f"{row['first']} - {row['second']}",
            str(Difference(row["difference"], row["error"], row["n"])),
            str(row["n"]),
            row["verdict"],
        ]
        for row in rows
    ]
    return _table(["difference", "points ± standard error", "n", "verdict"], lines)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown, its first column to the left, the others to the right."""
    rules = ["---"] + ["---:"] * (len(header) - 1)
    escaped = "\\|"
    return "\n".join(
        f"| {' | '.join(cell.replace('|', escaped) for cell in line)} |" for line in (header, rules, *lines)
    )
