"""A comparison that finds out: paired verdicts, tuned values, a budget, results to go on from, runs side by side."""

import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from ruamel.yaml import YAML
from scipy.stats import t as student

from pipeline.comparison import command, results, runner, side_by_side
from pipeline.comparison.command import Study
from pipeline.comparison.config import Side, load_comparison
from pipeline.comparison.plan import Run, Trial
from pipeline.comparison.report import Findings
from pipeline.comparison.results import Store, Teaching, flat, same_parameters
from pipeline.comparison.side_by_side import Trying, by_trying, choose_jobs, try_out
from pipeline.comparison.table import (
    chance_of_a_verdict,
    difference_rows,
    differences_markdown,
    paired,
    steps_markdown,
    steps_rows,
)
from pipeline.comparison.tuning import at_an_end
from pipeline.core.errors import GateError
from pipeline.core.files import read_csv, read_json, write_json
from pipeline.core.processes import num_cores
from stages.__main__ import main
from tests.helpers import ROOT, refused
from workbench.project import TINY, write_params

RATE, HEADS = "distill_student.training.optimizer.learning_rate", "distill_student.layers.num_heads"
NONE = {"distill_student.method": "none"}
META = {"distill_student.method": "metric_meta", HEADS: 2}
RATES = [0.01, 0.1]
USUAL = {
    "title": "T",
    "params": "params.yaml",
    "changes": {},
    "seeds": [0, 1],
    "baseline": "none",
    "methods": {"none": NONE, "meta": META},
    "differences": [["meta", "none"]],
    "tune": {RATE: RATES},
    "tune_seeds": [7],
    "tune_methods": ["meta"],
}


def describe(**content: Any) -> Path:
    path = Path("comparison.yaml")
    YAML().dump({key: value for key, value in (USUAL | content).items() if value is not ...}, path)
    return path


def compare(*options: str, out: str = "runs", **content: Any) -> Result:
    describe(**content)
    words = ["compare", "comparison.yaml", "--out", out, "--report", "report", "--results", "kept", *options]
    return CliRunner().invoke(main, words)


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setenv("PYTHONPATH", str(ROOT))
    epochs = {"train_teacher.training.epochs": 2, "distill_student.training.epochs": 2}
    write_params(folder / "params.yaml", {**TINY, **epochs})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)


def test_a_verdict_needs_two_standard_errors_and_two_seeds() -> None:
    def verdict(*gaps: float) -> str:
        return paired(dict(enumerate(gaps)), dict.fromkeys(range(len(gaps)), 0.0)).verdict

    assert verdict(0.5) == "one seed"
    # mean 2, sample standard deviation 1, n = 4: four standard errors
    assert (verdict(0.01, 0.02, 0.03), verdict(-0.01, -0.02, -0.03)) == ("gains", "loses")
    assert verdict(0.0, 0.02, 0.04) == "within chance"  # mean 2, error 2 / sqrt(3): 1.7 standard errors
    assert (verdict(0.25, 0.75), verdict(0.25, 0.5)) == ("within chance", "gains")  # exactly 2, and 3
    assert (verdict(0.0, 0.0), verdict(0.5, 0.5)) == ("within chance", "gains")


def test_differences_are_those_of_common_seeds_with_their_standard_error() -> None:
    scores = {"a|b": {1: 0.5, 2: 0.7, 3: 0.6}, "c": {2: 0.6, 3: 0.3, 4: 0.9}}
    rows = [{"method": name, "seed": s, "score": x} for name, own in scores.items() for s, x in own.items()]
    [row] = difference_rows([], rows, [(Side("a|b"), Side("c"))], "accuracy")
    gaps = [0.7 - 0.6, 0.6 - 0.3]
    assert (row["difference"], row["n"]) == (pytest.approx(statistics.mean(gaps)), 2)
    assert row["error"] == pytest.approx(statistics.stdev(gaps) / 2**0.5)
    assert differences_markdown([row]).splitlines()[2] == r"| a\|b - c | +20.00 ± 10.00 | 2 | within chance |"


