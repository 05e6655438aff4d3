"""Named typed tensors as clients send them, turned into one batch of images or refused with the reason."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core import signature
from pipeline.core.arrays import is_finite
from pipeline.serving.json_text import Numbers
from pipeline.serving.refusal import Reason, RefusalError, invalid, quoted

DTYPES: dict[str, type[np.generic]] = {"FP32": np.float32, "UINT8": np.uint8, "INT32": np.int32}
"""The data types that an input or output of a package can have, by the protocol's names."""
DATATYPES = {np.dtype(dtype).name: name for name, dtype in DTYPES.items()}
ELEMENTS: dict[str, set[type]] = {"FP32": {float, int}, "UINT8": {int}, "INT32": {int}}
"""Types of the values that may stand for an element."""


class TensorSpec(NamedTuple):
    """An input or output of a model, in the protocol's terms."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """Without the batch."""

    @property
    def dtype(self) -> type[np.generic]:
        """NumPy's type of an element."""
        return DTYPES[self.datatype]


def served(spec: signature.TensorSpec) -> TensorSpec:
    """Return ``spec`` in the protocol's terms."""
    return TensorSpec(spec.name, DATATYPES[spec.dtype], spec.shape)


class InputTensor(NamedTuple):
    """A tensor of a request, nothing of it checked yet."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: bytes | memoryview | Sequence[Any] | Numbers
    """Its bytes in row-major order, little-endian; or its values, flat or nested as the shape is."""


def only_input(tensors: Sequence[InputTensor], spec: TensorSpec) -> InputTensor:
    """Return the one input that ``tensors`` must consist of; raises RefusalError where it is another, or not one."""
    names = [tensor.name for tensor in tensors]
    for name in names:
        if name != spec.name:
            raise invalid(f"input {quoted(name)}: the model has no such input; its input is {spec.name!r}")
    if len(names) != 1:
        raise invalid(f"inputs: {spec.name!r} is expected exactly once, got {len(names)} inputs")
    return tensors[0]


def read_batch(tensor: InputTensor, spec: TensorSpec, max_batch: int) -> NDArray[Any]:
    """Return the values (batch, ...) of ``tensor``.

    Raises:
        RefusalError: its data type, its shape, its size or a value is wrong.
    """
    if tensor.datatype != spec.datatype:
        raise invalid(
            f"input {spec.name!r}: data type {quoted(tensor.datatype)}, expected {spec.datatype!r}, or 'BYTES' for "
            "image files"
        )
    shape = _checked_shape(tensor.shape, spec, max_batch)
    if isinstance(tensor.data, (bytes, memoryview)):
        batch = _from_bytes(tensor.data, shape, spec)
    else:
        batch = _from_values(tensor.data, shape, spec)
    if not is_finite(batch):
        raise invalid(f"input {spec.name!r}: holds values that are not finite (NaN or infinity)")
    return batch


def _checked_shape(shape: Sequence[int], spec: TensorSpec, max_batch: int) -> tuple[int, ...]:
    expected = f"expected [batch, {', '.join(map(str, spec.shape))}]"
    given = tuple(shape)
    if len(given) != len(spec.shape) + 1 or given[1:] != spec.shape:
        raise invalid(f"input {spec.name!r}: shape {quoted(list(given))}, {expected}")
    if not 1 <= given[0] <= max_batch:
        raise invalid(f"input {spec.name!r}: a batch of {quoted(given[0])}, expected 1 to {max_batch}")
    return given


def _from_bytes(data: bytes | memoryview, shape: tuple[int, ...], spec: TensorSpec) -> NDArray[Any]:
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    needed = math.prod(shape) * dtype.itemsize
    if len(data) != needed:
        raise invalid(f"input {spec.name!r}: {len(data)} bytes, but its shape and data type make {needed}")
    return np.frombuffer(data, dtype).reshape(shape)


def _from_values(data: Sequence[Any] | Numbers, shape: tuple[int, ...], spec: TensorSpec) -> NDArray[Any]:
    """Convert values after a look at the type of every single one, since numpy takes texts and truths for numbers."""
    values = _flattened(data, shape, spec.name)
    if isinstance(values, Numbers):
        return _from_numbers(values, shape, spec)
    _require_elements(len(values), set(map(type, values)), shape, spec)
    try:
        with np.errstate(over="ignore"):  # becomes infinite and is refused as such
            return np.array(values, spec.dtype).reshape(shape)
    except OverflowError as error:
        raise _beyond(spec) from error


def _from_numbers(numbers: Numbers, shape: tuple[int, ...], spec: TensorSpec) -> NDArray[Any]:
    _require_elements(len(numbers.values), set(numbers.kinds), shape, spec)
    values, dtype = numbers.values, np.dtype(spec.dtype)
    if dtype.kind in "iu" and not ((values >= np.iinfo(dtype).min) & (values <= np.iinfo(dtype).max)).all():
        raise _beyond(spec)
    with np.errstate(over="ignore"):
        return values.astype(dtype).reshape(shape)


def _require_elements(count: int, kinds: set[type], shape: tuple[int, ...], spec: TensorSpec) -> None:
    strange = kinds - ELEMENTS[spec.datatype]
    if strange:
        found = ", ".join(sorted(kind.__name__ for kind in strange))
        raise invalid(f"input {spec.name!r}: holds values of type {found}, expected numbers of type {spec.datatype}")
    if count != math.prod(shape):
        raise invalid(f"input {spec.name!r}: {count} values, but its shape makes {math.prod(shape)}")


def _beyond(spec: TensorSpec) -> RefusalError:
    return invalid(f"input {spec.name!r}: holds numbers beyond the range of {spec.datatype}")


def _flattened(data: Sequence[Any] | Numbers, shape: tuple[int, ...], name: str) -> Sequence[Any] | Numbers:
    """Return the values of ``data``, which is flat or nested as ``shape`` says."""
    values = data
    for depth in range(len(shape)):
        if isinstance(values, Numbers) or not values:
            break
        if isinstance(values[0], Numbers):
            return _joined(values, shape, name)
        if not isinstance(values[0], list):
            break
        inner = shape[depth + 1] if depth + 1 < len(shape) else None
        if len(values) != math.prod(shape[: depth + 1]) or {type(part) for part in values} != {list}:
            raise _nested_otherwise(name, shape)
        if inner is None or {len(part) for part in values} != {inner}:
            raise _nested_otherwise(name, shape)
        values = list(chain.from_iterable(values))
    return values


def _joined(rows: Sequence[Any], shape: tuple[int, ...], name: str) -> Numbers:
    """Return the values of innermost lists, of which each must be as long as the last side of ``shape``."""
    if len(rows) != math.prod(shape[:-1]) or {type(row) for row in rows} != {Numbers}:
        raise _nested_otherwise(name, shape)
    if {len(row.values) for row in rows} != {shape[-1]}:
        raise _nested_otherwise(name, shape)
    return Numbers(frozenset().union(*(row.kinds for row in rows)), np.concatenate([row.values for row in rows]))


def _nested_otherwise(name: str, shape: tuple[int, ...]) -> RefusalError:
    return invalid(f"input {name!r}: its data is nested otherwise than its shape {list(shape)}")


def require_finite(outputs: Mapping[str, NDArray[Any]], given: str) -> None:
    """Raise RefusalError where a value of ``outputs`` is not finite; ``given`` is what they were computed of."""
    for name, array in outputs.items():
        if not is_finite(array):
            raise invalid(f"output {name!r} of {given} is not finite; of float32 pixels values in [0, 1] are expected")


def classified(values: NDArray[np.float32], count: int, names: Sequence[str]) -> NDArray[np.object_]:
    """Return the ``count`` largest of each row as texts ``value:index:name``, (batch, count), largest first."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    rows = [
        [f"{row[i]:f}:{i}:{names[i]}" for i in best] for row, best in zip(values.tolist(), order.tolist(), strict=True)
    ]
    return np.array(rows, dtype=np.object_).reshape(order.shape)


def to_bytes(array: NDArray[Any]) -> bytes:
    """Return row-major little-endian bytes; each text with its length in four bytes before it."""
    if array.dtype.kind == "O":
        texts = [text.encode() for text in array.ravel().tolist()]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def unknown_output(name: object, known: Sequence[str]) -> RefusalError:
    """Return the refusal of an output that the model does not have."""
    names = ", ".join(map(repr, known))
    return RefusalError(Reason.NOT_FOUND, f"output {quoted(name)}: the model has no such output; it has {names}")
