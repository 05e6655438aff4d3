"""Which other source of ``prepare_data`` would read a folder that the chosen one does not find its files in."""

import re

from pipeline.data.sources.listing import Folder

FILES = {"coco": r"(instances|_annotations\.coco).*\.json", "yolo": r".+\.ya?ml", "voc": r".+\.xml"}
"""From each source of objects to what files of its annotations are usually called."""
COMPANIONS = {"yolo": "labels"}
"""Folders without which such files are more likely something else's."""


def other_format(top: Folder, own: str) -> str:
    """Return words on the source that would find its files below ``top``, for a message of ``own``; empty: none would.

    They begin with a semicolon.
    """
    folders = list(top.walk())
    for source, pattern in FILES.items():
        companion = COMPANIONS.get(source)
        if source == own or (companion and all(folder.path.name.lower() != companion for folder in folders)):
            continue
        if any(re.fullmatch(pattern, name, re.IGNORECASE) for folder in folders for name in folder.files):
            return f"; it has files as prepare_data.source={source} reads them"
    return ""
