"""What the stages left, from which the report is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.core.errors import UserError
from pipeline.core.files import Json, read_csv
from pipeline.core.likelihood_line import likelihood_of, over_flows
from pipeline.core.records import (
    CalibrationRecord,
    DataRecord,
    EvaluationRecord,
    ManifestRecord,
    StudentRecord,
    TeacherRecord,
    TradeoffRecord,
    collect_warnings,
    read_record,
)
from pipeline.export.folder import MANIFEST
from pipeline.tasks.base import Image, Review, Row, Task, Tile
from pipeline.tasks.table import task_of_data


@dataclass(frozen=True)
class Records:
    """Paths of what the stages left, by the names of the stage's options."""

    data: Path
    """Folder of the packed data."""
    predictions: Path
    """CSV of what ONNX Runtime finds on each test image, in the order of the test split."""
    evaluation: Path
    """JSON report of ONNX Runtime, with latency."""
    trained: Path
    """JSON scores of the trained student by PyTorch."""
    onnx: Path
    """Folder of the ONNX export."""
    calibration: Path
    """Folder of calibration.json."""
    tradeoff: Path
    """Folder of tradeoff.json."""
    teacher: Path
    """JSON report of the teacher."""
    student: Path
    """JSON report of the student."""
    teacher_history: Path
    student_history: Path
    flow_steps: Path
    flow_by_num_steps: Path
    likelihood: Path


class Results:
    """The content of ``records``, with what the task makes of the predictions.

    Raises:
        UserError: a record is missing or damaged.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        about = read_record(records.data / "data.json", DataRecord)
        self.task: Task = task_of_data(about["task"], records.data)
        self.class_names: tuple[str, ...] = tuple(about["classes"])
        primary = self.task.primary
        self.evaluation = read_record(records.evaluation, EvaluationRecord, primary, self.task.primary_error)
        self.trained = read_record(records.trained, EvaluationRecord, primary, self.task.primary_error)
        self.rows: list[Row] = [*read_csv(records.predictions)]
        if len(self.rows) != self.evaluation["num_images"] or tuple(self.rows[0]) != self.task.image_columns:
            raise UserError(
                f"{records.predictions}: not what ONNX Runtime found on {self.evaluation['num_images']} images "
                f"({', '.join(self.task.image_columns)}); run evaluate again (dvc repro)"
            )
        self.review: Review = self.task.review(self.rows, self.class_names)
        self.manifest = read_record(records.onnx / MANIFEST, ManifestRecord)
        self.calibration = read_record(records.calibration / "calibration.json", CalibrationRecord)
        self.tradeoff = read_record(records.tradeoff / "tradeoff.json", TradeoffRecord)
        self.teacher = read_record(records.teacher, TeacherRecord)
        self.student = read_record(records.student, StudentRecord)

    @property
    def deployed(self) -> float:
        """Return the primary score of the fp32 file on the test split."""
        return float(self.evaluation[self.task.primary])

    @property
    def error(self) -> float | None:
        """Return the standard error of ``deployed``; None where the task knows none."""
        return self.evaluation.get(self.task.primary_error)

    @property
    def teacher_score(self) -> float | None:
        """Return the teacher's primary score on the test split; None: there is no teacher."""
        return self.teacher.get(f"test_{self.task.primary}")

    @property
    def warnings(self) -> list[str]:
        """Return what the stages warned of."""
        return collect_warnings(self.teacher, self.student, self.manifest, self.evaluation, self.tradeoff)

    @cached_property
    def flow_by_num_steps(self) -> list[Row]:
        """Return a row for each number of steps, of the first flow: those at several stages share one score."""
        rows = read_csv(self.records.flow_by_num_steps)
        return [row for row in rows if row["flow"] == rows[0]["flow"]]

    @cached_property
    def flow_steps(self) -> list[Row]:
        """Return a row for each step of the longest trajectory, of the first flow."""
        rows = read_csv(self.records.flow_steps)
        return [row for row in rows if row["flow"] == rows[0]["flow"]]

    @cached_property
    def likelihood(self) -> list[Row]:
        """Return a row for each number of steps, over all flows; none where nothing is compared with a teacher."""
        return over_flows(read_csv(self.records.likelihood))

    @property
    def deployed_likelihood(self) -> Row | None:
        """Return the row of the number of steps that deploys; None where there is none."""
        return likelihood_of(self.likelihood, self.calibration["num_steps"])

    @cached_property
    def histories(self) -> dict[str, list[Row]]:
        """Return a row for each epoch of each network."""
        return {
            "teacher": [*read_csv(self.records.teacher_history)],
            "student": [*read_csv(self.records.student_history)],
        }

    def tiles(self, positions: Sequence[int]) -> list[Tile]:
        """Return the test images at ``positions`` with what is found on them; reads no others.

        Raises:
            UserError: the file of the images is missing or damaged.
        """
        path = self.records.data / "test.safetensors"
        try:
            with safe_open(path, framework="np") as file:
                images = file.get_slice("images")
                pixels: list[Image] = [np.asarray(images[position : position + 1])[0] for position in positions]
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: missing or damaged ({error}); run prepare_data again") from error
        places = zip(pixels, positions, strict=True)
        return [self.task.tile(one, self.rows[position], self.review) for one, position in places]


def smallest_batch_latency(figures: Json) -> tuple[str, float]:
    """Return the smallest batch size that was timed, and its median milliseconds."""
    size = min(figures["latency_ms"], key=int)
    return size, float(figures["latency_ms"][size]["p50"])