def scored_by_steps(by_seed: dict[int, dict[int, float]]) -> Any:
    """Return results of the method "flow", from seed and number of steps to its score on the test split."""
    curve = [{"num_steps": 1, "macs": 1000}, {"num_steps": 4, "macs": 4000}]
    return [
        SimpleNamespace(
            method="flow",
            seed=seed,
            calibration={"curve": curve},
            tables={"flow_by_num_steps": [{"num_steps": str(k), "accuracy": str(x)} for k, x in scores.items()]},
        )
        for seed, scores in by_seed.items()
    ]


def test_a_difference_is_of_the_number_of_steps_that_it_names() -> None:
    found = scored_by_steps({0: {1: 0.5, 4: 0.75}, 1: {1: 0.25, 4: 0.75}, 2: {4: 0.5}})
    rows = [{"method": "plain", "seed": seed, "score": 0.25, "num_steps": None} for seed in range(3)]
    rows += [{"method": "flow", "seed": seed, "score": 0.875, "num_steps": 4} for seed in range(3)]
    pairs = [
        (Side.parse("flow, K = 1"), Side.parse("plain")),
        (Side.parse("flow"), Side.parse("flow, K = 4")),
        (Side.parse("flow, K = 2"), Side.parse("plain")),
    ]
    steps, chosen = difference_rows(found, rows, pairs, "accuracy")
    assert (steps["first"], steps["second"], steps["difference"], steps["n"]) == ("flow, K = 1", "plain", 0.125, 2)
    assert (chosen["first"], chosen["second"], chosen["n"]) == ("flow", "flow, K = 4", 3)
    assert chosen["difference"] == pytest.approx((0.125 + 0.125 + 0.375) / 3)


@pytest.mark.parametrize("name", ["flow", "a, b", "flow, K = 1", "a, b, K = 12", "flow, K = 0"])
def test_a_side_is_read_as_it_is_written(name: str) -> None:
    assert str(Side.parse(name)) == name


@pytest.mark.parametrize("name", ["flow, K=1", "flow, K = 01", "flow, K = -1", ", K = 1", "flow, K = 1 "])
def test_what_is_nearly_a_number_of_steps_is_none(name: str) -> None:
    assert Side.parse(name) == Side(name)


def test_each_number_of_steps_is_shown_whatever_calibration_chose() -> None:
    by_seed = {0: {1: 0.5, 4: 0.75}, 1: {1: 0.25, 4: 0.75}}
    found = scored_by_steps(by_seed)
    rows = [{"method": "plain", "seed": seed, "score": 0.25, "num_steps": None} for seed in by_seed]
    rows += [{"method": "flow", "seed": seed, "score": 0.75, "num_steps": 4} for seed in by_seed]
    first, last = steps_rows(found, rows, "plain", "accuracy")
    assert (first["num_steps"], first["score"], first["gain"], first["macs"]) == (1, 0.375, 0.125, 1000)
    assert (first["verdict"], first["gain_error"]) == ("within chance", pytest.approx(0.125))
    assert (last["num_steps"], last["gain"], last["std"], last["verdict"]) == (4, 0.5, 0.0, "gains")
    assert steps_markdown([last], "plain", "top-1 accuracy").splitlines()[2] == (
        "| flow | 4 | 75.00 | 0.00 | 2 | +50.00 ± 0.00 | gains | 4,000 |"
    )


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_chance_of_a_verdict_is_that_of_students_distribution(n: int) -> None:
    assert chance_of_a_verdict(n) == pytest.approx(2 * student.sf(2, n - 1))


def test_parameters_are_the_same_where_those_that_came_later_have_their_defaults() -> None:
    assert same_parameters({"base.seed": 3}, {"base.seed": 3, "base.device": "auto"})
    assert not same_parameters({"base.seed": 3}, {"base.seed": 3, "base.device": "cuda:1"})
    assert not same_parameters({"base.seed": 3}, {"base.seed": 4})
    assert not same_parameters({"base.seed": 3, "base.gone": 1}, {"base.seed": 3})
    assert flat({"a": {"b": {}, "c": [1]}, "d": None}) == {"a.b": {}, "a.c": [1], "d": None}


