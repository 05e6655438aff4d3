"""What lies below a folder, listed in one way for those who read it and those who watch it for changes."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable

OF_SYSTEMS = frozenset(
    [
        "lost+found",
        "@eadir",
        "@tmp",
        "#recycle",
        "#snapshot",
        "@recycle",
        "@recently-snapshot",
        "__macosx",
        "__pycache__",
        "$recycle.bin",
        "recycler",
        "found.000",
        "thumbs.db",
        "thumbs.db:encryptable",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "icon\r",
    ]
) | {"system volume information"}
"""What systems, network storage and tools leave beside people's files, in lower case."""

HIDDEN = "hidden"
OF_A_SYSTEM = "of the operating system or the storage (lost+found, @eaDir, Thumbs.db and the like)"
BROKEN_LINK = "link(s) that lead nowhere"
READ_ALREADY = "link(s) to a folder that is read already"
NOT_PLAIN = "no plain files (pipes, sockets, devices)"

NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG}
"""What is wrong with a link that leads nowhere."""

DEEPEST = 200
"""Folders in each other; people have a handful."""

FolderId = tuple[int, int]
"""Device and inode."""


@dataclass(eq=False)
class Folder:
    """A folder and what is below it; both lists are sorted."""

    path: Path
    """As it was reached: through a link where that leads to it."""
    folders: list[Folder] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Names of the plain files in it, and of links to such."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """From a reason to how many entries of this folder itself are not listed."""

    @property
    def name(self) -> str:
        """Return its own name."""
        return self.path.name

    def walk(self) -> Iterator[Folder]:
        """Yield this folder and all below it."""
        yield self
        for folder in self.folders:
            yield from folder.walk()


def list_folder(root: Path) -> Folder:
    """Return what is below ``root``.

    Each real folder is listed once: at its own place where that is below ``root``, else where the first link leads to
    it; never a folder that ``root`` is in. Nothing is opened but folders. Hidden entries and those of systems are
    passed over unseen.

    Raises:
        UserError: a folder cannot be read, or there are too many in each other.
    """
    real = root.resolve()
    seen = {_folder_id(place) for place in (real, *real.parents)}
    top = Folder(root)
    links = _fill(top, seen)
    while links:
        found: list[tuple[Folder, str]] = []
        for parent, name in sorted(links, key=lambda link: link[0].path / link[1]):
            folder = Folder(parent.path / name)
            if not _is_new(folder, seen):
                parent.passed_over[READ_ALREADY] += 1
                continue
            found += _fill(folder, seen)
            parent.folders.append(folder)
            parent.folders.sort(key=lambda folder: folder.name)
        links = found
    return top


def _folder_id(path: Path) -> FolderId:
    with readable_file(path):
        facts = path.stat()
    return facts.st_dev, facts.st_ino


def _is_new(folder: Folder, seen: set[FolderId]) -> bool:
    """Return whether ``folder`` is none of those ``seen``, to which it is added."""
    identity = _folder_id(folder.path)
    known = identity in seen
    seen.add(identity)
    return not known


def _fill(top: Folder, seen: set[FolderId]) -> list[tuple[Folder, str]]:
    """List the real folders below ``top`` into it; return the links to folders that were met: where, and what names."""
    links: list[tuple[Folder, str]] = []
    waiting, deepest = [top], len(top.path.parts) + DEEPEST
    while waiting:
        folder = waiting.pop()
        with readable_file(folder.path), os.scandir(folder.path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    folder.passed_over[HIDDEN] += 1
                elif entry.name.lower() in OF_SYSTEMS:
                    folder.passed_over[OF_A_SYSTEM] += 1
                elif entry.is_file(follow_symlinks=False):
                    folder.files.append(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    inner = Folder(Path(entry.path))
                    if len(inner.path.parts) > deepest:
                        raise UserError(f"{printable(top.path)}: holds folders in each other, more than {DEEPEST} deep")
                    if _is_new(inner, seen):
                        folder.folders.append(inner)
                        waiting.append(inner)
                elif not entry.is_symlink():
                    folder.passed_over[NOT_PLAIN] += 1
                else:
                    _follow(folder, entry, links)
    return links


def _follow(folder: Folder, entry: os.DirEntry[str], links: list[tuple[Folder, str]]) -> None:
    """Count the link ``entry``, or add it to the files of ``folder`` or to ``links``, by what it leads to."""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        if error.errno not in NOWHERE:
            raise
        folder.passed_over[BROKEN_LINK] += 1
        return
    if stat.S_ISREG(mode):
        folder.files.append(entry.name)
    elif stat.S_ISDIR(mode):
        links.append((folder, entry.name))
    else:
        folder.passed_over[NOT_PLAIN] += 1
