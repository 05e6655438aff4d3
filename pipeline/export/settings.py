"""Settings of the ONNX files: their precisions, how INT8 is calibrated, and the gates that they must pass."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from models.core.table import Table
from pipeline.core.settings import (
    Count,
    Counts,
    EachOnce,
    NonNegative,
    Positive,
    Section,
    Share,
    entry_of,
    knob,
    rare,
    section_of,
)
from pipeline.export.precisions import FP32, PRECISIONS, PrecisionEntry
from pipeline.tasks.gate import Gate, PlacedGate

GATES = "export_onnx.gates"
"""Where the gates are set."""
Precisions = Annotated[
    tuple[Annotated[str, entry_of(PRECISIONS)], ...], Strict(strict=False), Field(min_length=1), EachOnce
]


def _with_fp32(precisions: tuple[str, ...]) -> tuple[str, ...]:
    if FP32 not in precisions:
        raise ValueError(f"got {list(precisions)}; {FP32} must be among them, the others are made from it")
    return precisions


WithFp32 = Annotated[Precisions, AfterValidator(_with_fp32)]


class GateSettings(Section):
    """The bounds of one precision."""

    max_difference: Positive | None = knob(
        Gate.max_difference,
        "largest difference of an output, as a share of the spread of an image's outputs; null: any",
        was=("max_abs_diff", "max_relative_diff"),
    )
    min_agreement: Share = knob(
        Gate.min_agreement, "share of images with the trained network's answer, within chance", was="min_top1_agreement"
    )
    max_drop: NonNegative = knob(Gate.max_drop, "accuracy that may be lost, as a fraction, within chance")

    @classmethod
    def of(cls, gate: Gate) -> Self:
        """Return the settings that mean ``gate``."""
        return cls(**asdict(gate))

    def plain(self) -> Gate:
        """Return them as those who have a package read them."""
        return Gate(**self.model_dump())


class GateByPrecision(Section):
    """The gate of each precision."""

    def gate(self, precision: str) -> Gate:
        """Return the gate of ``precision``.

        Raises:
            ValueError: it is unknown; the message lists the known ones.
        """
        found: GateSettings = getattr(self, PRECISIONS[precision].name)
        return found.plain()

    def placed(self, precision: str) -> PlacedGate:
        """Return the gate of ``precision``, as messages speak of it.

        Raises:
            ValueError: it is unknown; the message lists the known ones.
        """
        return PlacedGate(self.gate(precision), f"{GATES}.{precision}", "loosen that bound to accept it")


def gates_section(precisions: Table[PrecisionEntry]) -> type[GateByPrecision]:
    """Return the class that holds a gate for each of ``precisions``; each has its entry's own by default."""
    sections = {name: (GateSettings.of(entry.gate), entry.description) for name, entry in precisions.items()}
    built: type[GateByPrecision] = section_of("Gates", GateByPrecision, sections)
    return built


if TYPE_CHECKING:
    Gates = GateByPrecision  # its fields are those of the table, which mypy does not see
else:
    Gates = gates_section(PRECISIONS)


class CalibrationSettings(Section):
    """How the ranges of INT8 activations are found, on the calib split."""

    method: Literal["minmax", "percentile"] = knob(
        "minmax", "range of an activation: all of its values, or 99.999 of 100"
    )
    num_images: Count = knob(256, "images from which ranges are found")


class ExportOnnx(Section):
    """The ONNX files and the gates that they must pass."""

    precisions: WithFp32 = knob(("fp32", "fp16", "int8-cpu", "int8-trt"), "an ONNX file each")
    required: WithFp32 = knob(
        ("fp32",), "those that stop the stage where they fail their gate; others are then left out, with a warning"
    )
    input: Literal["float32", "uint8"] = knob(
        "float32", "float32: pixels in [0, 1]; uint8: pixels as a camera gives them"
    )
    opset: Annotated[int, Field(ge=18, le=25)] = rare(20, "version of the ONNX operators")
    collapse: bool = rare(
        default=True,
        description="with 1 or 2 steps the last convolution joins the classifier (not in INT8 files)",
    )
    calibration: CalibrationSettings = rare(CalibrationSettings(), "of INT8, on images that are held out of training")
    batch_sizes: Counts = rare((1, 2, 7, 64), "each file is verified in batches of these sizes")
    num_samples: Count = rare(16, "test images that go along with their right outputs, to verify the files elsewhere")
    gates: Gates = rare(
        Gates(),
        "how far a file may be from the trained network on the test split: max_difference, a share of the spread of "
        "an image's outputs (null: any), min_agreement and max_drop within chance",
    )

    @model_validator(mode="after")
    def _required_are_written(self) -> Self:
        missing = [name for name in self.required if name not in self.precisions]
        if missing:
            raise ValueError(
                f"required: got {', '.join(missing)}, which precisions does not name; add it there, or take it out here"
            )
        return self