SIZES = {"train": 8, "calib": 4, "test": 4}
TEACHING = Teaching(parameters={}, data="d", teacher="t", task="classification", sizes=SIZES, score=0.9)
MINUTES = {("none", 0): 4.0, ("none", 1): 4.0, ("none", 2): 4.0, ("meta", 0): 6.0, ("meta", 1): 6.0, ("meta", 2): 6.0}


@pytest.fixture
def diverging() -> set[tuple[str, float, int]]:
    """Return method, learning rate and seed of the trainings that diverge under ``clock``; a test adds some."""
    return set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, diverging: set[tuple[str, float, int]]) -> list[float]:
    """Let trainings take the minutes of ``MINUTES``, 5 where they tune, without running; return the seconds so far."""
    now, took, short = [0.0], dict[Path, float](), set[Path]()
    origin = results.origin()

    def rate_of(run: Trial) -> float:
        return run.settings.distill_student.training.optimizer.learning_rate

    def run_all(
        runs: list[Trial], *, jobs: int, on_done: Any = lambda _: None, is_wanted: Any = lambda *_: True
    ) -> None:
        for run in (run for run in runs if isinstance(run, Trial) and is_wanted(run, ())):
            took[run.folder] = 60 * (MINUTES[run.method, run.seed] if run.is_evaluated else 5)
            if (run.method, rate_of(run), run.seed) in diverging:
                short.add(run.folder)
                took[run.folder] = 1.0
            now[0] += took[run.folder] / jobs
            on_done(run)

    def read_result(run: Trial, teaching: Teaching) -> results.Result:
        rate = rate_of(run)
        diverged = (run.method, rate, run.seed) in diverging
        curve = [{"num_steps": None, "macs": 10, "accuracy": 1 - abs(rate - 0.09)}]
        calibration = {"num_steps": None, "reason": "no steps", "num_images": 5, "curve": curve}
        return results.Result(
            method=run.method,
            seed=run.seed,
            values=run.values,
            parameters=flat(run.wanted()),
            data=teaching.data,
            teacher=teaching.teacher if run.needs_teacher() else None,
            origin=origin,
            seconds=1,
            num_parameters=None if diverged else 1,
            calibration=None if diverged else calibration,
            diverged="training diverged" if diverged else None,
            scores={"accuracy": 0.5} if run.is_evaluated and not diverged else None,
            tables={},
        )

    def taught(run: Run) -> Teaching:
        return TEACHING.model_copy(update={"parameters": flat(run.parameters())})

    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(command, "run_all", run_all)
    monkeypatch.setattr(command, "read_result", read_result)
    monkeypatch.setattr(command, "run_command", lambda _: 0)
    monkeypatch.setattr(command, "unfinished", lambda runs: runs)
    monkeypatch.setattr(command, "read_teaching", taught)
    monkeypatch.setattr(Trial, "is_done", lambda run, _=None: run.folder in took)
    monkeypatch.setattr(Trial, "diverged", lambda run: "soon" if run.folder in short else None)
    monkeypatch.setattr(Trial, "seconds", lambda run: took[run.folder])
    return now


def study(minutes: float | None, jobs: int = 1, **content: Any) -> Study:
    comparison = load_comparison(describe(**{"seeds": [0, 1, 2], **content}))
    deadline = None if minutes is None else command.time.monotonic() + 60 * minutes
    return Study(comparison, Path("runs"), Store(Path("kept")), jobs=jobs, deadline=deadline)


