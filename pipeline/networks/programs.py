"""The table of programs: files of finished networks that can teach, in forms that are neither trained nor cut.

A teacher's backbone ``SOURCE:FILE`` names one, as ``onnx:teacher.onnx``. To add a form: a ``Program`` in a file of this
folder, and an entry here. Nothing here imports PyTorch.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from models.core.table import Entry, Table
from pipeline.core.errors import UserError, readable_file
from pipeline.core.files import sha256
from pipeline.core.printable import printable

if TYPE_CHECKING:
    from pipeline.networks.program import Program

KEY = "train_teacher.backbone"


@dataclass(frozen=True, kw_only=True)
class ProgramEntry(Entry):
    """A form of programs in the table."""

    load: Callable[[], type[Program]]
    """Returns the class of its networks."""
    read: Callable[[Path], bytes] = Path.read_bytes
    """Returns a file, and all that belongs to it, as the bytes of one."""
    files: Callable[[Path], Sequence[Path]] = lambda path: [path]
    """Returns the files that belong to one."""

    @property
    def kind(self) -> str:
        """Return the name of its kind in ``pipeline.networks.saved.NETWORK_KINDS``."""
        return f"{self.name}_program"


class ProgramFile(NamedTuple):
    """A file that holds a program."""

    entry: ProgramEntry
    path: Path

    def fingerprint(self) -> str:
        """Return a digest of the file and of all that belongs to it.

        Raises:
            UserError: a file is not there or cannot be read.
        """
        if not self.path.is_file():
            raise UserError(f"{KEY}: no such file: {printable(self.path)}")
        with self._named():
            digests = [sha256(path) for path in self.entry.files(self.path)]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def read(self) -> bytes:
        """Return the program, whole.

        Raises:
            UserError: a file is not there, or is none of this form.
        """
        with self._named():
            content = self.entry.read(self.path)
            if not content:
                raise UserError(f"{printable(self.path)}: the file is empty")
        return content

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Let errors name the parameter that the file comes from."""
        try:
            with readable_file(self.path):
                yield
        except UserError as error:
            raise UserError(f"{KEY}: {error}") from error


def _onnx() -> type[Program]:
    from pipeline.networks.onnx_program import OnnxProgram

    return OnnxProgram


def _read_onnx(path: Path) -> bytes:
    from pipeline.networks.onnx_program import read_onnx

    return read_onnx(path)


def _onnx_files(path: Path) -> Sequence[Path]:
    from pipeline.networks.onnx_program import onnx_files

    return onnx_files(path)


def _exported() -> type[Program]:
    from pipeline.networks.exported_program import TorchProgram

    return TorchProgram


PROGRAMS = Table(
    "program",
    ProgramEntry(name="onnx", description="an ONNX file", load=_onnx, read=_read_onnx, files=_onnx_files),
    ProgramEntry(name="exported", description="what torch.export.save has written (.pt2)", load=_exported),
)


def find_program(backbone: str) -> ProgramFile | None:
    """Return the program that ``backbone`` names as ``SOURCE:FILE``; None where it names a network."""
    source, colon, file = backbone.partition(":")
    return ProgramFile(PROGRAMS[source], Path(file).expanduser()) if colon and file and source in PROGRAMS else None
