"""The sections of params.yaml about what deploys."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, Strict, model_validator

from pipeline.params.training import Count, Counts, NonNegative, NumThreads, Positive, Section

Precision = Literal["fp32", "fp16", "int8-cpu", "int8-trt"]
EnginePrecision = Literal["fp32", "fp16", "int8-trt"]
Agreement = Annotated[float, Field(gt=0, le=1)]
Provider = Literal["cpu", "cuda", "tensorrt"]


def _with_fp32(precisions: tuple[Precision, ...]) -> tuple[Precision, ...]:
    if "fp32" not in precisions:
        raise ValueError(f"got {list(precisions)}; fp32 must be among them, the others are made from it")
    return precisions


class Gate(Section):
    """How far a file may be from the trained network; see ``pipeline.tasks.classification.parity.Gate``."""

    max_abs_diff: Positive | None
    max_relative_diff: NonNegative
    min_top1_agreement: Agreement
    max_drop: NonNegative


class Gates(Section):
    """The gate of each precision."""

    model_config = ConfigDict(serialize_by_alias=True)

    fp32: Gate
    fp16: Gate
    int8_cpu: Annotated[Gate, Field(alias="int8-cpu")]
    int8_trt: Annotated[Gate, Field(alias="int8-trt")]


class Calibration(Section):
    """How the ranges of INT8 activations are found, on the calib split."""

    method: Literal["minmax", "percentile"]
    num_images: Count


class ExportOnnx(Section):
    """The ONNX files and the gates that they must pass."""

    opset: Annotated[int, Field(ge=18, le=25)]
    input: Literal["float32", "uint8"]
    precisions: Annotated[tuple[Precision, ...], Strict(strict=False), AfterValidator(_with_fp32)]
    collapse: bool
    calibration: Calibration
    batch_sizes: Counts
    num_samples: Count
    gates: Gates


class MeasureTradeoff(Section):
    """Accuracy against latency, for each number of steps that was calibrated and each of ``precisions``."""

    precisions: Annotated[tuple[Precision, ...], Strict(strict=False), Field(min_length=1)]
    batch_size: Count
    num_threads: NumThreads
    warmup: Count
    iterations: Annotated[int, Field(ge=10)]


class ExportTensorrt(Section):
    """The TensorRT engines: their batch profile and build options."""

    precisions: Annotated[tuple[EnginePrecision, ...], Strict(strict=False), Field(min_length=1)]
    min_batch: Count
    opt_batch: Count
    max_batch: Count
    optimization_level: Annotated[int, Field(ge=0, le=5)]
    workspace_mib: Count
    version_compatible: bool
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"]
    timing_cache: bool

    @model_validator(mode="after")
    def _batches_in_order(self) -> Self:
        if not self.min_batch <= self.opt_batch <= self.max_batch:
            got = f"{self.min_batch}, {self.opt_batch}, {self.max_batch}"
            raise ValueError(f"min_batch, opt_batch and max_batch must not decrease, got {got}")
        return self


class Evaluate(Section):
    """How every runtime is judged and timed."""

    batch_size: Count
    provider: Provider
    num_threads: NumThreads
    max_drop: NonNegative
    max_abs_diff: Positive
    min_top1_agreement: Agreement
    latency_batch_sizes: Counts
    latency_warmup: Count
    latency_iterations: Annotated[int, Field(ge=10)]