def test_a_budget_ends_on_whole_seeds_and_the_next_call_goes_on(clock: list[float]) -> None:
    """Both runs that tune take 5 minutes each, a seed 4 and 6."""
    began = study(9)
    assert began.run() == "Nothing to report yet: no seed is finished; the same command goes on.", (
        "9 < the 10 of tuning"
    )
    assert clock[0] == 600, "the first group is begun whatever it takes"
    found = study(25).run()
    assert isinstance(found, Findings)
    assert (found.seeds, clock[0] / 60) == ([0, 1], 30), "the third would end after 30 of 25 minutes"
    assert found.chosen == {"meta": {RATE: 0.1}}
    assert {tuple(one.values.values()): one.score for one in found.tried["meta"]} == pytest.approx(
        {(0.01,): 0.92, (0.1,): 0.99}
    )
    assert {result.values.get(RATE) for result in found.results if result.method == "meta"} == {0.1}
    assert study(3).run().seeds == [0, 1], "3 minutes are none for a seed"
    assert study(None).run().seeds == [0, 1, 2]
    assert study(None).kept().seeds == [0, 1, 2], "from the kept files alone"


def test_the_protocol_says_whose_value_is_an_end_of_those_that_were_tried() -> None:
    """Numbers have ends; names and switches have none."""
    loss, meta = "distill_student.loss", "metric_meta"
    tune = {RATE: [0.1, 0.01, 0.2], loss: ["kd", "dist"], f"{HEADS[:-9]}bias": [True, False]}
    comparison = load_comparison(describe(tune=tune, methods={"none": NONE, "meta": {"distill_student.method": meta}}))
    chosen = [values | {loss: "kd"} for values in ({RATE: 0.1}, {RATE: 0.01}, {RATE: 0.2})]
    assert [at_an_end(comparison, values) for values in chosen] == [False, True, True]
    assert not at_an_end(comparison, {f"{HEADS[:-9]}bias": True})


def test_side_by_side_a_seed_takes_less(clock: list[float]) -> None:
    study(None, seeds=[0]).run()
    started = clock[0]
    assert study(7, jobs=2).run().seeds == [0, 1], "the longest takes 6, both together 5"
    assert clock[0] - started == 300


def test_a_seed_begins_while_the_last_run_of_another_is_at_work_where_it_would_end_so(clock: list[float]) -> None:
    made = study(None)
    made.run()
    made.jobs = 2
    none, meta = [trial for trial in made.trials if trial.seed == 0]
    minutes = {"none": 4.0, "meta": (3 * 6 + 2 * 5) / 5}
    ending: Any = SimpleNamespace(run=meta, seconds=lambda: 60 * (minutes["meta"] - 1))
    late: Any = SimpleNamespace(run=meta, seconds=lambda: 1e6)

    def would_end(within: float, *at_work: Any) -> bool:
        made.deadline = clock[0] + 60 * within
        return made._would_end([none, meta], at_work)

    for at_work, needed in (((), minutes["meta"]), ((ending,), 1 + minutes["meta"]), ((late,), minutes["meta"])):
        assert not would_end(needed - 0.1, *at_work)
        assert would_end(needed + 0.1, *at_work)
    made.jobs = 1
    assert not would_end(9.5)
    assert would_end(9.7), "one after the other"


def test_who_is_asked_whether_a_run_is_wanted_sees_those_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(run: Run) -> runner.Running[Run]:
        run.folder.mkdir()
        return runner.Running(run, subprocess.Popen([sys.executable, "-c", ""]), "fingerprint")

    monkeypatch.setattr(runner, "start_run", start)
    asked: list[tuple[str, list[str]]] = []

    def is_wanted(run: Run, at_work: Sequence[runner.Running[Run]]) -> bool:
        asked.append((run.name, [item.run.name for item in at_work]))
        return run.name != "b"

    runs = [Run(name=name, folder=tmp_path / name, commands=[]) for name in "abc"]
    runner.run_all(runs, jobs=2, is_wanted=is_wanted)
    assert asked == [("a", []), ("b", ["a"]), ("c", ["a"])]
    assert [run.done_file.exists() for run in runs] == [True, False, True]


