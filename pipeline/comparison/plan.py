"""The runs of a comparison: folders, parameters and the stage commands of each."""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.comparison.config import Changes, Comparison, changed_params, folder_name
from pipeline.core.files import Json, read_json, write_json, write_text
from pipeline.params.loading import load_params
from pipeline.preflight.checks import check_backbones, check_feature_map, check_feature_pairs

Command = list[str]
"""A stage's module and its arguments."""


@dataclass(frozen=True)
class Run:
    """Stage commands that belong together, and how to know that they have run."""

    name: str
    folder: Path
    commands: list[Command]
    facts: Callable[[], object]
    """Returns what, besides the commands, decides whether an earlier result still counts."""

    @property
    def done_file(self) -> Path:
        """Return the file that is written when all commands have succeeded."""
        return self.folder / "done.json"

    def fingerprint(self) -> str:
        """Return a text that changes with the commands and with what they need."""
        return hashlib.sha256(repr((self.commands, self.facts())).encode()).hexdigest()

    def is_done(self) -> bool:
        """Return whether the commands have succeeded with what they need now, and what they wrote is still there."""
        paths = [Path(value) for command in self.commands for _, value in _options(command)]
        return (
            all(path.exists() for path in (self.done_file, *paths))
            and read_json(self.done_file).get("fingerprint") == self.fingerprint()
        )

    def mark_done(self, seconds: float) -> None:
        """Note that the commands have succeeded, in ``seconds``."""
        write_json(self.done_file, {"fingerprint": self.fingerprint(), "seconds": round(seconds, 1)})


@dataclass(frozen=True)
class Trial(Run):
    """One training of one method."""

    method: str
    seed: int

    def report(self, name: str) -> Json:
        """Return the JSON report ``name`` of this trial."""
        return read_json(self.folder / name)


def teacher_run(comparison: Comparison, out: Path) -> Run:
    """Return the run that prepares the data and obtains the teacher, once for all trials.

    Raises:
        UserError: the parameters are wrong.
    """
    folder = out / "teacher"
    params = _write_params(comparison, folder, _method_with_teacher(comparison, folder))
    facts, data, teacher = folder / "environment.json", folder / "data", folder / "teacher"
    commands = [
        ["stages.prepare_data", "--params", str(params), "--out", str(data)],
        [
            "stages.train_teacher", "--params", str(params), "--environment", str(facts), "--data", str(data),
            "--out", str(teacher), "--metrics", str(folder / "teacher.json"),
            "--history", str(folder / "teacher_history.csv"),
        ],
    ]  # fmt: skip

    def given() -> object:
        inputs = read_json(facts)["inputs"]
        own = _sections(params, "base", "prepare_data", "train_teacher")
        return own, [inputs[key] for key in ("data", "teacher", "teacher_weights")]

    return Run("teacher", folder, commands, given)


def _method_with_teacher(comparison: Comparison, folder: Path) -> Changes:
    """Return the changes of the first method that needs a teacher, or of the last where none does."""
    for changes in comparison.methods.values():
        if load_params(_write_params(comparison, folder, changes)).distill_student.needs_teacher:
            break
    return changes


def probe_command(run: Run) -> Command:
    """Return the command that checks parameters and paths of the teacher's run and writes ``environment.json``."""
    params, facts = run.folder / "params.yaml", run.folder / "environment.json"
    return ["stages.probe_environment", "--params", str(params), "--out", str(facts)]


def trials(comparison: Comparison, out: Path) -> list[Trial]:
    """Return the trials, all methods of a seed before the next seed; writes their parameters.

    Raises:
        UserError: the parameters of a method are wrong; nothing has run then.
    """
    return [_trial(comparison, out, method, seed) for seed in comparison.seeds for method in comparison.methods]


def _trial(comparison: Comparison, out: Path, method: str, seed: int) -> Trial:
    folder = out / "trials" / f"{folder_name(method)}-{seed}"
    params = _write_params(comparison, folder, comparison.methods[method] | {"base.seed": seed})
    shared = out / "teacher"
    data, student, calibration = shared / "data", folder / "student", folder / "calibration"
    common = ["--params", str(params), "--data", str(data)]
    commands = [
        [
            "stages.distill_student", *common, "--teacher", str(shared / "teacher"), "--out", str(student),
            "--metrics", str(folder / "student.json"), "--history", str(folder / "history.csv"),
        ],
        [
            "stages.calibrate_steps", *common, "--student", str(student), "--out", str(calibration),
            "--curve", str(folder / "curve.csv"),
        ],
        [
            "stages.evaluate", "torch", *common, "--student", str(student), "--calibration", str(calibration),
            "--artifact", str(student), "--out", str(folder / "evaluation.json"),
            "--scores", str(folder / "scores.json"), "--confusion", str(folder / "confusion.csv"),
        ],
        [
            "stages.trace_flow", *common, "--teacher", str(shared / "teacher"), "--student", str(student),
            "--steps", str(folder / "steps.csv"), "--by-num-steps", str(folder / "flow_by_num_steps.csv"),
        ],
    ]  # fmt: skip
    return Trial(
        f"{method}, seed {seed}", folder, commands,
        lambda: (
            _sections(params, "base", "distill_student", "calibrate_steps", "evaluate"),
            read_json(shared / "done.json")["fingerprint"],
        ),
        method, seed,
    )  # fmt: skip


def _sections(params: Path, *names: str) -> str:
    return load_params(params).model_dump_json(include=set(names))


def _write_params(comparison: Comparison, folder: Path, changes: Changes) -> Path:
    path = folder / "params.yaml"
    text = changed_params(Path(comparison.params), comparison.changes | changes)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    params = load_params(path)
    backbones = {
        "distill_student.backbone": params.distill_student.backbone,
        "train_teacher.backbone": params.train_teacher.backbone,
    }
    check_backbones(backbones, known=())
    if params.distill_student.needs_feature_map:
        check_feature_map(params.distill_student.backbone, earlier={})
    check_feature_pairs(list(backbones.values()), params.distill_student.taught_pairs, earlier={})
    return path


def _options(command: Command) -> list[tuple[str, str]]:
    """Return the options of ``command`` with their values, which are paths."""
    return [(name, value) for name, value in itertools.pairwise(command) if name.startswith("--")]


def unfinished(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose result is missing, or was made from other parameters, data or teacher."""
    return [run for run in runs if not run.is_done()]
