"""The table of tasks: what can be predicted.

To add one: a ``pipeline.tasks.base.Task`` in a folder of its own, and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.core.table import Entry, Table, UnknownNameError
from models.detections import Detections
from pipeline.core.errors import UserError
from pipeline.core.plain import read_plain, shown

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.tasks.base import Task
    from pipeline.tasks.restrictions import Restriction


@dataclass(frozen=True, kw_only=True)
class TaskEntry(Entry):
    """A task in the table."""

    load: Callable[[], Task]
    restrictions: Callable[[], Sequence[Restriction]] = tuple
    """Returns what of the parameters it refuses."""
    builds_to_check: bool = False
    """Whether a network of any backbone must be built to know whether it fits the images."""


def _classification() -> Task:
    from pipeline.tasks.classification.task import Classification

    return Classification()


def _restrictions_of_classification() -> Sequence[Restriction]:
    from pipeline.tasks.classification.restrictions import RESTRICTIONS

    return RESTRICTIONS


def _detection() -> Task:
    from pipeline.tasks.detection.task import Detection

    return Detection()


def _restrictions_of_detection() -> Sequence[Restriction]:
    from pipeline.tasks.detection.restrictions import RESTRICTIONS

    return RESTRICTIONS


TASKS = Table(
    "task",
    TaskEntry(
        name="classification",
        description="one class for an image",
        load=_classification,
        restrictions=_restrictions_of_classification,
    ),
    TaskEntry(
        name="detection",
        description="boxes around the objects of an image, with their classes",
        load=_detection,
        restrictions=_restrictions_of_detection,
        builds_to_check=True,
    ),
)

DETECTIONS = "detections"
"""The key of a manifest under which the settings stand with which files of detections were exported."""
DEFAULT = "classification"
"""The task of packages that were written before manifests named it."""


def get_task(name: str) -> Task:
    """Return the task called ``name``.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    return TASKS[name].load()


def task_of_data(name: str, folder: Path) -> Task:
    """Return the task called ``name`` by what ``prepare_data`` wrote into ``folder``.

    Raises:
        UserError: there is no such task here.
    """
    try:
        return get_task(name)
    except UnknownNameError as error:
        raise UserError(f"{folder / 'data.json'}: {error}; run prepare_data again (dvc repro)") from error


def exported_task(manifest: Mapping[str, Any]) -> Task:
    """Return the task of the files that ``manifest`` describes, as it was set when they were exported.

    Raises:
        ValueError: the manifest names an unknown task, says of outputs what this version does not
            know, or is damaged.
    """
    task = get_task(manifest.get("task", DEFAULT))
    settings = manifest.get(DETECTIONS, {}) if DETECTIONS in task.output_facts() else {}
    task = task.configured(read_plain(Detections, settings), {})
    for key, fact in task.output_facts().items():
        if key not in manifest:
            raise ValueError(f"has no {key}")
        if manifest[key] != fact:
            raise ValueError(f"{key} is {shown(manifest[key])}, expected {fact!r}")
    return task
