"""The runs of a comparison: folders, parameters and the stage commands of each."""

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.deploy import with_each_num_steps
from pipeline.comparison.config import Changes, Comparison, Side, changed_params, described, folder_name
from pipeline.core.errors import UserError
from pipeline.core.files import Json, read_json, write_json, write_text
from pipeline.params.schema import Params, load_params
from pipeline.preflight.assumed_networks import assumed_student
from pipeline.preflight.checks import earlier_inputs
from pipeline.preflight.code import PROJECT, CodeReader
from pipeline.preflight.network_checks import check_networks, known_size
from pipeline.preflight.stage_table import PROBE, STAGES, StageEntry, command_line
from pipeline.preflight.weights import check_given_weights

RUN = ("prepare_data", "train_teacher", "distill_student", "calibrate_steps", "evaluate", "trace_flow")
"""The stages that a comparison runs."""
Command = list[str]
"""A stage's module and its arguments."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Stage commands that belong together, and how to know that they have run."""

    name: str
    folder: Path
    commands: list[Command]
    shared: Path | None = None
    """The folder of the run whose data and teacher it uses; None: it uses none."""

    @property
    def params(self) -> Path:
        """Return its parameters file."""
        return self.folder / "params.yaml"

    @property
    def environment(self) -> Path:
        """Return the file of facts about the user's files, which the probe writes."""
        return self.folder / "environment.json"

    @property
    def done_file(self) -> Path:
        """Return the file that is written when all commands have succeeded."""
        return self.folder / "done.json"

    @property
    def settings(self) -> Params:
        """Return its parameters."""
        return _loaded(self.params, self.params.read_text(encoding="utf-8"))

    def stages(self) -> list[StageEntry]:
        """Return the stages that its commands run."""
        return [STAGES[command[0].rpartition(".")[2]] for command in self.commands]

    def parameters(self) -> Json:
        """Return the parameters on which its stages depend, by the keys that they declare."""
        keys = [key for stage in self.stages() for key in stage.params]
        return _values(self.settings.model_dump(mode="json"), keys)

    def facts(self) -> Json:
        """Return what was found of the user's files on which its stages depend, by the keys that they declare."""
        keys = [key for stage in self.stages() for key in stage.facts]
        return _values(read_json(self.environment), keys) if keys else {}

    def fingerprint(self, code: Mapping[str, str] | None = None) -> str:
        """Return a text that changes with whatever decides what the commands write.

        These are the commands, the parameters, facts and code on which their stages depend, and the run whose data and
        teacher they use.

        Args:
            code: from each stage to the digest of its code; None: that of the code as it is now.
        """
        digests = code_digests() if code is None else code
        known = {
            "commands": self.commands,
            "params": self.parameters(),
            "code": {stage.name: digests[stage.name] for stage in self.stages()},
        }
        facts = self.facts()
        if facts:
            known["facts"] = facts
        if self.shared is not None:
            known["shared"] = read_json(self.shared / "done.json")["fingerprint"]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def is_done(self, code: Mapping[str, str] | None = None) -> bool:
        """Return whether the commands have succeeded with what they need now, and what they wrote is still there."""
        if not self.done_file.exists():
            return False
        paths = [Path(value) for command in self.commands for _, value in _options(command)]
        is_there = self.diverged() is not None or all(path.exists() for path in paths)
        return is_there and read_json(self.done_file).get("fingerprint") == self.fingerprint(code)

    def may_diverge(self) -> bool:
        """Return whether a training that diverges is a finding, and no failure."""
        return False

    def seconds(self) -> float:
        """Return how long it took, once it is done."""
        return float(read_json(self.done_file)["seconds"])

    def diverged(self) -> str | None:
        """Return how its training diverged, once it is done; None: it did not."""
        how: str | None = read_json(self.done_file).get("diverged")
        return how

    def mark_done(self, fingerprint: str, seconds: float, *, diverged: str | None = None) -> None:
        """Note that the commands have ended in ``seconds``.

        Args:
            fingerprint: that from before they started.
            diverged: how the training diverged; None: all have succeeded.
        """
        known = {"fingerprint": fingerprint, "seconds": round(seconds, 1)}
        write_json(self.done_file, known | ({} if diverged is None else {"diverged": diverged}))


