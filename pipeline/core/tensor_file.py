"""Tensors in the safetensors format, read with NumPy alone.

A file is the length of its header in eight bytes, the header, a JSON object that gives each tensor's type, shape and
place, and the tensors' bytes, one behind the other (https://github.com/huggingface/safetensors).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.plain import shown
from pipeline.core.plain_file import read_plain_file
from pipeline.core.strict_json import parse_json

DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
"""The types that NumPy knows too."""
METADATA = "__metadata__"
LARGEST_HEADER = 2**20
"""Bytes; the format allows a hundred times as many, for tens of thousands of tensors."""
LARGEST = 2**31
"""Bytes of a file."""


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors in ``path`` by their names.

    Raises:
        UserError: it cannot be read, is no plain file or too large.
        ValueError: it is damaged, or of another format.
    """
    data = read_plain_file(path, most=LARGEST, links=True)
    end = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or end > len(data):
        raise ValueError("its header is cut short")
    if end > LARGEST_HEADER:
        raise ValueError(f"its header has more than {LARGEST_HEADER:,} bytes")
    try:
        header = parse_json(data[8:end])
        entries = {name: entry for name, entry in header.items() if name != METADATA}
        found = {name: _tensor(memoryview(data)[end:], entry) for name, entry in entries.items()}
        places = sorted(entry["data_offsets"] for entry in entries.values())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its header is damaged ({shown(error)})") from error
    starts, ends = [0, *(stop for _, stop in places)], [*(start for start, _ in places), len(data) - end]
    if starts != ends:
        raise ValueError("its tensors do not lie one behind the other up to its end")
    return found


def _tensor(data: memoryview, entry: dict[str, Any]) -> NDArray[Any]:
    """Return the tensor that ``entry`` describes; raises KeyError, TypeError or ValueError where it cannot be."""
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), [_count(size) for size in entry["shape"]]
    start, stop = (_count(place) for place in entry["data_offsets"])
    if stop - start != math.prod(shape) * dtype.itemsize or stop > len(data):
        raise ValueError(f"bytes {shown(start)} to {shown(stop)} are no {dtype} of shape {shown(shape)}")
    return np.frombuffer(data[start:stop], dtype).reshape(shape)


def _count(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"{shown(number)} is no size or place")
    return number
