"""The typed, strict form of params.yaml: one section per stage and ``base``."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Counts = Annotated[tuple[Annotated[Count, Strict()], ...], Strict(strict=False), Field(min_length=1)]
PerChannel = Annotated[tuple[float, float, float], Strict(strict=False)]


class Section(BaseModel):
    """A group of keys: every key must be there, no other may be, and each has its type exactly."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Base(Section):
    """What every stage shares."""

    seed: Annotated[int, Field(ge=0)]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    deterministic: bool
    num_threads: Count | None


class PrepareData(Section):
    """Where the images come from and how they are split."""

    source: Literal["digits", "imagefolder", "cifar10", "cifar100"]
    root: str | None
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


class Optimizer(Section):
    """Stochastic gradient descent."""

    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    nesterov: bool
    weight_decay: NonNegative


class LearningRate(Section):
    """Linear warm-up, then a cosine to zero or steps by ``gamma`` at ``milestones`` (epochs)."""

    name: Literal["cosine", "multistep"]
    warmup_epochs: Annotated[int, Field(ge=0)]
    milestones: Annotated[tuple[Annotated[Count, Strict()], ...], Strict(strict=False)]
    gamma: Annotated[float, Field(gt=0, le=1)]


class Augment(Section):
    """Random changes of the training images."""

    crop_padding: Annotated[int, Field(ge=0)]
    horizontal_flip: bool


class Training(Section):
    """Settings of one training run."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    optimizer: Optimizer
    schedule: LearningRate
    augment: Augment


class TrainTeacher(Section):
    """The network to learn from: trained here, or given as a file of weights."""

    backbone: str
    weights: str | None
    mean: PerChannel | None
    std: PerChannel | None
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
    num_threads: Count
    max_drop: NonNegative
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
