"""The classes of a teacher that was trained elsewhere, as its user names them."""

import dataclasses
from pathlib import Path

from pipeline.data.dataset import DataInfo
from pipeline.tasks.table import get_task


def known_classes(path: Path, info: DataInfo) -> tuple[DataInfo, list[int]]:
    """Return ``info`` with the classes that the file ``path`` names, and the output of each class of the data.

    Raises:
        UserError: see ``Task.given_classes``.
    """
    known = get_task(info.task).given_classes(path, info.class_names)
    return dataclasses.replace(info, class_names=known.names, class_counts=()), known.outputs
