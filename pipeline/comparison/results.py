"""What a comparison keeps of each finished run: one small JSON file without weights, which can be committed.

The report is made from these alone. A later comparison, on another host too, goes on from them: a run is not made again
whose parameters, data and teacher are the same. Its code may have been other; the report says so.
"""

import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pipeline.comparison.config import Changes
from pipeline.comparison.plan import Run, Trial, code_digests
from pipeline.core.errors import UserError
from pipeline.core.files import Json, read_csv, read_json, sha256, write_json
from pipeline.core.plain import read_plain, shown
from pipeline.core.records import CalibrationRecord, DescribedDataRecord, read_record
from pipeline.networks.spec import WEIGHTS
from pipeline.package.provenance import read_commit
from pipeline.params.loading import fault_lines
from pipeline.params.schema import Params
from pipeline.preflight.code import PACKAGES, PROJECT
from pipeline.tasks.table import get_task

TEACHER = "teacher.json"
"""The file of what all runs share, beside theirs."""
TABLES = ("flow_by_num_steps", "flow_steps", "likelihood", "ensemble", "history")
"""The CSV files that go along, by their names."""
DRAWN = {
    "history": ("epoch", ["val_{}"]),
    "flow_by_num_steps": ("num_steps", ["{}"]),
    "flow_steps": ("step", ["step_{}", "ensemble_{}"]),
}
"""From a table to the column that counts its rows, and those of its scores, of whatever the task's is called."""
SPLITS = ("train", "calib", "test")
VERSIONS = ("numpy", "torch", "torchvision")
MADE_AGAIN = "take it out of the folder, and its run is made again"
Row = dict[str, str]


class Kept(BaseModel):
    """What is kept as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what the file ``path`` holds.

        Raises:
            UserError: it is missing, or not as a comparison writes it.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            line = fault_lines(error.errors(), cls)[0]
            raise UserError(f"{path}: {line}; {MADE_AGAIN}") from error

    def write(self, path: Path) -> None:
        """Write it as ``path``."""
        write_json(path, self.model_dump(mode="json"))


class Origin(Kept):
    """Where and by which code a run was made."""

    commit: str | None
    """None: it is not known; with "+" where code differed from it."""
    code: dict[str, str]
    """From each stage of a comparison to the digest of its code."""
    versions: dict[str, str]
    hardware: str

    def __str__(self) -> str:
        """Return it for a protocol."""
        digest = hashlib.sha256(json.dumps(self.code, sort_keys=True).encode()).hexdigest()[:8]
        commit = f", commit {self.commit}" if self.commit else ""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"code {digest}{commit}; {versions}; {self.hardware}"


class Teaching(Kept):
    """The data and the teacher that all runs share."""

    parameters: Json
    """Those that made them, by dotted key."""
    data: str
    """A digest of the images and their labels."""
    teacher: str | None
    """A digest of the weights; None: there is no teacher."""
    task: str
    sizes: dict[str, int]
    score: float | None
    """The teacher's on the test split."""

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        get_task(self.task)
        for split in SPLITS:
            if self.sizes.get(split, 0) < 1:
                raise ValueError(f"sizes: {split} is {shown(self.sizes.get(split))}, expected a number of images")
        return self

    def same_parameters(self, wanted: Json) -> bool:
        """Return whether these were made with the parameters ``wanted``."""
        return same_parameters(self.parameters, wanted)


