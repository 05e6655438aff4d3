"""Tensors in a file, each of which is either whole or counts as absent."""

import hashlib
import os
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

DIGEST_SIZE = hashlib.sha256().digest_size
HEADER_SIZE = 8
NAME = "targets"


class RecordFile:
    """Tensors of one shape and type by their numbers, in the file ``path``.

    The file begins with the size of a record. A record is a SHA-256 and what it covers: the record's number and the
    tensor, as safetensors. So a run that is killed needs no repair, and several that write the same may share a file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.is_damaged = False
        """Whether something was found that had been written, but is not whole."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._size = self._size_of_a_record()

    def read(self, number: int) -> Tensor | None:
        """Return the tensor ``number``, on the CPU; None where it is absent."""
        data = os.pread(self._file, self._size, HEADER_SIZE + number * self._size)
        content = data[DIGEST_SIZE:]
        if not content or _digest(number, content) != data[:DIGEST_SIZE]:
            self.is_damaged |= any(data)  # the system fills with zeros what lies before the first record written
            return None
        return load(content)[NAME]

    def write(self, number: int, tensor: Tensor) -> None:
        """Keep ``tensor`` as ``number``."""
        content = save({NAME: tensor.detach().cpu().contiguous()})
        if self._size != DIGEST_SIZE + len(content):
            self._size = DIGEST_SIZE + len(content)
            os.pwrite(self._file, self._size.to_bytes(HEADER_SIZE, "little"), 0)
        data = memoryview(_digest(number, content) + content)
        place = HEADER_SIZE + number * self._size
        while data:
            written = os.pwrite(self._file, data, place)
            data, place = data[written:], place + written

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _size_of_a_record(self) -> int:
        """Return what the file says of it; 0 where it says nothing that could be true."""
        size = int.from_bytes(os.pread(self._file, HEADER_SIZE, 0), "little")
        return size if size <= os.fstat(self._file).st_size else 0


def _digest(number: int, content: bytes) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "little") + content).digest()
