"""The table of stages: their command lines, and what each of them reads and writes.

dvc.yaml says the same to DVC, and a test compares the two. To add a stage: a module in ``stages``, an entry here, and
its lines in dvc.yaml. Stages are run by DVC and by the comparison, each as a process of its own.
"""

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.core.table import Entry, Table
from pipeline.evaluation.runtimes import RUNTIMES

ENVIRONMENT = "artifacts/environment.json"
"""What the probe found: the user's files, what this host can build."""
CODE = "artifacts/code.json"
"""What the probe found: from each stage to the digest of its code."""
PROBE = "probe_environment"


class Kind(enum.Enum):
    """What a path on a command line is to DVC: the key under which it stands in dvc.yaml.

    Nothing stands under ``plots`` of a stage: DVC would draw such a file once more, beside the plots that are meant.
    """

    INPUT = "deps"
    FACTS = "params"
    """A JSON file of which the stage declares the keys that it needs."""
    OUTPUT = "outs"
    """Kept in DVC's cache, not in git."""
    REPORT = "outs, kept in git"
    METRICS = "metrics"
    """A column of ``dvc metrics show`` and ``dvc exp show`` for each of its figures; kept in git."""


@dataclass(frozen=True)
class PathOption:
    """A required option that takes a path."""

    name: str
    """As it is written: ``--by-num-steps``."""
    help: str
    kind: Kind
    path: str
    """Where it lies in the project; ``{runtime}`` and ``{artifact}`` stand for those of ``StageEntry.runtimes``."""
    part: str = ""
    """What the stage needs below the path, where that is not all."""

    @property
    def argument(self) -> str:
        """Return the name of the Python argument."""
        return self.name.removeprefix("--").replace("-", "_")


