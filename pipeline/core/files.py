"""Files that are either whole or absent, and whose bytes depend on their content alone."""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.durable import make_folder, sync, sync_tree
from pipeline.core.errors import BusyError, UserError, written_file
from pipeline.core.strict_json import parse_json

Json = dict[str, Any]

_SYNCED_AT_THEIR_END: set[Path] = set()
"""Folders that are not in their place yet; what this process writes in them is brought to the disk when they are."""


@contextlib.contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yield a fresh folder beside ``target`` that takes its place when the block ends well, and is removed otherwise.

    A killed run leaves ``target`` whole: as it was, or, in the instant between two renames, to be put back by the next
    run. What a killed run left behind goes with the next one. A power cut takes nothing when the block has ended.

    Raises:
        BusyError: another process is writing the same folder.
    """
    with written_file(target):
        make_folder(target.parent)
    work, old = _beside(target)
    with exclusive(target):
        _put_back_or_remove(target)
        try:
            with written_file(target, work=work):
                work.mkdir()
                with _synced_at_its_end(work):
                    yield work
                _keep_to_umask(work)
                sync_tree(work)
                if target.exists():
                    target.rename(old)
                work.rename(target)
                sync(target.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if old.exists() and not target.exists():
                old.rename(target)


def clear_leftovers(target: Path) -> None:
    """Remove what killed processes left of the file or folder ``target``, unless a process is writing it."""
    _remove_leftovers(target.parent, f".{target.name}.partial-")
    if any(path.exists() for path in _beside(target)):
        with contextlib.suppress(BusyError), exclusive(target):
            _put_back_or_remove(target)


def _beside(target: Path) -> tuple[Path, Path]:
    """Return where the folder ``target`` is written, and where its earlier content is for an instant."""
    return target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.replaced")


def _put_back_or_remove(target: Path) -> None:
    """Put the earlier content of ``target`` back where a killed run left none in its place, and remove the rest."""
    work, old = _beside(target)
    if old.exists() and not target.exists():
        old.rename(target)
    for leftover in (work, old):
        shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _synced_at_its_end(folder: Path) -> Iterator[None]:
    _SYNCED_AT_THEIR_END.add(folder)
    try:
        yield
    finally:
        _SYNCED_AT_THEIR_END.discard(folder)


def _keep_to_umask(folder: Path) -> None:
    """Give what was written in ``folder`` the rights that the user's umask leaves; some libraries give their own."""
    allowed = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        facts = path.lstat()
        if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:  # a second name stands for another's file
            wanted = allowed & (0o777 if facts.st_mode & stat.S_IXUSR else 0o666)
            if stat.S_IMODE(facts.st_mode) != wanted:
                path.chmod(wanted)


@contextlib.contextmanager
def exclusive(target: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock beside ``target``; the system releases it when the process ends, however it ends.

    Args:
        wait: until no other process holds it.

    Raises:
        BusyError: another process holds it.
    """
    path = target.with_name(f".{target.name}.lock")
    with written_file(target, work=path):
        make_folder(target.parent)
        lock = path.open("w")
    with lock:
        try:
            with written_file(target):
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise BusyError(f"{target}: another run is still writing it; wait for it to end, or stop it") from error
        yield


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` under a temporary name, then rename it to ``path``; a power cut takes nothing of it then.

    What a killed process left of the same file goes first.

    Raises:
        UserError: something else than a plain file is there, such as a device, in whose place a file would come.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no plain file; give another path to write to")
    with written_file(path):
        make_folder(path.parent)
    begins = f".{path.name}.partial-"
    _remove_leftovers(path.parent, begins)
    work = path.with_name(begins + secrets.token_hex(4))
    try:
        with written_file(path, work=work):
            is_synced_later = any(path.is_relative_to(folder) for folder in _SYNCED_AT_THEIR_END)
            with work.open("xb") as file:
                with contextlib.suppress(OSError):  # without locks nothing is ever taken for a leftover
                    fcntl.flock(file, fcntl.LOCK_EX)
                file.write(data)
                file.flush()
                if not is_synced_later:
                    os.fsync(file.fileno())
                work.replace(path)
            if not is_synced_later:
                sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # what it was stopped by is said, not what hinders to clear up
            work.unlink()


def _remove_leftovers(folder: Path, begins: str) -> None:
    """Remove the files in ``folder`` whose names begin so, but those that a process is writing."""
    with contextlib.suppress(OSError):
        for path in [Path(entry) for entry in os.scandir(folder) if entry.name.startswith(begins)]:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Json) -> None:
    """Write ``content`` with sorted keys, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write ``rows`` under a header of ``columns``, floats with six significant digits, whole or not at all."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: csv_cell(value) for key, value in row.items()})
    write_text(path, buffer.getvalue())


def csv_cell(value: object) -> object:
    """Return what stands for ``value`` in a table: six digits of a float, no carriage return, which csv leaves bare."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value.replace("\r", "\\r") if isinstance(value, str) else value


def read_json(path: Path) -> Json:
    """Return the object in the JSON file ``path``.

    Raises:
        UserError: the file is missing or holds no JSON object.
    """
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the stage that writes it (dvc repro)") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; run the stage that writes it again") from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of the CSV file ``path`` by its header.

    Raises:
        UserError: the file is missing, or is no CSV in UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the stage that writes it (dvc repro)") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid CSV ({error}); run the stage that writes it again") from error


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file ``path``."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
