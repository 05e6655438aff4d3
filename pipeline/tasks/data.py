"""Prepared data as its task reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.detections import Detections
from pipeline.core.signature import Signature
from pipeline.data.dataset import DataInfo, Split, read_info, read_split
from pipeline.tasks.base import Task
from pipeline.tasks.table import task_of_data
from pipeline.tasks.training import TaskTraining


@dataclass(frozen=True)
class TaskData:
    """A folder that ``prepare_data`` wrote, with the task that its images are for."""

    folder: Path
    info: DataInfo
    task: Task
    training: TaskTraining

    def split(self, name: str) -> Split:
        """Return the split ``name`` (calib, test, or train where it is packed).

        Raises:
            UserError: its file is missing or damaged.
        """
        return read_split(self.folder, name, self.training.read_targets)

    def signature(self, input_dtype: str = "float32") -> Signature:
        """Return what a network for these images takes and returns."""
        return self.task.signature(
            image_size=self.info.image_size, input_dtype=input_dtype, class_names=self.info.class_names
        )


def open_data(folder: Path, detections: Detections | None = None, network: Mapping[str, Any] | None = None) -> TaskData:
    """Return the prepared data in ``folder``.

    Args:
        detections: what deployed networks answer, where that is a choice; None: the defaults.
        network: how the network is made, which decides what ``detections`` leave open; None: it is not known.

    Raises:
        UserError: data.json is missing or damaged, or of a task that is unknown here.
    """
    info = read_info(folder)
    task = task_of_data(info.task, folder).configured(detections or Detections(), network or {})
    return TaskData(folder, info, task, task.training())
