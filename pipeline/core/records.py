"""What stages hand to each other in small JSON files: read with its types, so that a damaged file is named at once.

A record says only what its readers need; whatever else a file holds, such as the scores of its task, goes along. Some
of them lie in packages too, whose readers have NumPy and no more: see ``pipeline.core.plain``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pipeline.core.errors import UserError
from pipeline.core.files import Json, read_json
from pipeline.core.plain import Part, at_least, count_from, read_plain, shown

NumSteps = Annotated[int, at_least(0)] | None
Size = Annotated[list[Annotated[int, at_least(1)]], count_from(2, 2)]
"""Height and width."""
Triple = Annotated[list[float], count_from(3, 3)]


@dataclass(frozen=True, kw_only=True)
class Record(Part):
    """The content of a file that a stage wrote."""

    written_by: ClassVar[str]
    """What to run again where the file is damaged."""


@dataclass(frozen=True, kw_only=True)
class DataRecord(Record):
    """data.json: the prepared images."""

    written_by = "prepare_data"
    task: str
    classes: Annotated[list[str], count_from(1)]
    image_size: Size
    mean: Triple
    std: Triple
    resize: Literal["none", "central_square", "letterbox"]
    storage: Literal["packed", "index"]
    class_counts: dict[str, list[int]]
    category_ids: list[int] | None = None

    def __post_init__(self) -> None:
        if self.category_ids is not None and len(set(self.category_ids)) != len(self.classes):
            raise ValueError(f"category_ids are {shown(self.category_ids)}, one of its own for each class is needed")


@dataclass(frozen=True, kw_only=True)
class DescribedDataRecord(DataRecord):
    """The same, with where the images come from."""

    source: str
    sizes: dict[str, int]
    sha256: dict[str, str]
    files_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudentNetworkRecord(Record):
    """network.json of the student: how it is made."""

    written_by = "distill_student"
    method: str
    backbone: str
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Part):
    """A number of steps, and what it costs; its scores are the task's."""

    num_steps: NumSteps
    macs: int


@dataclass(frozen=True, kw_only=True)
class PlainSizeRecord(Part):
    """The size of the student without its flows."""

    num_parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord(Record):
    """calibration.json: the number of steps, and those that it was chosen from."""

    written_by = "calibrate_steps"
    num_steps: NumSteps
    plain: PlainSizeRecord | None = None
    reason: str
    num_images: int
    curve: list[CurvePoint]

    def __post_init__(self) -> None:
        if self.num_steps not in [point.num_steps for point in self.curve]:
            raise ValueError(f"num_steps is {self.num_steps}, which curve does not have")


@dataclass(frozen=True, kw_only=True)
class CheckRecord(Part):
    """What the static check says of a file."""

    accepted: bool


@dataclass(frozen=True, kw_only=True)
class Figures(Part):
    """How far a file is from the trained network; its primary score is the task's."""

    max_abs: float
    agreement: float
    total: int | None = None
    """How many answers were counted; None: a version before did not say it."""
    counted: str = "images"
    """What was counted."""


@dataclass(frozen=True, kw_only=True)
class Verification(Part):
    """What was found of a file on the test split."""

    test_split: Figures


@dataclass(frozen=True, kw_only=True)
class FileRecord(Part):
    """An ONNX file."""

    precision: str
    bytes: int
    gates: dict[str, Verification]
    form: str = ""
    """How small the network is written; empty: a version before did not say it."""
    tensorrt_static_check: dict[str, CheckRecord]


@dataclass(frozen=True, kw_only=True)
class ManifestRecord(Record):
    """manifest.json: the ONNX files."""

    written_by = "export_onnx"
    files: dict[str, FileRecord]
    gates: dict[str, dict[str, Any]]
    signature: dict[str, Any]
    num_steps: NumSteps
    opset: int
    student_sha256: str = ""
    """Of the student's weights; empty: a version before did not say it."""
    task: str = ""
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StatusRecord(Record):
    """status.json: the engines, or why there are none."""

    written_by = "export_tensorrt"
    status: Literal["built", "skipped"]
    reason: str
    engines: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class PointRecord(Part):
    """A point of the trade-off; its score is the task's."""

    num_steps: NumSteps
    precision: str
    bytes: int
    latency_ms: float
    on_the_front: bool


@dataclass(frozen=True, kw_only=True)
class MissingRecord(Part):
    """A point that could not be had."""

    num_steps: NumSteps
    precision: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PlainRecord(Part):
    """The student without its flows."""

    bytes: int
    latency_ms: float
    latency_by_batch_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TradeoffRecord(Record):
    """tradeoff.json: accuracy against latency."""

    written_by = "measure_tradeoff"
    points: list[PointRecord]
    left_out: list[MissingRecord] = field(default_factory=list)
    plain: PlainRecord | None
    num_images: int
    network: str
    protocol: str