def test_a_value_with_which_a_trial_diverges_gives_way_for_all_seeds(
    clock: list[float], diverging: set[tuple[str, float, int]]
) -> None:
    diverging.add(("meta", 0.1, 1))
    for found in (study(None).run(), study(None).kept()):
        assert isinstance(found, Findings)
        assert (found.seeds, found.chosen) == ([0, 1, 2], {"meta": {RATE: 0.01}}), (
            "0.1 is better on the held-out images"
        )
        assert {result.values.get(RATE) for result in found.results if result.method == "meta"} == {0.01}
        assert [one.score for one in found.tried["meta"]] == [pytest.approx(0.92), None]
        assert [(result.seed, result.values[RATE]) for result in found.tuning if result.diverged] == [(1, 0.1)]
        assert clock[0] / 60 == pytest.approx(10 + 12 + 6 + 1 / 60 + 3 * 6), (
            "the third seed is not begun with a value that has lost"
        )


def test_a_run_that_diverges_soon_says_nothing_of_how_long_others_take(
    clock: list[float], diverging: set[tuple[str, float, int]]
) -> None:
    diverging.add(("meta", 0.1, 7))
    study(None, seeds=[0]).run()
    started = clock[0]
    assert study(9).run().seeds == [0], "4 minutes, and 5.5 as the mean of the other runs of meta"
    assert clock[0] == started


@pytest.mark.usefixtures("clock")
def test_where_all_values_diverge_there_is_none_to_choose(diverging: set[tuple[str, float, int]]) -> None:
    diverging |= {("meta", 0.1, 1), ("meta", 0.01, 7)}
    with pytest.raises(GateError, match=r"meta: its training diverged with all values .*: 0\.01; .*: 0\.1\)"):
        study(None).run()


def test_results_count_under_their_own_data_teacher_and_parameters_alone(clock: list[float]) -> None:
    first = study(None)
    first.run()
    store = Store(Path("kept"))
    for trial in (*first.tuning, *first.trials):
        assert store.find(trial, TEACHING) is not None
        assert store.find(trial, TEACHING.model_copy(update={"data": "other"})) is None
        other = store.find(trial, TEACHING.model_copy(update={"teacher": "other"}))
        assert (other is None) == (trial.method == "meta"), "none learns from no teacher"
    assert {result.scores for result in store.results if result.values and result.seed == 7} == {None}
    spent = clock[0]
    renamed = study(None, methods={"labels": NONE, "meta": META}, baseline="labels", differences=[])
    assert {result.method for result in renamed.run().results} == {"labels", "meta"}
    assert clock[0] == spent, "another name is no other run"
    study(None, methods={"none": NONE, "meta": META | {HEADS: 3}}).kept()
    assert Store(Path("kept"), same_code=True).find(first.trials[0], TEACHING) is not None
    path = Path("kept/none-0.json")
    edited = read_json(path)
    write_json(path, edited | {"origin": edited["origin"] | {"code": edited["origin"]["code"] | {"evaluate": "other"}}})
    assert Store(Path("kept"), same_code=True).find(first.trials[0], TEACHING) is None
    assert Store(Path("kept")).find(first.trials[0], TEACHING) is not None


@pytest.mark.usefixtures("clock")
def test_a_result_counts_for_the_seed_that_its_parameters_have() -> None:
    study(None).run()
    for path in Path("kept").glob("*-1.json"):
        write_json(path, read_json(path) | {"seed": 0})
    found = study(None).kept()
    assert found is not None
    assert found.seeds == [0, 1, 2]


def test_another_run_by_the_name_of_an_earlier_one_takes_nothing_of_it(clock: list[float]) -> None:
    """The method that was called meta is called old; what is called meta now is another."""
    untuned: dict[str, Any] = {"tune": ..., "tune_seeds": ..., "tune_methods": ...}
    study(None, **untuned, methods={"none": NONE, "meta": META}).run()
    methods = {"none": NONE, "meta": META | {HEADS: 3}, "old": META}
    study(None, **untuned, methods=methods).run()
    spent = clock[0]
    found = study(None, **untuned, methods=methods).kept()
    assert found is not None
    assert len(found.results) == 9
    assert clock[0] == spent


