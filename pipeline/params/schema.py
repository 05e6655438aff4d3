"""The typed, strict form of params.yaml: one section per stage and ``base``."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.backbones.catalog import SMALL_IMAGE_BACKBONES
from pipeline.data.sources.archive import ARCHIVE_SUFFIXES
from pipeline.networks.torchvision_weights import is_published
from pipeline.params.deployment import Evaluate, ExportOnnx, ExportTensorrt, MeasureTradeoff
from pipeline.params.distillation import DistillStudent
from pipeline.params.training import (
    Count,
    Counts,
    Execution,
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
    storage: Literal["packed", "index"]
    unreadable: Literal["stop", "skip"]

    @model_validator(mode="after")
    def _root_fits_source(self) -> Self:
        if self.source == "digits" and self.root is not None:
            raise ValueError("source digits comes with the pipeline: root must be null")
        if self.source != "digits" and self.root is None:
            raise ValueError(f"source {self.source} needs root: the path of its directory or archive")
        return self

    @model_validator(mode="after")
    def _index_has_files(self) -> Self:
        if self.storage == "packed":
            return self
        if self.source != "imagefolder" or str(self.root).endswith(ARCHIVE_SUFFIXES):
            raise ValueError("storage index needs files: source imagefolder with a directory as root; or set packed")
        if self.image_size is None:
            raise ValueError("storage index needs image_size, to which its images are brought when they are decoded")
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

    @model_validator(mode="after")
    def _published_weights_exist(self) -> Self:
        if is_published(self.weights) and self.backbone in SMALL_IMAGE_BACKBONES:
            raise ValueError(f"torchvision has no weights of {self.backbone!r}; give a file, or null to train")
        return self


class CalibrateSteps(Section):
    """How the number of sampling steps is chosen."""

    candidates: Counts
    tolerance: NonNegative
    max_latency_ms: Positive | None


class Package(Section):
    """What a consumer downloads."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    description: str


class Params(Section):
    """The whole of params.yaml."""

    base: Base
    engine: Execution
    prepare_data: PrepareData
    train_teacher: TrainTeacher
    distill_student: DistillStudent
    calibrate_steps: CalibrateSteps
    export_onnx: ExportOnnx
    measure_tradeoff: MeasureTradeoff
    export_tensorrt: ExportTensorrt
    evaluate: Evaluate
    package: Package

    @model_validator(mode="after")
    def _processes_share_batches(self) -> Self:
        for name in ("train_teacher", "distill_student"):
            section: TrainTeacher | DistillStudent = getattr(self, name)
            if section.training.batch_size % self.execution.num_processes:
                raise ValueError(
                    f"{name}.training.batch_size: got {section.training.batch_size}, which execution.num_processes = "
                    f"{self.execution.num_processes} cannot share equally; give a multiple of it"
                )
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
    def _resized_crops_have_whole_images(self) -> Self:
        for name in ("train_teacher", "distill_student"):
            section: TrainTeacher | DistillStudent = getattr(self, name)
            scale = section.training.augment.resized_crop_scale
            if scale is not None and self.prepare_data.storage == "packed":
                raise ValueError(
                    f"{name}.training.augment.resized_crop_scale: got {list(scale)}, but packed images are cut "
                    "already; set prepare_data.storage to index, or this to null"
                )
        return self
