"""Settings of the stage ``calibrate_steps``."""

from pipeline.core.settings import Counts, NonNegative, Positive, Section, knob


class CalibrateSteps(Section):
    """How the number of sampling steps is chosen."""

    candidates: Counts = knob((1, 2, 4, 8), "numbers of steps to try")
    tolerance: NonNegative = knob(0.005, "the fewest steps win whose accuracy is within this of the best")
    max_latency_ms: Positive | None = knob(
        None, "a budget for one image in eager PyTorch; null: latency is shown and decides nothing"
    )
