"""The typed, strict form of params.yaml: one section per stage and ``base``."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.params_training import (
    Count,
    Counts,
    Fraction,
    Mean,
    NonNegative,
    NumThreads,
    PathText,
    Positive,
    Section,
    Std,
    Training,
)


class Base(Section):
    """What every stage shares."""

    seed: Annotated[int, Field(ge=0)]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    deterministic: bool
    num_threads: NumThreads | None


class PrepareData(Section):
    """Where the images come from and how they are split."""

    source: Literal["digits", "imagefolder", "cifar10", "cifar100"]
    root: PathText | None
    download: bool
    image_size: Annotated[int, Field(ge=4)] | None
    test_fraction: Fraction
    calib_fraction: Fraction
    max_train_images: Count | None
    max_test_images: Count | None
    max_packed_gib: Positive

    @model_validator(mode="after")
    def _root_fits_source(self) -> Self:
        if self.source == "digits" and self.root is not None:
            raise ValueError("source digits comes with the pipeline: root must be null")
        if self.source != "digits" and self.root is None:
            raise ValueError(f"source {self.source} needs root: the path of its directory or archive")
        return self


class TrainTeacher(Section):
    """The network to learn from: trained here, or given as a file of weights."""

    backbone: str
    weights: PathText | None
    mean: Mean | None
    std: Std | None
    training: Training

    @model_validator(mode="after")
    def _mean_with_std(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both, or null for both")
        return self


class KdLoss(Section):
    """Hinton et al. 2015."""

    temperature: Positive


class DistLoss(Section):
    """Huang et al. 2022."""

    beta: NonNegative
    gamma: NonNegative
    temperature: Positive


class Losses(Section):
    """Settings of each metric loss; ``distill_student.loss`` chooses one."""

    kd: KdLoss
    dist: DistLoss


class Flow(Section):
    """Settings of the flow from student to teacher."""

    schedule: Literal["rectified"]
    num_steps: Count
    meta_encoder: Literal["conv", "mlp"]
    time_scale: Positive


class DistillStudent(Section):
    """The student and how it learns."""

    method: Literal["fm_kt", "metric", "none"]
    backbone: str
    loss: Literal["kd", "dist"]
    loss_weight: Positive
    losses: Losses
    flow: Flow
    training: Training

    @property
    def needs_teacher(self) -> bool:
        """Whether the method learns from a teacher."""
        return self.method != "none"


class CalibrateSteps(Section):
    """How the number of sampling steps is chosen."""

    candidates: Counts
    tolerance: NonNegative
    max_latency_ms: Positive | None


class ExportOnnx(Section):
    """The ONNX file and the gates that it must pass."""

    opset: Annotated[int, Field(ge=18, le=25)]
    batch_sizes: Counts
    max_abs_diff: Positive
    min_top1_agreement: Annotated[float, Field(gt=0, le=1)]


class ExportTensorrt(Section):
    """The TensorRT engine: its batch profile and build options."""

    min_batch: Count
    opt_batch: Count
    max_batch: Count
    optimization_level: Annotated[int, Field(ge=0, le=5)]
    workspace_mib: Count

    @model_validator(mode="after")
    def _batches_in_order(self) -> Self:
        if not self.min_batch <= self.opt_batch <= self.max_batch:
            got = f"{self.min_batch}, {self.opt_batch}, {self.max_batch}"
            raise ValueError(f"min_batch, opt_batch and max_batch must not decrease, got {got}")
        return self


class Evaluate(Section):
    """How every runtime is judged and timed."""

    batch_size: Count
    num_threads: NumThreads
    max_drop: NonNegative
    max_abs_diff: Positive
    min_top1_agreement: Annotated[float, Field(gt=0, le=1)]
    latency_batch_sizes: Counts
    latency_warmup: Count
    latency_iterations: Annotated[int, Field(ge=10)]


class Package(Section):
    """What a consumer downloads."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    description: str


class Params(Section):
    """The whole of params.yaml."""

    base: Base
    prepare_data: PrepareData
    train_teacher: TrainTeacher
    distill_student: DistillStudent
    calibrate_steps: CalibrateSteps
    export_onnx: ExportOnnx
    export_tensorrt: ExportTensorrt
    evaluate: Evaluate
    package: Package