@pytest.mark.parametrize("option", ["--report", "--results"])
def test_where_nothing_can_be_written_nothing_runs(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "Study", lambda *_, **__: pytest.fail("the comparison has begun"))
    Path("file").write_text("")
    result = compare(option, "file/folder")
    assert result.exit_code == 1
    assert "error: file/folder: Not a directory" in result.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "kept/none-0.json: method: missing"),
        ("[", "kept/none-0.json: not valid JSON"),
        (json.dumps({"colour": 1}), "kept/none-0.json: "),
    ],
)
def test_a_damaged_result_is_refused_by_its_name(content: str, words: str) -> None:
    Path("kept").mkdir()
    Path("kept/none-0.json").write_text(content)
    refused(compare(), words)


WHOLE: dict[str, Any] = {
    "method": "flow",
    "seed": 0,
    "values": {},
    "parameters": {},
    "data": "0",
    "teacher": "1",
    "origin": {"commit": None, "code": {}, "versions": {}, "hardware": "none"},
    "seconds": 1.0,
    "num_parameters": 10,
    "calibration": {
        "num_steps": 1,
        "reason": "the best",
        "num_images": 5,
        "curve": [{"num_steps": 1, "macs": 10, "accuracy": 0.5}, {"num_steps": 2, "macs": 20, "accuracy": 0.5}],
    },
    "scores": {"accuracy": 0.5},
    "tables": {
        "history": [{"epoch": "1", "val_accuracy": "0.5"}],
        "flow_by_num_steps": [{"num_steps": "1", "accuracy": "0.5"}],
        "flow_steps": [{"step": "1", "step_accuracy": "0.5", "ensemble_accuracy": "0.5"}],
        "ensemble": [{"member": name, "accuracy": "0.5"} for name in ("1", "mean", "best")],
    },
}


def tables(**changes: Any) -> dict[str, Any]:
    return {"tables": {name: rows for name, rows in (WHOLE["tables"] | changes).items() if rows is not None}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"calibration": None}, "calibration: got None; a run has it, unless it diverged"),
        ({"num_parameters": None}, "num_parameters: got None; a run has it, unless it diverged"),
        ({"calibration": WHOLE["calibration"] | {"num_steps": 4}}, "num_steps is 4, which curve does not have"),
        ({"scores": {"loss": 0.5}}, "scores: accuracy is None, expected a number"),
        (
            tables(flow_by_num_steps=[{"num_steps": "1", "accuracy": "half"}]),
            "flow_by_num_steps: accuracy is 'half', expected a number",
        ),
        (
            tables(flow_by_num_steps=[{"num_steps": "0", "accuracy": "0.5"}]),
            "flow_by_num_steps: num_steps is 0, expected one of calibration's",
        ),
        (tables(history=[{"epoch": "1.5", "val_accuracy": "0.5"}]), "history: epoch is '1.5', expected a count"),
        (tables(history=[{"epoch": "1"}]), "history: val_accuracy is None, expected a number"),
        (tables(flow_steps=None), "flow_steps: missing, and flow_by_num_steps is there"),
        (tables(flow_steps=[{"step": "1", "step_accuracy": "0.5"}]), "flow_steps: ensemble_accuracy is None"),
        (tables(ensemble=[{"member": "1", "accuracy": "0.5"}]), "ensemble: member is ['1'], expected 1, 2 and so on"),
    ],
)
def test_a_result_that_tables_cannot_be_made_of_is_refused_by_its_name(changes: dict[str, Any], words: str) -> None:
    teaching = {"parameters": {}, "data": "0", "teacher": "1", "task": "classification", "sizes": SIZES, "score": None}
    write_json(Path("kept/teacher.json"), teaching)
    write_json(Path("kept/flow-0.json"), WHOLE)
    assert len(Store(Path("kept")).results) == 1
    write_json(Path("kept/flow-0.json"), WHOLE | changes)
    refused(compare(), "error: kept/flow-0.json: ", words, "take it out of the folder, and its run is made again")
    for change, fault in (
        ({"task": "pose"}, "unknown task 'pose'"),
        ({"sizes": SIZES | {"test": 0}}, "sizes: test is 0, expected a number of images"),
        ({"sizes": {"test": 4}}, "sizes: train is None, expected a number of images"),
    ):
        write_json(Path("kept/teacher.json"), teaching | change)
        refused(compare(), f"error: kept/teacher.json: {fault}")


