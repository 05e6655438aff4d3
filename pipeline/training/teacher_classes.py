"""The classes of a teacher that was trained elsewhere, as its user names them."""

import dataclasses
from pathlib import Path

from pipeline.data.dataset import DataInfo
from pipeline.tasks.classification.class_names import find_classes, read_classes


def known_classes(path: Path, info: DataInfo) -> tuple[DataInfo, list[int]]:
    """Return ``info`` with the classes that the file ``path`` names, and the output of each class of the data.

    Raises:
        UserError: see ``read_classes`` and ``find_classes``.
    """
    classes = read_classes(path)
    outputs = find_classes(info.class_names, classes, path)
    return dataclasses.replace(info, class_names=tuple(names[0] for names in classes), class_counts=()), outputs
