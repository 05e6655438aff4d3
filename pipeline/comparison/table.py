"""The result of a comparison as tables: each method's mean over its seeds, paired differences, and what they show."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scipy.special import stdtr

from pipeline.comparison.config import described
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
        scores = scores_by_seed(rows, method)
        gain = paired(scores, base)
        steps = sorted({row["num_steps"] for row in own if row["num_steps"] is not None})
        found.append(
            {
                "method": method,
                "score": statistics.fmean(scores.values()),
                "std": statistics.stdev(scores.values()) if len(scores) > 1 else None,
                "n": len(own),
                "gain": gain.mean,
                "gain_error": gain.error,
                "verdict": "" if method == baseline else gain.verdict,
                "tuned": own[0]["tuned"],
                "num_steps": " ".join(map(str, steps)),
                "macs": round(statistics.fmean(row["macs"] for row in own)),
                "parameters": own[0]["parameters"],
                "train_seconds": statistics.fmean(row["train_seconds"] for row in own),
            }
        )
    return found


def steps_rows(results: Sequence[Result], rows: Sequence[Row], baseline: str, primary: str) -> list[Row]:
    """Return a row (see ``STEPS_COLUMNS``) for each number of steps of each method that deploys some.

    Gains are over ``baseline`` as it deploys, paired by seed. Nothing chose among the rows.
    """
    base, found = scores_by_seed(rows, baseline), []
    deploying = dict.fromkeys(row["method"] for row in rows if row["num_steps"] is not None)
    for method in deploying:
        scores: dict[int, dict[int, float]] = {}
        macs: dict[int, int] = {}
        for result in results:
            if result.method == method and result.calibration is not None:
                macs |= {point["num_steps"]: point["macs"] for point in result.calibration["curve"]}
                for line in result.tables["flow_by_num_steps"]:  # flows at several stages share one score
                    scores.setdefault(int(line["num_steps"]), {})[result.seed] = float(line[primary])
        for num_steps, own in sorted(scores.items()):
            gain = paired(own, base)
            found.append(
                {
                    "method": method,
                    "num_steps": num_steps,
                    "score": statistics.fmean(own.values()),
                    "std": statistics.stdev(own.values()) if len(own) > 1 else None,
                    "n": len(own),
                    "gain": gain.mean,
                    "gain_error": gain.error,
                    "verdict": "" if method == baseline else gain.verdict,
                    "macs": macs[num_steps],
                }
            )
    return found


def difference_rows(rows: Sequence[Row], pairs: Sequence[Sequence[str]]) -> list[Row]:
    """Return a row (see ``DIFFERENCE_COLUMNS``) for each of ``pairs`` of methods: the first less the second."""
    found = []
    for first, second in pairs:
        gap = paired(scores_by_seed(rows, first), scores_by_seed(rows, second))
        values = {"difference": gap.mean, "error": gap.error, "n": gap.n, "verdict": gap.verdict}
        found.append({"first": first, "second": second, **values})
    return found


def markdown(rows: Sequence[Row], baseline: str, score: str) -> str:
    """Return the table as Markdown, scores and gains in percent; ``score`` is what they are: "top-1 accuracy"."""
    header = [
        "method",
        f"{score}, %",
        "std",
        "n",
        f"gain over {baseline} ± standard error",
        "verdict",
        "tuned",
        "K",
        "multiply-adds",
        "parameters",
        "s per run",
    ]
    lines = [
        [
            row["method"],
            f"{100 * row['score']:.2f}",
            "" if row["std"] is None else f"{100 * row['std']:.2f}",
            str(row["n"]),
            "" if row["method"] == baseline else str(Difference(row["gain"], row["gain_error"], row["n"])),
            row["verdict"],
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


def _without(cells: list[str], at: int) -> list[str]:
    return cells[:at] + cells[at + 1 :]


def steps_markdown(rows: Sequence[Row], baseline: str, score: str) -> str:
    """Return the table of each number of steps as Markdown, scores and gains in percent."""
    header = ["method", "K", f"{score}, %", "std", "n", f"gain over {baseline} ± standard error", "verdict"]
    lines = [
        [
            row["method"],
            str(row["num_steps"]),
            f"{100 * row['score']:.2f}",
            "" if row["std"] is None else f"{100 * row['std']:.2f}",
            str(row["n"]),
            str(Difference(row["gain"], row["gain_error"], row["n"])),
            row["verdict"],
            f"{row['macs']:,}",
        ]
        for row in rows
    ]
    return _table([*header, "multiply-adds"], lines)


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
