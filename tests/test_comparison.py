"""Comparisons as users run them, on few images: refused, run, killed, resumed and reported."""

import csv
import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from pipeline.comparison import config, plan, report, table, worker
from pipeline.comparison.command import Study
from pipeline.comparison.config import load_comparison
from pipeline.comparison.plan import trials
from pipeline.comparison.results import Store
from pipeline.comparison.runner import run_all
from pipeline.core.errors import GateError, UserError
from pipeline.core.files import read_json
from pipeline.preflight import code
from pipeline.training.settings import Training
from stages import probe_environment
from stages.__main__ import main
from tests.helpers import ROOT, fill_folder, refused
from workbench.project import TINY, write_params

ARGUMENTS = ["compare", "comparison.yaml", "--out", "runs", "--report", "report", "--jobs"]
NONE, FM_KT = {"distill_student.method": "none"}, {"distill_student.method": "fm_kt"}
METHODS = {"none": NONE, "fm_kt": FM_KT}
FLOW = "distill_student.flow"
RATE, BACKBONE = "distill_student.training.optimizer.learning_rate", "distill_student.backbone"
USUAL = {"title": "T", "params": "params.yaml", "changes": {}, "seeds": [0, 1], "baseline": "none", "methods": METHODS}
PLOTS = {"score", "epochs", "steps", "ensemble", "members"}
TRIALS, REPORT = Path("runs/trials"), Path("report")


def describe(**content: Any) -> None:
    """Write comparison.yaml with ``content`` in place of the usual; ``...`` leaves a key out."""
    YAML().dump({k: v for k, v in (USUAL | content).items() if v is not ...}, Path("comparison.yaml"))


def compare(jobs: int = 2, **content: Any) -> Result:
    describe(**content)
    return CliRunner().invoke(main, [*ARGUMENTS, str(jobs)])