@dataclass(frozen=True, kw_only=True)
class TeacherRecord(Record):
    """reports/teacher.json; without a teacher it has none of the figures."""

    written_by = "train_teacher"
    macs: int | None = 0
    num_parameters: int = 0
    started_from: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StudentRecord(Record):
    """reports/student.json."""

    written_by = "distill_student"
    num_parameters: int
    started_from: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Evaluated(Part):
    """What was found of one precision on the test split; its scores are the task's."""

    num_images: int
    parity: Figures
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """The report of a runtime, or its part that is the same in every run."""

    written_by = "evaluate"
    status: Literal["evaluated", "skipped"]
    reason: str = ""
    precision: str = ""
    precisions: dict[str, Evaluated] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def check(cls, content: Mapping[str, Any]) -> None:
        """Look for figures where there are some."""
        if content["status"] == "evaluated":
            read_plain(Evaluated, content)


def same_answers(figures: Json) -> str:
    """Return the share of answers that are the trained network's, and of how many: "98.50% of 60 images"."""
    share, total = f"{figures['agreement']:.2%}", figures.get("total")
    return share if total is None else f"{share} of {total:,} {figures['counted']}"


def by_precision(evaluation: Json) -> dict[str, Json]:
    """Return what the content ``evaluation`` of an ``EvaluationRecord`` says of each precision, fp32 first."""
    return {evaluation["precision"]: evaluation, **evaluation["precisions"]}


def collect_warnings(teacher: Json, student: Json, manifest: Json, evaluation: Json, tradeoff: Json) -> list[str]:
    """Return what the stages warned of, each once: of trainings and evaluation, and what was left out."""
    left_out = [f"{name} is left out: {reason}" for name, reason in manifest.get("left_out", {}).items()]
    left_out += [
        f"the trade-off lacks {missing['precision']} with {missing['num_steps'] or 'no'} steps: {missing['reason']}"
        for missing in tradeoff.get("left_out", [])
    ]
    parts = (report.get("warnings", []) for report in (teacher, student, evaluation))
    return list(dict.fromkeys([*(text for part in parts for text in part), *left_out]))


def started_lines(teacher: Json, student: Json) -> list[str]:
    """Return a line on each network that started from given weights, from the reports of their stages."""
    found = {"The teacher": teacher.get("started_from"), "The student": student.get("started_from")}
    return [f"{network} started from {weights}" for network, weights in found.items() if weights is not None]


@dataclass(frozen=True, kw_only=True)
class InputsRecord(Part):
    """What the probe found of the user's files."""

    teacher: Literal["needed", "not needed"]


@dataclass(frozen=True, kw_only=True)
class ProbedInputs(Record):
    """environment.json, for those who read of the inputs."""

    written_by = "probe_environment"
    inputs: InputsRecord


@dataclass(frozen=True, kw_only=True)
class ImagesRecord(Part):
    """What the probe found of the images, for those who ask where a model comes from."""

    name: str
    newest_file: str | None
    carried_by: str | None


@dataclass(frozen=True, kw_only=True)
class PackageFactsRecord(Part):
    """What the probe found for the package."""

    name: str
    data: ImagesRecord


@dataclass(frozen=True, kw_only=True)
class PackageInputs(Part):
    """The part of the inputs that the package is made of."""

    package: PackageFactsRecord


@dataclass(frozen=True, kw_only=True)
class ProbedPackage(Record):
    """environment.json, for the package."""

    written_by = "probe_environment"
    inputs: PackageInputs


@dataclass(frozen=True, kw_only=True)
class HostRecord(Part):
    """What a host can build."""

    buildable: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class ProbedHost(Record):
    """environment.json, for those who read of this host."""

    written_by = "probe_environment"
    tensorrt: HostRecord


def read_record(path: Path, record: type[Record], *numbers: str) -> Json:
    """Return the content of the JSON file ``path``, which a stage wrote as a ``record``.

    Args:
        numbers: keys of the file that must be there and be numbers, as a task's scores are.

    Raises:
        UserError: the file is missing or damaged; names the first fault and the stage to run again.
    """
    content = read_json(path)
    try:
        read_plain(record, content)
        for name in numbers:
            if isinstance(content.get(name), bool) or not isinstance(content.get(name), int | float):
                raise ValueError(f"{name} is {shown(content.get(name))}, expected a number")  # noqa: TRY004, TRY301  (as of the record)
    except ValueError as error:
        again = f"damaged, or of another version: run {record.written_by} again (dvc repro)"
        raise UserError(f"{path}: {error}; {again}") from error
    return content