class Result(Kept):
    """What is kept of a finished run."""

    method: str
    seed: int
    values: Changes
    """What was tuned, and what it was set to; empty where nothing is."""
    parameters: Json
    """All that its stages depend on, by dotted key, and what was found of the user's files."""
    data: str
    teacher: str | None
    """A digest of the weights; None: the method learns from no teacher."""
    origin: Origin
    seconds: float
    num_parameters: int | None
    """None: the training diverged."""
    calibration: Json | None
    """None: the training diverged."""
    diverged: str | None = None
    """How, of a run whose values are tuned."""
    scores: Json | None
    """On the test split; None of a run that only tunes, which never sees it."""
    tables: dict[str, list[Row]]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        for name, value in (("calibration", self.calibration), ("num_parameters", self.num_parameters)):
            if (value is None) == (self.diverged is None):
                raise ValueError(f"{name}: got {shown(value)}; a run has it, unless it diverged")
        if self.calibration is not None:
            try:
                read_plain(CalibrationRecord, self.calibration)
            except ValueError as error:
                raise ValueError(f"calibration: {error}") from error
        return self

    def check_scores(self, primary: str) -> None:
        """Raise ValueError where it lacks ``primary``, the score of its task, somewhere, or what a plot is drawn by."""
        curve = [] if self.calibration is None else self.calibration["curve"]
        scored = {"calibration": curve, "scores": [] if self.scores is None else [self.scores]}
        for name, rows in scored.items():
            _check_numbers(name, rows, [primary])
        for name, (count, scores) in DRAWN.items():
            _check_numbers(name, self.tables.get(name, []), [score.format(primary) for score in scores])
            for row in self.tables.get(name, []):
                if not row.get(count, "").isdecimal():
                    raise ValueError(f"{name}: {count} is {shown(row.get(count))}, expected a count")
        steps, known = self.tables.get("flow_by_num_steps", []), {str(point["num_steps"]) for point in curve}
        for row in steps:
            if known != {"None"} and row["num_steps"] not in known:
                raise ValueError(f"flow_by_num_steps: num_steps is {row['num_steps']}, expected one of calibration's")
        if steps and not self.tables.get("flow_steps"):
            raise ValueError("flow_steps: missing, and flow_by_num_steps is there")
        members = self.tables.get("ensemble", [])
        _check_numbers("ensemble", members, ["accuracy"])
        names = [row.get("member") for row in members]
        if names and names != [*map(str, range(1, len(names) - 1)), "mean", "best"]:
            raise ValueError(f"ensemble: member is {shown(names)}, expected 1, 2 and so on, mean, best")

    def curve_point(self) -> Json:
        """Return the point of the calibrated number of steps on the curve over the calibration split."""
        assert self.calibration is not None
        found: Json = next(p for p in self.calibration["curve"] if p["num_steps"] == self.calibration["num_steps"])
        return found

    def calib_score(self, primary: str) -> float | None:
        """Return the score ``primary`` of that point; None: the training diverged."""
        return None if self.calibration is None else float(self.curve_point()[primary])


