"""What a deployed network takes and returns."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.core.plain import Part, read_plain, shown

LARGEST = 2**24
"""No size of an input or output, in any network that this is for, comes near."""


class TensorSpec(NamedTuple):
    """An input or output."""

    name: str
    dtype: str
    """NumPy's name: float32, uint8, int32."""
    shape: tuple[int, ...]
    """Without the batch, which is the first axis and open."""

    def describe(self) -> dict[str, Any]:
        """Return name, dtype and shape for a JSON file, the batch by its name."""
        return {"name": self.name, "dtype": self.dtype, "shape": ["batch", *self.shape]}


class Signature(NamedTuple):
    """The input and the outputs of a network, in their order."""

    input: TensorSpec
    """Images (3, H, W): float32 in [0, 1], or uint8."""
    outputs: tuple[TensorSpec, ...]

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs."""
        return [output.name for output in self.outputs]


def image_input(image_size: tuple[int, int], dtype: str) -> TensorSpec:
    """Return the one input that every network here has."""
    return TensorSpec("image", dtype, (3, *image_size))


@dataclass(frozen=True, kw_only=True)
class _Described(Part):
    """What ``TensorSpec.describe`` writes."""

    name: str
    dtype: str
    shape: list[Any]


def read_tensor_spec(content: object) -> TensorSpec:
    """Return what ``TensorSpec.describe`` wrote.

    Raises:
        ValueError: it did not write ``content``.
    """
    given = read_plain(_Described, content)
    sizes = given.shape[1:] or [0]
    if not given.name or not all(type(size) is int and 0 < size < LARGEST for size in sizes):
        raise ValueError(f"an input or output needs a name, a type and a shape of whole numbers, got {shown(content)}")
    return TensorSpec(given.name, given.dtype, tuple(sizes))
