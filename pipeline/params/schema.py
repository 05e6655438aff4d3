"""The whole of the parameters file: its sections, and the rules between them."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from pipeline.core.settings import Base, Section, knob
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES
from pipeline.distillation.settings import DistillStudent
from pipeline.evaluation.calibration_settings import CalibrateSteps, criterion_fault
from pipeline.evaluation.settings import Evaluate, MeasureTradeoff
from pipeline.export.settings import ExportOnnx
from pipeline.export.tensorrt.settings import ExportTensorrt
from pipeline.package.settings import PackageSettings
from pipeline.params.loading import read_sections, validated
from pipeline.tasks.settings import DetectionSettings
from pipeline.tasks.table import TASKS
from pipeline.training.settings import ExecutionSettings, Training
from pipeline.training.teacher_settings import TrainTeacher


class Params(Section):
    """The whole of the parameters file."""

    base: Base = knob(Base(), "what all stages share")
    execution: ExecutionSettings = knob(ExecutionSettings(), "how training runs", was="engine")
    prepare_data: PrepareData = knob(PrepareData(), "where the images come from and how they are split")
    train_teacher: TrainTeacher = knob(TrainTeacher(), "the network to learn from")
    distill_student: DistillStudent = knob(DistillStudent(), "the network that deploys, and how it learns")
    calibrate_steps: CalibrateSteps = knob(CalibrateSteps(), "how many sampling steps the deployed student takes")
    detections: DetectionSettings = knob(DetectionSettings(), "what a deployed detector answers")
    export_onnx: ExportOnnx = knob(ExportOnnx(), "the ONNX files and the gates that they must pass")
    measure_tradeoff: MeasureTradeoff = knob(
        MeasureTradeoff(), "accuracy and latency of each number of steps and precision, for the model card"
    )
    export_tensorrt: ExportTensorrt = knob(ExportTensorrt(), "the TensorRT engines")
    evaluate: Evaluate = knob(Evaluate(), "how every runtime is checked against PyTorch and timed")
    package: PackageSettings = knob(PackageSettings(), "what a consumer downloads")

    @model_validator(mode="after")
    def _processes_share_batches(self) -> Self:
        for name, training in self._trainings().items():
            if training.batch_size % self.execution.num_processes:
                raise ValueError(
                    f"{name}.batch_size: got {training.batch_size}, which execution.num_processes = "
                    f"{self.execution.num_processes} cannot share equally; give a multiple of it"
                )
        return self

    @model_validator(mode="after")
    def _criterion_can_decide(self) -> Self:
        student = self.distill_student
        fault = criterion_fault(self.calibrate_steps.criterion, student.method, has_teacher=student.needs_teacher)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _engines_have_files(self) -> Self:
        missing = set(self.export_tensorrt.precisions) - set(self.export_onnx.precisions)
        if missing:
            raise ValueError(
                f"export_tensorrt.precisions: got {', '.join(sorted(missing))}, which export_onnx.precisions does not "
                "write; add it there, or leave it out here"
            )
        return self

    @model_validator(mode="after")
    def _packaged_files_are_exported(self) -> Self:
        missing = set(self.package.precisions or ()) - set(self.export_onnx.precisions)
        if missing:
            raise ValueError(
                f"package.precisions: got {', '.join(sorted(missing))}, which export_onnx.precisions does not write; "
                "add it there, or leave it out here"
            )
        return self

    @model_validator(mode="after")
    def _task_can_do_it(self) -> Self:
        task = SOURCES[self.prepare_data.source].task
        if task in TASKS:  # the probe names another
            faults = [fault for one in TASKS[task].restrictions() for fault in one.faults(self)]
            if faults:
                raise ValueError("\n".join(faults))
        return self

    def _trainings(self) -> dict[str, Training]:
        return {
            "train_teacher.training": self.train_teacher.training,
            "distill_student.training": self.distill_student.training,
        }


def load_params(path: Path) -> Params:
    """Return all parameters in the YAML 1.2 file ``path``.

    Raises:
        UserError: the file is missing or not YAML; a key is unknown, missing or ill-typed; or sections do not go
            together. One line for each.
    """
    return validated(read_sections(path), Params, path)