def test_trainings_side_by_side_are_doubled_as_long_as_they_fit_and_gain() -> None:
    asked: list[int] = []

    def host(speeds: dict[int, float], memory: int = 10) -> Any:
        def tried(jobs: int) -> Trying:
            asked.append(jobs)
            return Trying(speeds[jobs], memory * jobs)

        return tried

    rising = {1: 1.0, 2: 1.9, 4: 3.0, 8: 3.1}
    assert by_trying(host(rising), limit=64, free=1000) == 4, "8 are hardly faster than 4"
    assert asked == [1, 2, 4, 8]
    assert by_trying(host(rising), limit=64, free=35) == 2, "three fit into nine tenths"
    assert by_trying(host(rising), limit=3, free=1000) == 2
    assert by_trying(host({1: 1.0, 2: 0.0}), limit=64, free=1000) == 1, "one of two has failed"
    assert by_trying(host(rising), limit=64, free=5) == 1


def test_on_cpus_the_threads_of_a_training_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "num_cores", lambda: 8)

    def jobs(threads: int | None) -> int:
        changes = {"base.device": "cpu", "base.num_threads": threads}
        return choose_jobs(Study(load_comparison(describe(changes=changes)), Path("runs"), Store(None)).trials)

    assert [jobs(threads) for threads in (1, 2, 3, 16, None)] == [8, 4, 2, 1, 1]
    assert choose_jobs([]) == 1
    assert num_cores() >= 1


