"""The command that foretells how long the trainings take."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.core.other_programs import OtherPrograms
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.params.schema import load_params
from pipeline.preflight.estimate import estimate_trainings
from pipeline.training import foretelling
from pipeline.training.step import TrainingStep
from stages.__main__ import main
from tests.helpers import refused
from workbench.bench import Bench
from workbench.project import write_params


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench with prepared data."""
    folder = tmp_path_factory.mktemp("estimate")
    found = Bench(folder, lambda changes: write_params(folder / "params.yaml", changes))
    found.prepare()
    return found


def estimates(bench: Bench, **changes: Any) -> list[Any]:
    params = bench.write({"base.num_threads": 1, **{key.replace("__", "."): value for key, value in changes.items()}})
    return list(estimate_trainings(load_params(params), bench.folder / "data"))


def test_steps_and_images_are_those_of_the_trainings(bench: Bench) -> None:
    teacher, student = estimates(
        bench,
        train_teacher__training__epochs=7,
        train_teacher__training__batch_size=16,
        distill_student__training__batch_size=40,
        distill_student__training__min_epoch_steps=9,
        distill_student__training__epochs=3,
    )
    assert (teacher.stage, student.stage) == ("train_teacher", "distill_student")
    assert teacher.images == student.images == sum(bench.json("data/data.json")["class_counts"]["train"]) == 80
    assert teacher.num_steps == 7 * (80 // 16)
    assert student.num_steps == 3 * 2 * 5, "two steps a pass, five passes for nine steps or more"
    assert teacher.seconds > 0
    assert student.memory > 2**20


def test_the_time_grows_with_the_steps(bench: Bench) -> None:
    changes = {"distill_student__method": "none", "distill_student__training__schedule__warmup_epochs": 0}
    (short,), (long,) = (estimates(bench, **changes, distill_student__training__epochs=count) for count in (10, 1000))
    assert long.num_steps == 100 * short.num_steps
    assert long.seconds > 10 * short.seconds


def test_a_given_or_unneeded_teacher_takes_no_time(bench: Bench, tmp_path: Path) -> None:
    given = {"train_teacher__weights": str(tmp_path / "given.pt"), "train_teacher__training__epochs": 0}
    (tmp_path / "given.pt").touch()
    assert [found.stage for found in estimates(bench, **given)] == ["distill_student"]
    assert [found.stage for found in estimates(bench, distill_student__method="none")] == ["distill_student"]


@pytest.mark.parametrize("others", [0.0, 0.52])
def test_the_command_prints_a_table_and_keeps_nothing(
    others: float, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OtherPrograms, "share", lambda _: others)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    params = bench.write({"base.num_threads": 1})
    before = sorted(bench.folder.rglob("*"))
    result = CliRunner().invoke(main, ["estimate", "--params", str(params), "--data", str(bench.folder / "data")])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    columns = ["training", "images", "steps", "ms a step", "h:mm:ss", "peak GiB so far"]
    assert re.split(r"  +", lines[0]) == columns + ["CPU of others"] * (others > 0)
    assert [line.split()[0] for line in lines[2:5]] == ["train_teacher", "distill_student", "both"]
    assert re.fullmatch(r"both +\d\d:\d\d", lines[4])
    assert [line.endswith(" 52%") for line in lines[2:4]] == 2 * [others > 0]
    said = " ".join(" ".join(lines[5:-1]).split())
    if others:
        assert said.startswith("it takes so long while other programs take 52% of the CPU, less without them; OMP_WAIT")
    else:
        assert not said
    assert sorted(bench.folder.rglob("*")) == before


def test_without_prepared_data_it_says_how_to_have_them(tmp_path: Path, params_file: Any) -> None:
    words = ["estimate", "--params", str(params_file({})), "--data", str(tmp_path / "nowhere")]
    refused(CliRunner().invoke(main, words), "nowhere: holds no prepared data; run dvc repro prepare_data first")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step take a second, and the teacher three more where it computes: a busy host changes nothing."""
    seconds = 0

    def taking(function: Any, duration: int) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal seconds
            seconds += duration
            return function(*arguments)

        return call

    monkeypatch.setattr(TrainingStep, "__call__", taking(TrainingStep.__call__, 1))
    monkeypatch.setattr(FrozenTeacher, "targets", taking(FrozenTeacher.targets, 3))
    monkeypatch.setattr(foretelling, "time", SimpleNamespace(perf_counter=lambda: float(seconds)))


@pytest.mark.slow
@pytest.mark.usefixtures("counted")
def test_stored_logits_cost_the_teacher_in_the_first_epochs_alone(bench: Bench) -> None:
    changes = {"train_teacher__backbone": "resnet56", "distill_student__training__epochs": 40}
    at_each_step, stored = (estimates(bench, **changes, distill_student__stored_views=views)[1] for views in (None, 1))
    assert (at_each_step.num_steps, stored.num_steps) == (40, 40 * 2), "what comes again leaves no image out"
    assert stored.seconds / stored.num_steps < 0.7 * at_each_step.seconds / at_each_step.num_steps
    assert at_each_step.seconds == 40 * (1 + 3)
    assert stored.seconds == 80 + 3 * 2, "the teacher computes in the two steps of the first epoch"
    assert not list(bench.folder.rglob("view-*"))