@dataclass(frozen=True, kw_only=True)
class StageEntry(Entry):
    """A stage in the table; ``description`` is that of dvc.yaml."""

    load: Callable[[], None] = lambda: None
    """Nothing to load: a stage is started as ``python -m``."""
    options: tuple[PathOption, ...]
    params: tuple[str, ...] = ()
    """The keys of params.yaml on which it depends."""
    facts: tuple[str, ...] = ()
    """The keys of ``ENVIRONMENT`` on which it depends."""
    runtimes: Mapping[str, str] = field(default_factory=dict)
    """For a stage that takes the argument RUNTIME: from each runtime to the folder of what runs in it."""

    never_loads: tuple[str, ...] = ()
    """Files, ``*`` for any name, that a table in its code loads for other stages: they are no code that it runs.

    A stage that loads one all the same fails.
    """

    @property
    def module(self) -> str:
        """Return the module of its command."""
        return f"stages.{self.name}"

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with this entry."""
        yield from super().faults()
        names = [option.name for option in self.options]
        if len(set(names)) < len(names) or not all(name.startswith("--") for name in names):
            yield f"has the options {', '.join(names)}; each name stands once and begins with --"

    def project_paths(self, runtime: str | None = None) -> dict[str, str]:
        """Return the path in the project for each of its options, by argument name."""
        names = {"runtime": runtime or "", "artifact": self.runtimes.get(runtime or "", "")}
        return {option.argument: option.path.format_map(names) for option in self.options}


_TRAINING_OF_TASKS = "pipeline/tasks/*/training.py"
_MAKING_OF_PRECISIONS = "pipeline/export/onnx/*"
_REVIEWS_OF_TASKS = ("pipeline/tasks/*/review.py", "pipeline/tasks/*/tiles.py")
"""What tasks load where a report is made: a better table of mistakes trains no teacher again."""
_DRAWING_OF_TASKS = "pipeline/tasks/*/drawing.py"
_NETWORKS_OF_TASKS = (_TRAINING_OF_TASKS, "pipeline/tasks/*/restrictions.py", "models/detection/*")
"""What tasks load where networks are, or where the probe asks which networks there can be."""

_EXECUTION = ("execution.compile", "execution.compile_fallback", "execution.num_processes")
"""Of the section execution: not on which hosts processes run, which changes no result."""
_DATA = PathOption("--data", "Packed data.", Kind.INPUT, "artifacts/data")
_TEACHER = PathOption("--teacher", "Folder of the teacher.", Kind.INPUT, "artifacts/teacher")
_STUDENT = PathOption("--student", "Folder of the student.", Kind.INPUT, "artifacts/student")
_CALIBRATION = PathOption("--calibration", "Folder of the calibration.", Kind.INPUT, "artifacts/calibration")
_TRADEOFF = PathOption(
    "--tradeoff", "Folder of the trade-off between accuracy and latency.", Kind.INPUT, "artifacts/tradeoff"
)
_ONNX = PathOption("--onnx", "Folder of the ONNX export.", Kind.INPUT, "artifacts/onnx")

STAGES = Table(
    "stage",
    StageEntry(
        name=PROBE,
        description="Check params and the user's paths; record what this host can build and what code each stage runs.",
        options=(
            PathOption("--out", "JSON file to write: the facts on which stages depend.", Kind.OUTPUT, ENVIRONMENT),
            PathOption("--code", "JSON file to write: the digest of each stage's code.", Kind.OUTPUT, CODE),
        ),
    ),
    StageEntry(
        name="prepare_data",
        description="Read the images, split them, pack them.",
        options=(PathOption("--out", "Folder to write: the splits and data.json.", Kind.OUTPUT, "artifacts/data"),),
        params=("base.seed", "prepare_data"),
        facts=("inputs.data",),
        never_loads=(*_NETWORKS_OF_TASKS, *_REVIEWS_OF_TASKS, _DRAWING_OF_TASKS),
    ),
    StageEntry(
        name="train_teacher",
        description="Train the teacher, or take the given weights.",
        options=(
            PathOption("--environment", "Facts of the probe: whether a teacher is needed.", Kind.FACTS, ENVIRONMENT),
            _DATA,
            PathOption(
                "--out", "Folder to write: weights and description of the teacher.", Kind.OUTPUT, "artifacts/teacher"
            ),
            PathOption("--metrics", "JSON report to write.", Kind.OUTPUT, "reports/teacher.json"),
            PathOption("--history", "CSV of the epochs to write.", Kind.OUTPUT, "reports/teacher_history.csv"),
        ),
        params=("base", *_EXECUTION, "train_teacher"),
        facts=("inputs.teacher", "inputs.teacher_classes", "inputs.teacher_network", "inputs.teacher_weights"),
        never_loads=(*_REVIEWS_OF_TASKS, _DRAWING_OF_TASKS),
    ),
    StageEntry(
        name="distill_student",
        description="Transfer the teacher into the student.",
        options=(
            _DATA,
            _TEACHER,
            PathOption(
                "--out",
                "Folder to write: weights and description of the student, and of what helped in training.",
                Kind.OUTPUT,
                "artifacts/student",
            ),
            PathOption("--metrics", "JSON report to write.", Kind.OUTPUT, "reports/student.json"),
            PathOption("--history", "CSV of the epochs to write.", Kind.OUTPUT, "reports/student_history.csv"),
        ),
        params=("base", "distill_student", *_EXECUTION),
        facts=("inputs.student_network", "inputs.student_weights"),
        never_loads=(*_REVIEWS_OF_TASKS, _DRAWING_OF_TASKS),
    ),
    StageEntry(
        name="calibrate_steps",
        description="Choose the number of sampling steps on held-out images.",
        options=(
            _DATA,
            _TEACHER,
            _STUDENT,
            PathOption("--out", "Folder to write: calibration.json.", Kind.OUTPUT, "artifacts/calibration"),
            PathOption(
                "--curve",
                "CSV to write: score and latency for each number of steps.",
                Kind.OUTPUT,
                "reports/calibration_curve.csv",
            ),
        ),
        params=("base", "calibrate_steps", "detections"),
        never_loads=(*_REVIEWS_OF_TASKS, _DRAWING_OF_TASKS),
    ),
    StageEntry(
        name="trace_flow",
        description="Follow the state along the flow, from student to teacher.",
        options=(
            _DATA,
            _TEACHER,
            _STUDENT,
            PathOption(
                "--steps", "CSV to write: each step of the longest trajectory.", Kind.OUTPUT, "reports/flow_steps.csv"
            ),
            PathOption(
                "--by-num-steps",
                "CSV to write: a row for each number of steps.",
                Kind.OUTPUT,
                "reports/flow_by_num_steps.csv",
            ),
            PathOption(
                "--likelihood",
                "CSV to write: how likely the flow makes what the teacher says.",
                Kind.OUTPUT,
                "reports/likelihood.csv",
            ),
            PathOption(
                "--ensemble",
                "CSV to write: what each step, or head, knows alone, and all together.",
                Kind.OUTPUT,
                "reports/ensemble.csv",
            ),
        ),
        params=("base", "calibrate_steps.candidates", "detections"),
        never_loads=(*_REVIEWS_OF_TASKS, _DRAWING_OF_TASKS),
    ),
    StageEntry(
        name="export_onnx",
        description="Unroll the calibrated student into the smallest ONNX of each precision and verify it.",
        options=(
            _DATA,
            _STUDENT,
            _CALIBRATION,
            PathOption(
                "--out",
                "Folder to write: an ONNX file for each precision, manifest.json, samples.safetensors.",
                Kind.OUTPUT,
                "artifacts/onnx",
            ),
        ),
        params=("base", "detections", "export_onnx"),
        never_loads=(*_REVIEWS_OF_TASKS, _DRAWING_OF_TASKS),
    ),
    StageEntry(
        name="measure_tradeoff",
        description="Measure score and latency of each number of steps in each precision.",
        options=(
            _DATA,
            _STUDENT,
            _ONNX,
            PathOption("--out", "Folder to write: tradeoff.json.", Kind.OUTPUT, "artifacts/tradeoff"),
        ),
        params=(
            "base",
            "calibrate_steps.candidates",
            "detections",
            "evaluate.latency_batch_sizes",
            "export_onnx.calibration",
            "export_onnx.collapse",
            "export_onnx.input",
            "export_onnx.opset",
            "measure_tradeoff",
        ),
        never_loads=(*_REVIEWS_OF_TASKS, _DRAWING_OF_TASKS),
    ),
    StageEntry(
        name="export_tensorrt",
        description="Build the engine where the probe says it can be built, else say why not.",
        options=(
            _ONNX,
            PathOption("--environment", "Facts of the probe: what this host can build.", Kind.FACTS, ENVIRONMENT),
            PathOption(
                "--out",
                "Folder to write: engines, what each of them is, and status.json.",
                Kind.OUTPUT,
                "artifacts/tensorrt",
            ),
        ),
        params=("export_tensorrt",),
        facts=("tensorrt",),
        never_loads=(_MAKING_OF_PRECISIONS, *_NETWORKS_OF_TASKS, *_REVIEWS_OF_TASKS, _DRAWING_OF_TASKS),
    ),
    StageEntry(
        name="evaluate",
        description="Evaluate one runtime on the test split: score, parity and latency.",
        options=(
            _DATA,
            PathOption("--student", "Folder of the trained student, the reference.", Kind.INPUT, "artifacts/student"),
            _CALIBRATION,
            PathOption(
                "--artifact",
                "Folder of what is evaluated: the student, the ONNX export or the TensorRT engine.",
                Kind.INPUT,
                "{artifact}",
            ),
            PathOption("--out", "JSON report to write.", Kind.OUTPUT, "reports/evaluation/{runtime}.json"),
            PathOption(
                "--scores",
                "JSON to write: what of the report is the same in every run, for the stages that follow.",
                Kind.OUTPUT,
                "artifacts/evaluation/{runtime}.json",
            ),
            PathOption(
                "--predictions",
                "CSV to write: what is right about each image, what is found, and how surely.",
                Kind.OUTPUT,
                "artifacts/evaluation/{runtime}_predictions.csv",
            ),
        ),
        params=("base.deterministic", "base.device", "base.seed", "detections", "evaluate", "export_onnx.gates"),
        runtimes={name: entry.artifact for name, entry in RUNTIMES.items()},
        never_loads=(_MAKING_OF_PRECISIONS, *_REVIEWS_OF_TASKS, _DRAWING_OF_TASKS),
    ),
    StageEntry(
        name="report",
        description="Show the result: headline figures, mistakes, classes, plots, galleries, one page.",
        options=(
            _DATA,
            PathOption(
                "--predictions",
                "CSV of what ONNX Runtime finds on each test image.",
                Kind.INPUT,
                "artifacts/evaluation/onnx_predictions.csv",
            ),
            PathOption("--evaluation", "JSON report of ONNX Runtime.", Kind.INPUT, "reports/evaluation/onnx.json"),
            PathOption("--trained", "JSON scores of PyTorch.", Kind.INPUT, "artifacts/evaluation/torch.json"),
            PathOption("--onnx", "Folder of the ONNX export.", Kind.INPUT, "artifacts/onnx", part="manifest.json"),
            _CALIBRATION,
            _TRADEOFF,
            PathOption("--teacher", "JSON report of the teacher.", Kind.INPUT, "reports/teacher.json"),
            PathOption("--student", "JSON report of the student.", Kind.INPUT, "reports/student.json"),
            PathOption("--teacher-history", "CSV of its epochs.", Kind.INPUT, "reports/teacher_history.csv"),
            PathOption("--student-history", "CSV of its epochs.", Kind.INPUT, "reports/student_history.csv"),
            PathOption("--flow-steps", "CSV of the steps of the flow.", Kind.INPUT, "reports/flow_steps.csv"),
            PathOption(
                "--flow-by-num-steps",
                "CSV of the flow for each number of steps.",
                Kind.INPUT,
                "reports/flow_by_num_steps.csv",
            ),
            PathOption(
                "--likelihood",
                "CSV of how likely the flow makes what the teacher says.",
                Kind.INPUT,
                "reports/likelihood.csv",
            ),
            PathOption("--out", "Folder to write: report.html and its pictures.", Kind.OUTPUT, "artifacts/report"),
            PathOption("--metrics", "JSON to write: the headline figures.", Kind.METRICS, "reports/metrics.json"),
            PathOption(
                "--mistakes", "CSV to write: the mistakes, the surest first.", Kind.REPORT, "reports/mistakes.csv"
            ),
            PathOption("--classes", "CSV to write: a row for each class.", Kind.REPORT, "reports/per_class.csv"),
            PathOption(
                "--confusion", "CSV to write: how often what is taken for what.", Kind.REPORT, "reports/confusion.csv"
            ),
            PathOption(
                "--precision-recall",
                "CSV to write: the precision over the recall.",
                Kind.REPORT,
                "reports/precision_recall.csv",
            ),
            PathOption(
                "--score-by-epoch",
                "CSV to write: the score of each network on calib after each epoch.",
                Kind.REPORT,
                "reports/score_by_epoch.csv",
            ),
            PathOption(
                "--score-by-steps",
                "CSV to write: the score of each number of steps on calib and on test.",
                Kind.REPORT,
                "reports/score_by_steps.csv",
            ),
            PathOption(
                "--likelihood-by-steps",
                "CSV to write: theorem 3.1 for each number of steps, over all flows.",
                Kind.REPORT,
                "reports/likelihood_by_steps.csv",
            ),
        ),
        never_loads=(_MAKING_OF_PRECISIONS, *_NETWORKS_OF_TASKS),
    ),
    StageEntry(
        name="package",
        description="Put together what a consumer downloads.",
        options=(
            _ONNX,
            _CALIBRATION,
            PathOption("--data", "Packed data.", Kind.INPUT, "artifacts/data", part="data.json"),
            _TRADEOFF,
            PathOption("--report", "Folder of the report.", Kind.INPUT, "artifacts/report", part="card"),
            PathOption("--evaluation", "JSON scores of ONNX Runtime.", Kind.INPUT, "artifacts/evaluation/onnx.json"),
            PathOption("--teacher", "JSON report of the teacher.", Kind.INPUT, "reports/teacher.json"),
            PathOption("--student", "JSON report of the student.", Kind.INPUT, "reports/student.json"),
            PathOption("--environment", "Facts of the probe: name and origin.", Kind.FACTS, ENVIRONMENT),
            PathOption("--out", "Folder to write.", Kind.OUTPUT, "artifacts/package"),
        ),
        params=("export_tensorrt", "package"),
        facts=("inputs.package", "inputs.signing_key"),
        never_loads=(
            _MAKING_OF_PRECISIONS,
            *_NETWORKS_OF_TASKS,
            *_REVIEWS_OF_TASKS,
            "pipeline/evaluation/latency_baselines.py",
            "pipeline/tasks/*/truth.py",
        ),
    ),
)


def command_line(
    name: str, paths: Mapping[str, str | Path], params: str | Path | None = None, runtime: str | None = None
) -> list[str]:
    """Return the module of the stage ``name`` and its arguments.

    Args:
        paths: one for each option, by argument name (``by_num_steps``).
        params: the parameters file; None leaves it at params.yaml.
        runtime: for a stage that takes the argument RUNTIME.

    Raises:
        ValueError: there is no such stage, it takes no such path or runtime, or one is missing.
    """
    stage = STAGES[name]
    arguments = [option.argument for option in stage.options]
    if set(paths) != set(arguments):
        got = ", ".join(sorted(paths)) or "nothing"
        raise ValueError(f"{name}: got paths for {got}; needed are {', '.join(arguments)}")
    fits = runtime in stage.runtimes if stage.runtimes else runtime is None
    if not fits:
        known = f"one of {', '.join(stage.runtimes)}" if stage.runtimes else "none"
        raise ValueError(f"{name}: got the runtime {runtime!r}; needed is {known}")
    words = [stage.module] if runtime is None else [stage.module, runtime]
    if params is not None:
        words += ["--params", str(params)]
    for option in stage.options:
        words += [option.name, str(paths[option.argument])]
    return words