@dataclass(frozen=True, kw_only=True)
class Trial(Run):
    """One training of one method."""

    method: str
    seed: int
    values: Changes = field(default_factory=dict)
    """What is tuned, and what it is set to here."""

    @property
    def is_evaluated(self) -> bool:
        """Whether the test split is seen: not by a run that only tunes."""
        return "evaluate" in [stage.name for stage in self.stages()]

    def may_diverge(self) -> bool:
        """Return whether its values are tuned: others are chosen, then."""
        return bool(self.values)

    def needs_teacher(self) -> bool:
        """Return whether its method learns from a teacher."""
        return self.settings.distill_student.needs_teacher

    def wanted(self) -> Json:
        """Return all on which its result depends but code, data and teacher."""
        return self.parameters() | self.facts()

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
    data = folder / "data"
    train_teacher = {
        "environment": folder / "environment.json",
        "data": data,
        "out": folder / "teacher",
        "metrics": folder / "teacher.json",
        "history": folder / "teacher_history.csv",
    }
    commands = [
        command_line("prepare_data", {"out": data}, params),
        command_line("train_teacher", train_teacher, params),
    ]
    return Run(name="teacher", folder=folder, commands=commands)


def _method_with_teacher(comparison: Comparison, folder: Path) -> Changes:
    """Return the changes of the first method that needs a teacher, or of the last where none does."""
    for changes in comparison.methods.values():
        path = _write_params(comparison, folder, changes)
        if _loaded(path, path.read_text(encoding="utf-8")).distill_student.needs_teacher:
            break
    return changes


def probe_command(run: Run) -> Command:
    """Return the command that checks parameters and paths of the teacher's run and writes its facts."""
    return command_line(PROBE, {"out": run.environment, "code": run.folder / "code.json"}, run.params)


def trials(
    comparison: Comparison,
    out: Path,
    chosen: Mapping[str, Changes] | None = None,
    *,
    seeds: Sequence[int] | None = None,
) -> list[Trial]:
    """Return the trials, all methods of a seed before the next seed; writes parameters and facts of each.

    Args:
        chosen: from a method to the values that were chosen for it; None: nothing is tuned.
        seeds: which; None: all of the comparison.

    Raises:
        UserError: the parameters of a method are wrong; nothing has run then.
    """
    return _checked(
        [
            _trial(comparison, out, method, seed, (chosen or {}).get(method, {}))
            for seed in (comparison.seeds if seeds is None else seeds)
            for method in comparison.methods
        ]
    )


def tuning_trials(comparison: Comparison, out: Path) -> list[Trial]:
    """Return the runs that choose the values of each method on the calibration split; as ``trials``."""
    return _checked(
        [
            _trial(comparison, out, method, seed, values, tunes=True)
            for seed in comparison.tune_seeds
            for method in comparison.tuned_methods
            for values in comparison.tried_values
        ]
    )


def check_sides(comparison: Comparison, found: Sequence[Trial]) -> None:
    """Raise UserError where ``differences`` names a number of steps with which its method will not be scored.

    Args:
        found: trials, at least one of each method; of a method whose values are tuned, one with each that may be
            chosen.
    """
    for side in itertools.chain(*comparison.sides):
        if side.num_steps is None:
            continue
        scored = set[int]()
        for settings in [trial.settings for trial in found if trial.method == side.method]:
            steps = _scored_steps(settings)
            if steps is None or side.num_steps in steps:
                break
            scored.update(steps)
        else:
            raise UserError(f"differences: got {str(side)!r}, but {_how_scored(side, sorted(scored))}")


def _how_scored(side: Side, scored: Sequence[int]) -> str:
    if not scored:
        return f"{side.method} takes no steps when it deploys; give {side.method}"
    other = "add it to calibrate_steps.candidates" if side.num_steps else "a method with theta.tied"
    return f"{side.method} is scored at K = {', '.join(map(str, scored))}; give one of them, or {other}"