@pytest.mark.parametrize("jobs", ["0", "many", "-1"])
def test_other_numbers_of_runs_are_refused(jobs: str) -> None:
    result = compare("--jobs", jobs)
    assert (result.exit_code, "give a number of runs, at least 1, or auto" in result.output) == (2, True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder in which a comparison with tuned values has run."""
    with pytest.MonkeyPatch.context() as patch:
        enter(tmp_path_factory.mktemp("finished"), patch)
        result = compare("--jobs", "auto")
        assert result.exit_code == 0, result.output
        yield Path.cwd()


@pytest.fixture
def copied(finished: Path) -> None:
    """Work in a copy of the finished comparison."""
    shutil.copytree(finished, Path.cwd(), dirs_exist_ok=True)


@pytest.mark.slow
@pytest.mark.usefixtures("copied")
def test_the_report_comes_from_the_kept_results_alone(finished: Path) -> None:
    shutil.rmtree("runs")
    shutil.rmtree("report")
    result = compare("--jobs", "auto")
    assert result.exit_code == 0, result.output
    assert not Path("runs/teacher/data").exists(), "nothing had to be prepared"
    for path in (finished / "report").iterdir():
        assert Path("report", path.name).read_bytes() == path.read_bytes()
    assert {path.name for path in Path("report").glob("*.csv")} == {
        "trials.csv", "table.csv", "differences.csv", "tuning.csv"
    }  # fmt: skip
    [gap] = read_csv(Path("report/differences.csv"))
    scores = {(r["method"], r["seed"]): float(r["score"]) for r in read_csv(Path("report/trials.csv"))}
    gaps = [scores["meta", seed] - scores["none", seed] for seed in "01"]
    assert float(gap["difference"]) == pytest.approx(statistics.mean(gaps), abs=3e-6)
    tuning = read_csv(Path("report/tuning.csv"))
    assert [(row["method"], row["seed"]) for row in tuning] == [("meta", "7")] * 2
    best = max(tuning, key=lambda row: float(row["calib_score"]))
    assert best["chosen"] == "1"
    text = Path("report/README.md").read_text()
    assert f"- meta: **{best['values']}** (" in text
    assert f"| {best['values']} |" in text
    assert "All runs: code " in text
    assert "chance alone gives one in 30% of all rows with 2 seeds" in text
    kept = [json.loads(path.read_text()) for path in Path("kept").glob("meta-*-7.json")]
    assert {one["scores"] for one in kept} == {None}, "no run that tunes has seen the test split"
    assert sum(path.stat().st_size for path in Path("kept").iterdir()) < 100_000
    [members] = [one["tables"]["ensemble"] for one in map(read_json, Path("kept").glob("meta-*-0.json"))]
    assert [row["member"] for row in members] == ["1", "2", "mean", "best"]


@pytest.mark.slow
@pytest.mark.usefixtures("copied")
def test_another_host_goes_on_and_the_protocol_says_where_runs_come_from() -> None:
    path = Path("kept/none-0.json")
    edited = read_json(path)
    write_json(path, edited | {"origin": edited["origin"] | {"commit": "0123456789ab", "hardware": "another host"}})
    result = compare(out="elsewhere", seeds=[0, 1, 2])
    assert result.exit_code == 0, result.output
    started = re.findall(r"([a-z].*): started; its log", result.output)
    assert started == ["teacher", "none, seed 2", "meta, seed 2"]
    text = Path("report/README.md").read_text()
    assert "- The runs come from different places:\n  - 7 of them: code " in text
    assert "  - 1 of them: code " in text
    assert "commit 0123456789ab; " in text
    assert "another host" in text


@pytest.mark.slow
@pytest.mark.usefixtures("copied")
def test_values_with_which_a_training_diverges_are_not_chosen() -> None:
    endless = 1e30
    result = compare(tune={RATE: [0.1, endless]})
    assert result.exit_code == 0, result.output
    assert re.search(
        r"learning_rate: 1e\+30, seed 7: diverged after \d+ s, so that these values are not", result.output
    )
    text = Path("report/README.md").read_text()
    assert re.search(r"- meta: \*\*.*learning_rate: 0\.1\*\* \(.*learning_rate: 1e\+30: diverged\)", text)
    rows = {row["values"].rpartition(" ")[2]: row for row in read_csv(Path("report/tuning.csv"))}
    assert (rows["1e+30"]["calib_score"], rows["1e+30"]["num_steps"], rows["1e+30"]["chosen"]) == ("", "", "0")
    assert rows["0.1"]["chosen"] == "1"
    [kept] = [one for path in Path("kept").glob("meta-*-7.json") if (one := read_json(path))["diverged"]]
    assert kept["diverged"].startswith("training diverged: the loss is not finite at step ")
    assert "started" not in compare(tune={RATE: [0.1, endless]}).output, "what is kept of it counts"
    refused_all = compare(tune={RATE: [endless, 2 * endless]})
    assert refused_all.exit_code == 1
    assert "meta: its training diverged with all values that tune has" in refused_all.output


@pytest.mark.slow
@pytest.mark.usefixtures("copied")
def test_what_is_tried_side_by_side_is_timed_and_stopped_and_goes_on() -> None:
    epochs = {"distill_student.training.epochs": 1_000_000}
    made = Study(load_comparison(describe(changes=epochs, seeds=[4, 5])), Path("runs"), Store(None))
    trials = [trial for trial in made.trials if trial.method == "none"]
    found = try_out(trials, torch.device("cpu"))
    assert found.speed > 0
    assert found.memory == 0
    assert [trial.done_file.exists() for trial in trials] == [False] * len(trials)
    assert list(Path(".checkpoints/distill_student").glob("*/epoch-*")), "what was trained is kept"
