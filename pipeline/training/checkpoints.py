"""Checkpoints of a training run, from which it goes on after an interruption."""

import contextlib
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from pipeline.core.distributed import is_main
from pipeline.core.durable import CHECKPOINTS, FINISHED, is_run_by_dvc, project_root
from pipeline.core.files import Json, exclusive, sha256, write_bytes
from pipeline.core.libraries import library_versions

logger = logging.getLogger(__name__)

KEPT = 2
DIGEST_SIZE = hashlib.sha256().digest_size


class Checkpoints:
    """The last states of one run, a file for each, in ``folder``; a damaged one gives way to the one before.

    A file holds the SHA-256 of what follows it, then a PyTorch archive.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, epoch: int, state: Json) -> None:
        """Keep ``state`` after ``epoch`` epochs, whole or not at all, and forget the oldest."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        write_bytes(self.folder / f"epoch-{epoch:06}.checkpoint", hashlib.sha256(content).digest() + content)
        for path in self._files()[:-KEPT]:
            path.unlink()

    def latest(self) -> Json | None:
        """Return the last state that is whole, its tensors on the CPU; None where there is none."""
        for path in reversed(self._files()):
            data = path.read_bytes()
            content = data[DIGEST_SIZE:]
            if hashlib.sha256(content).digest() == data[:DIGEST_SIZE]:
                state: Json = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                return state
            logger.warning("%s: damaged checkpoint, removed; an earlier one serves, where there is one", path)
            path.unlink()  # it would count as the newest, and push out those that are whole
        return None

    def clear(self) -> None:
        """Forget all states: what they led to has been written.

        DVC replaces that by copies of its own, which no power cut spares until they are on the disk as well; the states
        stay until a stage that reads them sees to it.
        """
        if is_run_by_dvc():
            write_bytes(self.folder / FINISHED, b"")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.checkpoint"))


@contextlib.contextmanager
def open_checkpoints(stage: str, facts: Json, inputs: Sequence[Path], *, code: str) -> Iterator[Checkpoints]:
    """Yield the checkpoints of the run of ``stage`` that ``facts``, ``inputs`` and ``code`` determine.

    The main process has a lock on them.

    They lie in ``.checkpoints`` at the root of the DVC repository, or in the working directory: DVC empties its outputs
    before a stage runs. Any other parameter, input file, version of a library that computes, or change of the stage's
    code makes another run.

    Args:
        code: the digest of the code that the stage runs.

    Raises:
        BusyError: another process is training the same run.
    """
    folder = checkpoints_root() / stage / fingerprint(facts, inputs, code=code)
    with exclusive(folder / "run") if is_main() else contextlib.nullcontext():
        if is_main():
            (folder / FINISHED).unlink(missing_ok=True)
        yield Checkpoints(folder)


def checkpoints_root() -> Path:
    """Return the folder of all that trainings keep for later ones."""
    return project_root() / CHECKPOINTS


def fingerprint(facts: Json, inputs: Sequence[Path], *, code: str) -> str:
    """Return 16 digits that change with ``facts``, files, code, and the version of a library that computes."""
    known = facts | {"code": code, "inputs": [sha256(path) for path in inputs]}
    known |= library_versions()
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
