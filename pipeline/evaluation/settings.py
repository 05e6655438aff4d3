"""Settings of evaluation: accuracy against latency, and how runtimes are checked and timed."""

from typing import Annotated

from pydantic import Field

from pipeline.core.settings import Count, Counts, NumThreads, Section, knob, rare
from pipeline.export.settings import GateSettings, Precisions
from pipeline.runtimes.provider import Provider
from pipeline.tasks.gate import PlacedGate


class MeasureTradeoff(Section):
    """Accuracy against latency, for each number of steps that was calibrated and each of ``precisions``."""

    precisions: Precisions = knob(("fp32", "int8-cpu"), "what is measured, in ONNX Runtime on the CPU")
    batch_size: Count = rare(1, "images of one inference")
    num_threads: NumThreads = rare(1, "CPU threads of an inference")
    warmup: Count = rare(20, "inferences before those that are timed")
    iterations: Annotated[int, Field(ge=10)] = rare(100, "inferences that are timed")


class Evaluate(Section):
    """How every runtime is evaluated and timed."""

    provider: Provider = knob("cpu", "what of ONNX Runtime computes")
    latency_batch_sizes: Counts = knob((1, 32), "batch sizes that are timed")
    batch_size: Count = rare(256, "images of one inference where accuracy is measured")
    num_threads: NumThreads = rare(1, "CPU threads of an inference")
    gate: GateSettings = rare(
        GateSettings(max_difference=1e-3, min_agreement=0.999, max_drop=0.001),
        "of fp32 in every runtime; other precisions: export_onnx.gates",
        was=("max_abs_diff", "min_top1_agreement", "max_drop"),
    )
    latency_warmup: Count = rare(10, "inferences before those that are timed")
    latency_iterations: Annotated[int, Field(ge=10)] = rare(50, "inferences that are timed, for each batch size")

    @property
    def placed_gate(self) -> PlacedGate:
        """Return the gate of fp32, as messages speak of it."""
        remedy = "export again where the student changed, or loosen that bound to accept it"
        return PlacedGate(self.gate.plain(), "evaluate.gate", remedy)