def rows_without_seconds(name: str) -> list[dict[str, str]]:
    return [row | {"train_seconds": ""} for row in csv.DictReader((REPORT / name).read_text().splitlines())]


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setenv("PYTHONPATH", str(ROOT))
    write_params(folder / "params.yaml", {**TINY, "train_teacher.training.epochs": 2})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which two methods with two seeds were compared, and one teacher trained."""
    with pytest.MonkeyPatch.context() as patch:
        enter(tmp_path_factory.mktemp("finished"), patch)
        result = compare()
        assert (result.exit_code, result.output.count("teacher: done in")) == (0, 1), result.output
        return Path.cwd()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Work in a folder with small parameters; tests that use the finished comparison, in a copy of it."""
    if "finished" in request.fixturenames:
        shutil.copytree(request.getfixturevalue("finished"), tmp_path, dirs_exist_ok=True)
    enter(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"colour": 1}, "comparison.yaml: colour: got 1, but the key is unknown; allowed here: title, preset, params"),
        ({"seeds": ...}, "comparison.yaml: seeds: missing; give a list of at least one, each an integer >= 0"),
        ({"seeds": [3, 3]}, "comparison.yaml: seeds: got [3, 3]; give each once"),
        (
            {"differences": [["none", "kd"]]},
            "comparison.yaml: differences: got 'kd', which is none of the methods none",
        ),
        ({"differences": [["none", "none"]]}, "comparison.yaml: differences: got [none, none]; give two methods"),
        (
            {"differences": [["fm_kt, K = 1", "fm_kt, K = 1"]]},
            "comparison.yaml: differences: got [fm_kt, K = 1, fm_kt, K = 1]; give two methods, or numbers of steps",
        ),
        (
            {"differences": [["none", "fm_kt at K = 1"]]},
            "none of the methods none, fm_kt; a method with one number of steps is written 'METHOD, K = 1'",
        ),
        (
            {"differences": [["kd, K = 1", "none"]]},
            "comparison.yaml: differences: got 'kd, K = 1', which is none of the methods none, fm_kt",
        ),
        (
            {"differences": [["none", "fm_kt, K = 3"]]},
            "differences: got 'fm_kt, K = 3', but fm_kt is scored at K = 1, 2; give one of them, or add it to calibra",
        ),
        (
            {"differences": [["fm_kt, K = 0", "none"]]},
            "but fm_kt is scored at K = 1, 2; give one of them, or a method with theta.tied",
        ),
        (
            {"differences": [["fm_kt", "none, K = 1"]]},
            "differences: got 'none, K = 1', but none takes no steps when it deploys; give none",
        ),
        (
            {"methods": {"none": NONE, "fm_kt, K = 4": FM_KT}},
            "methods: got 'fm_kt, K = 4', which is how differences name a number of steps; give another name",
        ),
        (
            {"differences": [["fm_kt", "none", "none"]]},
            "differences.0: got ['fm_kt', 'none', 'none']; give a list of 2",
        ),
        ({"tune_seeds": [5]}, "comparison.yaml: tune: missing, so that tune_seeds and tune_methods mean nothing"),
        ({"tune": {RATE: [0.1, 0.2]}, "tune_seeds": [1]}, "tune_seeds: got [1]; give at least one, and none of [0, 1]"),
        ({"tune": {RATE: [0.1, 0.2]}}, "comparison.yaml: tune_seeds: got []; give at least one"),
        ({"tune": {RATE: [0.1, 0.1]}, "tune_seeds": [5]}, f"comparison.yaml: tune: {RATE} is [0.1, 0.1]; give each "),
        (
            {"tune": {"base.device": ["cpu", "cuda"]}, "tune_seeds": [5]},
            "comparison.yaml: tune: got base.device; a met",
        ),
        ({"tune": {RATE: [0.1, -0.2]}, "tune_seeds": [5]}, "learning_rate: got -0.2"),
        ({"tune": {RATE: [0.1, dt.date(2020, 1, 2)]}, "tune_seeds": [5]}, "learning_rate: got "),
        (
            {"tune": {RATE: [0.1]}, "tune_seeds": [5]},
            f"comparison.yaml: tune.{RATE}: got [0.1]; give a list of at least 2, each a value",
        ),
        ({"tune": {RATE: 0.1}, "tune_seeds": [5]}, f"tune.{RATE}: got 0.1; give a list of at least 2, each a value"),
        ({"methods": {"none": None}}, "comparison.yaml: methods.none: got null; give keys with their values"),
        (
            {"tune": {RATE: [0.1, 0.2]}, "tune_seeds": [5], "methods": {"none": NONE | {RATE: 0.3}}},
            f"methods: none sets {RATE}, which is tuned; take it out there, or name the others in tune_methods",
        ),
        (
            {
                "tune": {FLOW: [{"num_steps": [1]}, {"num_steps": [2]}]},
                "tune_seeds": [5],
                "methods": {"none": NONE | {f"{FLOW}.time_scale": 10.0}},
            },
            f"methods: none sets {FLOW}.time_scale, which is tuned",
        ),
        (
            {"tune": {f"{FLOW}.time_scale": [1.0, 10.0], FLOW: [{}, {"num_steps": [2]}]}, "tune_seeds": [5]},
            f"tune: got {FLOW}.time_scale and {FLOW}, one of which holds the other; give one of them",
        ),
        (
            {"tune": {RATE: [0.1, 0.2]}, "tune_seeds": [5], "tune_methods": ["kd"]},
            "tune_methods: got 'kd', which is none of the methods none, fm_kt",
        ),
        ({"baseline": "kd"}, "comparison.yaml: baseline: got 'kd', which is none of the methods none, fm_kt"),
        ({"methods": {"none": {"base.device": "cpu"}}}, "comparison.yaml: methods: got base.device; a method changes"),
        ({"methods": {"none": NONE, "a/b": {}, "A b": {}}}, "methods: got none, a/b, A b; names must differ"),
        ({"changes": {"distill_student.trainin.epochs": 1}}, "distill_student.trainin.epochs: no such parameter"),
        ({"methods": {"none": {"distill_student.los": "kd"}}}, "distill_student.los: no such parameter in params.yaml"),
        ({"methods": {"none": {"distill_student.loss": 5}}}, "runs/trials/none-0/params.yaml: distill_student.loss: "),
        ({"methods": {**METHODS, "kd": {BACKBONE: "small"}}}, "distill_student.backbone: unknown backbone 'small'"),
        (
            {"params": "presets/digits.yaml"},
            "params: presets/digits.yaml is a preset, which holds only what differs; write preset: digits",
        ),
        *[({"params": name}, name) for name in ("gone.yaml", "empty", "broken", "number")],
    ],
)
def test_a_wrong_comparison_is_refused_in_one_line_before_anything_runs(content: dict[str, Any], words: str) -> None:
    for name, text in {"empty": "", "broken": "a: [", "number": "5"}.items():
        Path(name).write_text(text)
        refused(CliRunner().invoke(main, ["compare", name, *ARGUMENTS[2:], "1"]), f"error: {name}: ")
    refused(compare(**content), words)
    assert [REPORT.exists(), Path("runs/teacher/data").exists()] == [False, False]


