"""Files of an index as a few flat arrays, which any number of processes share without copying them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Truth
from pipeline.core.printable import printable
from pipeline.data.image_bytes import State, read_image_bytes

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "truth."


@dataclass(frozen=True)
class FileList:
    """Files below a root, and what they held when they were read.

    Names are one array of bytes: a list of strings would take a hundred bytes more for each, and processes that count
    references to them would copy it page by page.
    """

    root: str
    paths: NDArray[np.uint8]
    """The names of all files below ``root``, one after another."""
    ends: NDArray[np.int64]
    """Where the name of each file ends in ``paths``."""
    sizes: NDArray[np.int64]
    """Bytes of each file."""
    sums: NDArray[np.int64]
    """CRC-32 of what each holds."""

    COLUMNS: ClassVar = ("paths", "ends", "sizes", "sums")

    @classmethod
    def of(cls, root: Path, states: Mapping[Path, State]) -> FileList:
        """Return the list of files below ``root``, each with the state in which it was read."""
        names = [os.fsencode(file.relative_to(root)) for file in states]
        facts = np.array([*states.values()], dtype=np.int64).reshape(-1, len(State._fields))
        ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        return cls(str(root), np.frombuffer(b"".join(names), dtype=np.uint8), ends, *facts.T.copy())

    def with_truth(self, truth: Truth) -> dict[str, NDArray[np.generic]]:
        """Return these arrays and those of ``truth`` by the names that they have in a file.

        What is called as one of these gets a prefix there.
        """
        columns = {name: getattr(self, name) for name in self.COLUMNS}
        return columns | {f"{PREFIX}{name}" if name in columns else name: array for name, array in truth.items()}

    @classmethod
    def split(cls, root: str, tensors: Mapping[str, Tensor]) -> tuple[FileList, dict[str, Tensor]]:
        """Return the list in the tensors of a file, and the others by the names of the truth.

        Raises:
            KeyError: an array of the list is missing.
        """
        files = cls(root, **{name: tensors[name].numpy() for name in cls.COLUMNS})
        others = {name.removeprefix(PREFIX): values for name, values in tensors.items() if name not in cls.COLUMNS}
        return files, others

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, position: int) -> str:
        """Return the name below ``root`` of the file at ``position``."""
        start = self.ends[position - 1] if position else 0
        return os.fsdecode(self.paths[start : self.ends[position]].tobytes())

    def read(self, position: int) -> tuple[str, bytes]:
        """Return path and content of the file at ``position``.

        Raises:
            UserError: it cannot be read, or no longer holds what it did; names it.
        """
        path = os.path.join(self.root, self.name(position))  # noqa: PTH118  (a Path takes longer than the reading)
        name = printable(path)
        return name, read_image_bytes(path, name, known=State(int(self.sizes[position]), int(self.sums[position])))
