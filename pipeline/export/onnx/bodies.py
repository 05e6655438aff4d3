"""The first of the gates of files with a tail: the body's tensors, value by value, before the tail is joined to it."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from pipeline.core.arrays import Pixels
from pipeline.core.errors import GateError
from pipeline.core.files import Json
from pipeline.runtimes.base import Runtime, to_input
from pipeline.tasks.gate import PlacedGate
from pipeline.tasks.parity import Measures, ValueParity, measure, require_comparable
from pipeline.tasks.verification import require_difference

BODY_IMAGES = 64
"""Images on which bodies are compared: each gives tens of thousands of values."""
BATCH = 4
"""Of a large detector the tensors of an image are tens of MB."""


class BodyParity(NamedTuple):
    """What was found of a body."""

    tensors: dict[str, ValueParity]
    """By their names."""
    num_images: int

    def describe(self) -> Json:
        """Return the figures for a JSON file."""
        tensors = {name: parity._asdict() for name, parity in self.tensors.items()}
        return {"num_images": self.num_images, "tensors": tensors}

    def in_words(self) -> str:
        """Return what was compared, and what was found."""
        names, most = ", ".join(self.tensors), max(parity.difference for parity in self.tensors.values())
        return f"{names} before the tail differ by at most {most:.2g} of their spread on {self.num_images} images"


def verify_body(runtime: Runtime, trained: Runtime, pixels: Pixels, gate: PlacedGate, *, what: str) -> BodyParity:
    """Return how far each tensor of the body ``runtime`` is from that of the ``trained`` network.

    Args:
        pixels: images (N, 3, H, W), of which at most ``BODY_IMAGES`` are taken, evenly spread.
        what: names the file in messages.

    Raises:
        GateError: a tensor has another shape, is not finite, or differs by more than ``gate`` allows; names it.
    """
    shown = pixels[np.linspace(0, len(pixels) - 1, min(BODY_IMAGES, len(pixels))).round().astype(np.int64)]
    batches: dict[str, list[Measures]] = defaultdict(list)
    for start in range(0, len(shown), BATCH):
        part = shown[start : start + BATCH]
        found, wanted = (one.infer(to_input(part, one.input_dtype)) for one in (runtime, trained))
        for name, reference in wanted.items():
            try:
                require_comparable(found[name], reference, name)
            except GateError as error:
                raise GateError(f"{what}, before its tail: {error}") from error
            batches[name].append(measure(found[name], reference))
    tensors = {}
    for name, parts in batches.items():
        measures = Measures(*map(np.concatenate, zip(*parts, strict=True)))
        tensors[name] = measures.parity(measures.scale)
        require_difference(tensors[name], f"{what}, before its tail, {len(shown)} images", gate, values=name)
    return BodyParity(tensors, len(shown))