def test_a_number_of_steps_counts_with_which_any_value_that_is_tuned_is_scored() -> None:
    """Which value is chosen is not known before the runs that tune."""
    tied = {"tune": {"distill_student.theta.tied": [False, True]}, "tune_seeds": [9], "tune_methods": ["theta"]}
    content = {**tied, "methods": {"none": NONE, "theta": {"distill_student.method": "fm_kt_theta"}}}
    describe(**content, differences=[["theta, K = 0", "none"], ["theta, K = 2", "none"]])
    Study(config.load_comparison(Path("comparison.yaml")), Path("runs"), Store(None))
    refused(compare(**content, differences=[["theta, K = 3", "none"]]), "but theta is scored at K = 0, 1, 2; give one")


def stale(**content: Any) -> list[str]:
    """Return which runs a comparison would start first, and mark them as done."""
    describe(**content)
    comparison, out = config.load_comparison(Path("comparison.yaml")), Path("runs")
    trials, teacher = plan.trials(comparison, out), plan.teacher_run(comparison, out)
    CliRunner().invoke(probe_environment.main, plan.probe_command(teacher)[1:])
    found = plan.unfinished([teacher]) or plan.unfinished(trials)
    for run in found:
        for path in [Path(word) for command in run.commands for word in command if word.startswith("runs/")]:
            path.touch() if path.suffix else path.mkdir(exist_ok=True)
        run.mark_done(run.fingerprint(), 1)
    return [run.name for run in found]


def test_a_change_makes_stale_what_depends_on_it() -> None:
    plain = {"none": NONE, "ofm": {"distill_student.method": "ofm_kt"}}
    assert [stale(seeds=[0], methods=plain) for _ in range(3)] == [["teacher"], ["none, seed 0", "ofm, seed 0"], []]
    assert stale(seeds=[0], methods=plain | METHODS) == ["teacher"], "no method needed one so far"
    assert stale(seeds=[0]) == ["none, seed 0", "fm_kt, seed 0"]
    assert stale(title="Other", changes={"package.name": "other"}) == ["none, seed 1", "fm_kt, seed 1"]
    assert stale(methods={"none": NONE, "fm_kt": FM_KT | {RATE: 0.05}}) == ["fm_kt, seed 0", "fm_kt, seed 1"]
    assert len(stale(changes={BACKBONE: "resnet14"})) == 4
    for changes in ({"train_teacher.backbone": "resnet14"}, {"prepare_data.max_test_images": 50}):
        assert (stale(changes=changes), len(stale(changes=changes))) == (["teacher"], 4)
    optimizer = YAML(typ="safe").load(Path("params.yaml"))["train_teacher"]["training"]["optimizer"]
    changes = {f"{section}.training.optimizer": optimizer for section in ("train_teacher", "distill_student")}
    stale(changes=changes, seeds=[0], methods={"none": NONE | {RATE: 0.00123}, "fm_kt": FM_KT})
    assert "&" in Path("comparison.yaml").read_text(), "an anchor: one value behind two keys"
    assert "".join(path.read_text() for path in Path("runs").rglob("params.yaml")).count("0.00123") == 1


