"""What a power cut or a kill may have left half-written of DVC's own files, which DVC takes for whole, or stops at.

DVC brings nothing to the disk by itself, and takes an object of its cache for whole where the mode says so.
"""

import contextlib
import fcntl
import hashlib
import json
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.durable import cache_folder, settled_until
from pipeline.core.files import Json, clear_leftovers
from pipeline.core.scratch import UNPACKED, clear_scratch
from pipeline.preflight.stage_table import STAGES

CACHE_MODE = 0o444
"""Of an object that DVC does not look at again."""
ABANDONED_SECONDS = 3600
"""A temporary file in the cache that nobody has written to for so long was left by a process that was killed."""
LOCK = "dvc.lock"
DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")
FILE_TYPES = {"path": str, "hash": str, "md5": str, "size": int, "nfiles": int, "isexec": bool}
"""Of what DVC knows of a file; the beginning of a digest may look like a number."""


def repair(root: Path) -> Iterator[str]:
    """Remove what is broken of DVC's own files in the project ``root``; yield a line on each kind.

    To call before DVC starts: it stops at most of them.
    """
    lock = root / LOCK
    if lock.exists() and not _is_whole_lock(lock):
        lock.unlink()
        yield f"{lock}: was half-written, removed; what has run is found again in DVC's cache"
    yield from _repair_rwlock(root / ".dvc/tmp/rwlock")
    yield from repair_cache(root)


def repair_cache(root: Path) -> Iterator[str]:
    """Remove damaged objects from DVC's cache of the project ``root``; yield a line where there were any.

    Only what was written since the cache was last known to be on the disk is looked at.
    """
    since = settled_until(root)
    removed = 0
    for folder in _entries(cache_folder(root) / "files/md5"):
        with contextlib.suppress(OSError):  # another process removes objects, or this user may not read them
            if folder.stat().st_mtime > since:
                removed += sum(_is_damaged(path, since) and _is_removed(path) for path in _entries(folder))
    if removed:
        what = "1 damaged object" if removed == 1 else f"{removed} damaged objects"
        yield f"{cache_folder(root)}: {what} removed, as a power cut leaves them; what is missing is made again"


def tidy(root: Path) -> None:
    """Remove what killed stages left beside their outputs in the project ``root``, which may not run again."""
    for stage in STAGES.values():
        for runtime in stage.runtimes or [None]:
            for path in stage.project_paths(runtime).values():
                clear_leftovers(root / path)
    clear_scratch(root / UNPACKED)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _is_removed(path: Path) -> bool:
    """Remove ``path``; return whether it was an object, not an abandoned temporary file."""
    path.unlink()
    return not path.name.endswith(".tmp")


def _is_damaged(path: Path, since: float) -> bool:
    """Return whether the object ``path``, if it was written after ``since``, has not the content of its name."""
    facts = path.stat()
    if path.name.endswith(".tmp"):
        return time.time() - facts.st_mtime > ABANDONED_SECONDS
    if stat.S_IMODE(facts.st_mode) != CACHE_MODE or max(facts.st_mtime, facts.st_ctime) <= since:
        return False  # DVC itself compares others with their names
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return digest != path.parent.name + path.name.removesuffix(".dir")


def _is_whole_lock(path: Path) -> bool:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe").load(path.read_bytes())
    except (YAMLError, UnicodeDecodeError):
        return False
    if not (isinstance(content, dict) and "schema" in content and isinstance(content.get("stages"), dict)):
        return False
    return all(map(_is_whole_stage, content["stages"].values()))


def _is_whole_stage(stage: object) -> bool:
    """Return whether an entry of dvc.lock has what DVC asks of one; the last may end anywhere."""
    if not isinstance(stage, dict) or not isinstance(stage.get("cmd"), str | list) or None in stage.values():
        return False
    params = stage.get("params", {})
    if not isinstance(params, dict) or not all(isinstance(values, dict) for values in params.values()):
        return False
    return all(_is_whole_file(entry) for kind in ("deps", "outs") for entry in stage.get(kind, []))


def _is_whole_file(entry: object) -> bool:
    if not isinstance(entry, dict) or "path" not in entry:
        return False
    if not all(isinstance(value, FILE_TYPES.get(name, object)) for name, value in entry.items()):
        return False
    return "md5" not in entry or DIGEST.fullmatch(entry["md5"]) is not None


def _repair_rwlock(path: Path) -> Iterator[str]:
    """Remove the list ``path`` of who reads and writes what, where no program can read it.

    Of processes that have ended, whose numbers others may have by now, it is cleared.
    """
    guard = path.with_name("rwlock.lock")
    if not path.exists():
        return
    with guard.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # a running DVC is writing it
            return
        try:
            content = json.loads(path.read_bytes())
            kept = _of_running_dvc(content)
        except (ValueError, TypeError, KeyError, AttributeError):
            path.unlink()
            yield f"{path}: was half-written, removed"
            return
        if kept != content:
            path.write_text(json.dumps(kept))


def _of_running_dvc(content: Json) -> Json:
    """Return of the readers and writers of each path those that are running DVC."""
    read = {
        path: [reader for reader in readers if _runs_dvc(reader["pid"])]
        for path, readers in content.get("read", {}).items()
    }
    write = {path: writer for path, writer in content.get("write", {}).items() if _runs_dvc(writer["pid"])}
    kept: Json = {"read": {path: readers for path, readers in read.items() if readers}, "write": write}
    return {way: entries for way, entries in kept.items() if way in content}


def _runs_dvc(pid: int) -> bool:
    try:
        return b"dvc" in Path(f"/proc/{int(pid)}/cmdline").read_bytes()
    except OSError:
        return False