def _check_numbers(name: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Raise ValueError where one of the ``columns`` is no number in some of the ``rows`` of the table ``name``."""
    for row in rows:
        for column in columns:
            if not _is_number(row.get(column)):
                raise ValueError(f"{name}: {column} is {shown(row.get(column))}, expected a number")


def _is_number(value: object) -> bool:
    try:
        return math.isfinite(float(str(value)))
    except ValueError:
        return False


def same_parameters(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether ``kept`` parameters are those ``wanted``; one that did not exist then must have its default."""
    known = all(key in kept or value == defaults().get(key, _NOTHING) for key, value in wanted.items())
    return known and all(key in wanted and wanted[key] == value for key, value in kept.items())


_NOTHING = object()


@functools.cache
def defaults() -> Json:
    """Return the default of each parameter by its dotted key."""
    return flat(Params().model_dump(mode="json"))


def flat(content: Mapping[str, Any], prefix: str = "") -> Json:
    """Return the values in ``content`` by their dotted keys."""
    found: Json = {}
    for name, value in content.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return found


def read_teaching(run: Run) -> Teaching:
    """Return what is to be known of the finished ``run`` of data and teacher."""
    data = read_record(run.folder / "data" / "data.json", DescribedDataRecord)
    task, sizes = data["task"], data["sizes"]
    images = dict(data["sha256"])
    if data.get("files_sha256") is not None:  # an index lists paths; what the files hold says more
        images["train.index.safetensors"] = data["files_sha256"]
    known = [images, data["classes"], data["image_size"]]
    weights = run.folder / "teacher" / WEIGHTS
    report = read_json(run.folder / "teacher.json")
    scores = [value for key, value in report.items() if key == f"test_{get_task(task).primary}"]
    return Teaching(
        parameters=flat(run.parameters()),
        data=hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest(),
        teacher=sha256(weights) if weights.exists() else None,
        task=task,
        sizes=sizes,
        score=scores[0] if scores else None,
    )


def read_result(trial: Trial, teaching: Teaching) -> Result:
    """Return what is to be kept of ``trial``, which is done."""
    evaluated, diverged = trial.folder / "scores.json", trial.diverged()
    return Result(
        method=trial.method,
        seed=trial.seed,
        values=trial.values,
        parameters=flat(trial.wanted()),
        data=teaching.data,
        teacher=teaching.teacher if trial.needs_teacher() else None,
        origin=origin(),
        seconds=trial.seconds(),
        num_parameters=None if diverged else trial.report("student/network.json")["num_parameters"],
        calibration=None if diverged else trial.report("calibration/calibration.json"),
        diverged=diverged,
        scores=read_json(evaluated) if trial.is_evaluated and not diverged else None,
        tables={name: read_csv(path) for name in TABLES if (path := trial.folder / f"{name}.csv").exists()},
    )


def origin() -> Origin:
    """Return where and by which code runs are made here and now."""
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    return Origin(
        commit=_commit(),
        code=code_digests(),
        versions={"Python": platform.python_version()} | versions,
        hardware=_hardware(),
    )


@functools.cache
def _commit() -> str | None:
    found = read_commit(PROJECT)
    changed = any(name.startswith(tuple(f"{package}/" for package in PACKAGES)) for name in found.changed)
    return None if found.sha is None else f"{found.sha[:12]}{'+' if changed else ''}"


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


class Store:
    """The results in ``folder``; none are kept without one.

    Args:
        same_code: whether those of other code do not count.
    """

    def __init__(self, folder: Path | None, *, same_code: bool = False) -> None:
        self.folder = folder
        self.code = code_digests() if same_code else None
        """What the code of results must be; None: it may be any."""
        paths = sorted(folder.glob("*.json")) if folder is not None else []
        self.teaching = next((Teaching.read(path) for path in paths if path.name == TEACHER), None)
        self._kept = {path.name: self._read(path) for path in paths if path.name != TEACHER}
        self._owners: dict[str, str] = {}
        """From the file of a result to the one that its trial would have by its present name."""

    @property
    def results(self) -> list[Result]:
        """Return all that are kept."""
        return [*self._kept.values()]

    def _read(self, path: Path) -> Result:
        result = Result.read(path)
        if self.teaching is not None:  # which says what is scored; without it no result counts
            try:
                result.check_scores(get_task(self.teaching.task).primary)
            except ValueError as error:
                raise UserError(f"{path}: {error}; {MADE_AGAIN}") from error
        return result

    def find(self, trial: Trial, teaching: Teaching) -> Result | None:
        """Return the result of ``trial`` under the data and teacher of ``teaching``, by the names that it has now.

        What its parameters say counts, whatever method and seed stand beside them.
        """
        wanted, teacher = flat(trial.wanted()), teaching.teacher if trial.needs_teacher() else None
        stages = [stage.name for stage in trial.stages()]
        for name, result in self._kept.items():
            if (
                (result.data, result.teacher) == (teaching.data, teacher)
                and (result.diverged is not None or (result.scores is not None) == trial.is_evaluated)
                and same_parameters(result.parameters, wanted)
                and (self.code is None or all(result.origin.code.get(s) == self.code[s] for s in stages))
            ):
                self._owners[name] = _file_of(trial)
                return result.model_copy(update={"method": trial.method, "seed": trial.seed, "values": trial.values})
        return None

    def keep(self, trial: Trial, result: Result) -> None:
        """Keep ``result`` of ``trial``."""
        self._keep_as(_file_of(trial), result)

    def _keep_as(self, name: str, result: Result) -> None:
        """Keep ``result`` in the file ``name``; one there of a method that has another name now moves to its own."""
        before, owner = self._kept.get(name), self._owners.pop(name, name)
        if before is not None and owner != name:
            self._keep_as(owner, before)
        self._kept[name] = result
        if self.folder is not None:
            result.write(self.folder / name)

    def keep_teaching(self, teaching: Teaching) -> None:
        """Keep what the results share."""
        if self.folder is not None and teaching != self.teaching:
            teaching.write(self.folder / TEACHER)
        self.teaching = teaching


def _file_of(trial: Trial) -> str:
    return f"{trial.folder.name}.json"


def origins(results: Iterable[Result]) -> dict[str, int]:
    """Return from each origin in words to how many of ``results`` come from there, the most frequent first."""
    found = [str(result.origin) for result in results]
    return dict(sorted(((one, found.count(one)) for one in set(found)), key=lambda pair: (-pair[1], pair[0])))


def tuning_runs(results: Sequence[Result], method: str, values: Changes) -> list[Result]:
    """Return those of ``results`` that tried ``values`` with ``method``."""
    return [result for result in results if result.method == method and result.values == values]