def test_changed_code_makes_stale_the_runs_whose_stages_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = ["none, seed 0", "fm_kt, seed 0"]
    assert [stale(seeds=[0]) for _ in range(3)] == [["teacher"], trials, []]
    digest = code.CodeReader.digest

    def edit(stage: str) -> None:
        edited = lambda reader, entry: "edited" if entry.name == stage else digest(reader, entry)  # noqa: E731
        monkeypatch.setattr(code.CodeReader, "digest", edited)

    edit("export_onnx")
    assert stale(seeds=[0]) == [], "no run of a comparison exports"
    edit("trace_flow")
    assert stale(seeds=[0]) == trials
    edit("train_teacher")
    assert [stale(seeds=[0]) for _ in range(2)] == [["teacher"], trials]


def test_the_worker_stops_at_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("told.py").write_text("import sys; print(sys.argv[1:], file=open('told', 'a')); sys.exit(int(sys.argv[1]))")
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.setattr(sys, "argv", ["worker"])
    assert worker.run_commands([["told", "0", "a b"], ["told", "3"], ["told", "0"]]) == 3
    assert Path("told").read_text() == "['0', 'a b']\n['3']\n"


def test_gains_are_paired_by_seed_and_one_seed_has_no_spread() -> None:
    results = [("b", 7, 0.5, None), ("b", 8, 0.7, None), ("a", 8, 0.76, 4), ("a", 7, 0.52, 1), ("c|d", 7, 0.4, 2)]
    rest = {"macs": 10, "parameters": 1000, "train_seconds": 2.0, "tuned": ""}
    rows = [{"method": m, "seed": s, "score": a, "num_steps": k, **rest} for m, s, a, k in results]
    header, _, *lines = table.markdown(table.summarize_methods(rows, "b"), "b", "top-1 accuracy").splitlines()
    assert header.startswith("| method | top-1 accuracy, % | std | n | gain over b ± standard error | verdict | K |")
    assert lines == [
        "| b | 60.00 | 14.14 | 2 |  |  |  | 10 | 1,000 | 2 |",
        "| a | 64.00 | 16.97 | 2 | +4.00 ± 2.00 | within chance | 1 4 | 10 | 1,000 | 2 |",
        r"| c\|d | 40.00 |  | 1 | -10.00 | one seed | 2 | 10 | 1,000 | 2 |",
    ]


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ({"name": "sgd"}, "SGD at 0.1, momentum 0.9 (Nesterov), weight decay 0.0005"),
        ({"name": "sgd", "momentum": 0.0, "nesterov": False}, "SGD at 0.1, momentum 0, weight decay 0.0005"),
        ({"name": "adamw", "learning_rate": 0.001}, "AdamW at 0.001, betas 0.9 and 0.999, weight decay 0.0005"),
    ],
)
def test_the_protocol_names_the_optimizer_that_ran(optimizer: dict[str, Any], words: str) -> None:
    training = Training.model_validate({"epochs": 3, "batch_size": 32, "optimizer": optimizer})
    assert report.describe_training(training).startswith(f"3 epochs, batch 32, {words}, schedule cosine")


@pytest.mark.usefixtures("finished")
@pytest.mark.slow
def test_the_report_holds_what_the_evaluations_found() -> None:
    assert {path.stem for path in REPORT.iterdir()} == {"README", *PLOTS, "table", "trials"}
    found = {(row["method"], row["seed"]): float(row["score"]) for row in rows_without_seconds("trials.csv")}
    assert found == pytest.approx({k: read_json(TRIALS / "-".join(k) / "evaluation.json")["accuracy"] for k in found})
    for row in rows_without_seconds("table.csv"):
        own, base = ([found[method, seed] for seed in "01"] for method in (row["method"], "none"))
        gains = [a - b for a, b in zip(own, base, strict=True)]
        values = [float(row[name]) for name in ("score", "std", "gain", "gain_error")]
        assert values == pytest.approx([mean(own), stdev(own), mean(gains), stdev(gains) / 2**0.5], abs=3e-6)