def _scored_steps(params: Params) -> list[int] | None:
    """Return the numbers of steps with which the student of ``params`` is scored; none where it takes none.

    None: it cannot be built before the size of its images is known, so that only its training shows them.
    """
    try:
        student = assumed_student(params)
    except UserError:
        if known_size(params) is None:
            return None
        raise
    networks = with_each_num_steps(student, params.calibrate_steps.candidates)
    return [network.num_steps for network in networks if network.num_steps is not None]


def _checked(found: list[Trial]) -> list[Trial]:
    """Return ``found``, whose networks and given weights are there; writes the facts of each."""
    checked: dict[str, Json] = {}
    for trial in found:
        params = trial.settings
        earlier = checked.get(trial.method) or earlier_inputs(trial.environment)
        facts = check_networks(params, earlier=earlier) | check_given_weights(params, earlier=earlier)
        checked[trial.method] = facts
        write_json(trial.environment, {"inputs": facts})
    return found


def _trial(comparison: Comparison, out: Path, method: str, seed: int, values: Changes, *, tunes: bool = False) -> Trial:
    """Return the run of ``method`` with ``values``; one that ``tunes`` ends where the test split would be seen."""
    name, shared = folder_name(method), out / "teacher"
    said = f"{method}, {described(values)}" if tunes else method
    if values:
        name += f"-{hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:8]}"
    folder = out / ("tuning" if tunes else "trials") / f"{name}-{seed}"
    params = _write_params(comparison, folder, comparison.methods[method] | values | {"base.seed": seed})
    data, teacher = shared / "data", shared / "teacher"
    student, calibration = folder / "student", folder / "calibration"
    distill_student = {
        "data": data,
        "teacher": teacher,
        "out": student,
        "metrics": folder / "student.json",
        "history": folder / "history.csv",
    }
    calibrate_steps = {
        "data": data,
        "teacher": teacher,
        "student": student,
        "out": calibration,
        "curve": folder / "curve.csv",
    }
    evaluate = {
        "data": data,
        "student": student,
        "calibration": calibration,
        "artifact": student,
        "out": folder / "evaluation.json",
        "scores": folder / "scores.json",
        "predictions": folder / "predictions.csv",
    }
    trace_flow = {
        "data": data,
        "teacher": teacher,
        "student": student,
        "steps": folder / "flow_steps.csv",
        "by_num_steps": folder / "flow_by_num_steps.csv",
        "likelihood": folder / "likelihood.csv",
        "ensemble": folder / "ensemble.csv",
    }
    commands = [
        command_line("distill_student", distill_student, params),
        command_line("calibrate_steps", calibrate_steps, params),
        command_line("evaluate", evaluate, params, runtime="torch"),
        command_line("trace_flow", trace_flow, params),
    ]
    return Trial(
        name=f"{said}, seed {seed}",
        folder=folder,
        commands=commands[:2] if tunes else commands,
        shared=shared,
        method=method,
        seed=seed,
        values=values,
    )


def _write_params(comparison: Comparison, folder: Path, changes: Changes) -> Path:
    """Write the parameters with ``changes`` into ``folder``; raises UserError where they are not valid."""
    path = folder / "params.yaml"
    text = changed_params(comparison, changes)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    _loaded(path, text)
    return path


@functools.cache
def _loaded(path: Path, text: str) -> Params:  # noqa: ARG001  (a changed text is read anew)
    return load_params(path)


def code_digests() -> dict[str, str]:
    """Return the digest of the code of each stage that a comparison runs, as it is now."""
    code = CodeReader(PROJECT)
    return {name: code.digest(STAGES[name]) for name in RUN}


def _values(content: Json, keys: Sequence[str]) -> Json:
    """Return the values of the dotted ``keys`` in ``content``."""
    found: Json = {}
    for key in keys:
        value: object = content
        for part in key.split("."):
            assert isinstance(value, dict)
            value = value[part]
        found[key] = value
    return found


def _options(command: Command) -> list[tuple[str, str]]:
    """Return the options of ``command`` with their values, which are paths."""
    return [(name, value) for name, value in itertools.pairwise(command) if name.startswith("--")]


def unfinished(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose result is missing, or was made from other parameters, data, teacher or code."""
    code = code_digests()
    return [run for run in runs if not run.is_done(code)]