@pytest.mark.slow
def test_only_what_is_unfinished_runs_and_one_job_finds_what_two_found(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("**/[ts]*/model.safetensors")}

    def trained(jobs: int = 2, **content: Any) -> set[str]:
        assert compare(jobs, **content).exit_code == 0
        return {path.parts[-3] for path in before if path.stat().st_mtime_ns != before[path]}

    assert trained() == set()
    assert all(path.read_bytes() == (finished / path).read_bytes() for path in REPORT.iterdir())
    (TRIALS / "none-1/done.json").unlink()
    (TRIALS / "fm_kt-0/scores.json").unlink()
    assert trained(jobs=1, title=r"50 $\oops$ <of> these") == {"none-1", "fm_kt-0"}
    assert all(path.read_bytes() == (finished / path).read_bytes() for path in before)
    again = {"none-1", "fm_kt-0"}  # since the copy was made
    assert trained(seeds=[0], changes={"train_teacher.training.epochs": 1}) == again | {"teacher", "none-0"}


def gone(process: str) -> bool:
    return not Path("/proc", process, "exe").exists()


@pytest.mark.usefixtures("finished")
@pytest.mark.slow
def test_a_killed_comparison_leaves_no_process_and_goes_on_where_it_was() -> None:
    """The trials that are at work when it is killed would train for hours; those of the other seed stay as they are."""
    expected = rows_without_seconds("table.csv")
    kept = {path: path.stat().st_mtime_ns for path in TRIALS.glob("*-1/student/model.safetensors")}
    for how, ended in ((signal.SIGKILL, -9), (signal.SIGINT, 1)):
        for name in ("none-0", "fm_kt-0"):
            shutil.rmtree(TRIALS / name)
        describe(changes={"distill_student.training.epochs": 1_000_000})
        process = subprocess.Popen([sys.executable, "-m", "stages", *ARGUMENTS, "2"])
        try:
            while len(list(TRIALS.glob("*-0/history.csv"))) < 2:
                assert process.poll() is None
                time.sleep(0.05)
            workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert len(workers) == 2
            assert "another run is still writing" in compare().output
        finally:
            process.send_signal(how)
        assert process.wait() == ended
        deadline = time.monotonic() + 60
        while not all(map(gone, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert all(map(gone, workers))
    assert (compare().exit_code, rows_without_seconds("table.csv")) == (0, expected)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_run_that_is_killed_is_named_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log ends in the middle of its work, with words that say nothing of it."""
    Path("killed.py").write_text("import os\n\nprint('epoch 1', flush=True)\nos.kill(os.getpid(), 9)\n")
    run = plan.Run(name="one", folder=tmp_path / "one", commands=[["killed"]])
    monkeypatch.setattr(plan.Run, "fingerprint", lambda _: "")
    with caplog.at_level("INFO"), pytest.raises(GateError, match="1 of 1 runs failed"):
        run_all([run], jobs=1)
    assert "one: FAILED (ended by signal 9 (Killed)), 1 of 1" in caplog.text


@pytest.mark.usefixtures("finished")
@pytest.mark.slow
def test_a_trial_that_fails_is_named_and_the_others_finish() -> None:
    (TRIALS / "fm_kt-0/done.json").unlink()
    result = compare(seeds=[0], methods=METHODS | {"none": NONE | {RATE: 1.0e30}})
    assert result.exit_code == 1
    assert "none, seed 0: FAILED (error: training diverged" in result.output
    assert "error: 1 of 2 runs failed; see runs/trials/none-0/log.txt" in result.output
    result = compare(seeds=[0], methods=METHODS | {"none": NONE | {RATE: 0.05}})
    assert result.output[result.output.index("| method") :].strip() in (REPORT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/comparisons").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_comparison_of_the_benchmarks_is_made_of_valid_parameters(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    comparison = load_comparison(path)
    tried = dict.fromkeys(comparison.tuned_methods, comparison.tried_values[0])
    assert len(trials(comparison, tmp_path, tried, seeds=comparison.seeds[:1])) == len(comparison.methods)


@pytest.mark.parametrize("given", [{}, {"preset": "digits", "params": "params.yaml"}])
def test_a_comparison_starts_from_a_preset_or_from_a_file(given: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "comparison.yaml"
    rest = {"title": "t", "changes": {}, "seeds": [0], "baseline": "none", "methods": {"none": {}}}
    path.write_text(json.dumps(rest | given))
    with pytest.raises(UserError, match="give one of them"):
        load_comparison(path)


def test_a_comparison_extends_another_of_its_folder(tmp_path: Path) -> None:
    methods = {"none": {}, "metric": {"distill_student.method": "metric"}}
    first = {
        "title": "few",
        "preset": "digits",
        "changes": {"base.seed": 3, "distill_student.loss": "kd"},
        "seeds": [0, 1],
        "baseline": "none",
        "methods": methods,
    }
    second = {"extends": "few", "title": "more", "changes": {"distill_student.loss": "dist"}, "seeds": [0, 1, 2]}
    for content in (first, second):
        (tmp_path / f"{content['title']}.yaml").write_text(json.dumps(content))
    found = load_comparison(tmp_path / "more.yaml")
    assert (found.title, found.seeds, found.methods) == ("more", [0, 1, 2], methods)
    assert found.changes == {"base.seed": 3, "distill_student.loss": "dist"}
    assert load_comparison(tmp_path / "few.yaml").changes["distill_student.loss"] == "kd"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"extends": "fw"}, "extends: unknown comparison 'fw'; did you mean few?"),
        ({"extends": "own"}, "extends: goes round in a circle: own, own"),
        ({"extends": "few", "changes": [1]}, "changes: "),
        ([1], "own.yaml: holds no keys"),
    ],
)
def test_a_comparison_that_extends_nothing_says_so(content: Any, words: str, tmp_path: Path) -> None:
    few = {"title": "t", "preset": "digits", "changes": {}, "seeds": [0], "baseline": "none", "methods": {"none": {}}}
    (tmp_path / "few.yaml").write_text(json.dumps(few))
    (tmp_path / "own.yaml").write_text(json.dumps(content))
    with pytest.raises(UserError, match=re.escape(words)):
        load_comparison(tmp_path / "own.yaml")


def test_a_stage_may_fork_while_the_worker_listens_for_its_end(tmp_path: Path) -> None:
    """A forked process closes stdin first of all, for whose lock it would wait for ever."""
    (tmp_path / "forks.py").write_text(
        "import multiprocessing, sys, time\n"
        "time.sleep(0.5)  # the worker listens by then\n"
        "child = multiprocessing.get_context('fork').Process(target=int)\n"
        "child.start(); child.join(20)\n"
        "ended = child.exitcode\n"
        "child.kill()\n"
        "sys.exit(0 if ended == 0 else 7)\n"
    )
    command = [sys.executable, "-m", "pipeline.comparison.worker"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        process.stdin.write(b'[["forks"]]\n')
        process.stdin.flush()
        assert process.wait(40) == 0


def test_runs_train_on_this_host_whatever_hosts_the_parameters_have(tmp_path: Path) -> None:
    hosts = {"execution.num_processes": 2, "execution.hosts.num_hosts": 2, "execution.hosts.endpoint": "10.0.0.1:29400"}
    write_params(tmp_path / "mine.yaml", hosts)
    describe(preset=None, params="mine.yaml")
    trial = trials(load_comparison(Path("comparison.yaml")), Path("runs"))[0]
    assert trial.settings.execution.hosts.num_hosts == 1


def test_a_comparison_that_does_not_exist_is_refused_with_those_that_do() -> None:
    result = CliRunner().invoke(
        main, [*ARGUMENTS[:1], str(ROOT / "benchmarks/comparisons/digit.yaml"), *ARGUMENTS[2:], "1"]
    )
    refused(result, "digit.yaml: no such file; there are ", "digits, ensemble")


def test_ones_own_images_are_compared_without_a_name_for_a_package(tmp_path: Path) -> None:
    fill_folder(tmp_path / "photos", {"cat": 12, "dog": 12})
    changes = {"prepare_data.source": "imagefolder", "prepare_data.root": "photos", "prepare_data.test_fraction": 0.25}
    describe(changes=changes)
    folder = trials(load_comparison(Path("comparison.yaml")), Path("runs"))[0].folder
    paths = ["--params", str(folder / "params.yaml"), "--out", "environment.json", "--code", "code.json"]
    result = CliRunner().invoke(probe_environment.main, paths)
    assert result.exit_code == 0, result.output
