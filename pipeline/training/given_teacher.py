"""What is reported of a teacher that was trained elsewhere."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.core.files import Json
from pipeline.tasks.data import TaskData
from pipeline.tasks.training import Validation
from pipeline.training.diagnosis import given_weights_warnings
from pipeline.training.teacher import Teacher

PASTED = 100
"""Classes, at most, that a warning lists; the report has any number."""


def given_teacher_report(
    teacher: Teacher, data: TaskData, found: Validation, device: torch.device, *, classes: str | None
) -> Json:
    """Return the figures of ``teacher`` on the calibration images, and why it is to be doubted, for the report.

    Args:
        found: of it on the test images.
        classes: the file that its classes were read from; None: they are in the order of the data.
    """
    check = data.training.check_given(teacher.network, data.split("calib"), data.info, device)
    report: Json = dict(check.figures)
    if check.proposed_classes:
        proposed = _in_file(check.proposed_classes, data, classes)
        report["proposed_classes"] = proposed
        listed = json.dumps(proposed, ensure_ascii=False)
        if len(proposed) > PASTED:
            listed = "proposed_classes of reports/teacher.json"
        check = check._replace(explanation=f"{check.explanation}; the list: {listed}")
    warnings = given_weights_warnings(found, what="the given teacher", section="train_teacher", check=check)
    return report | {"warnings": [*teacher.warnings, *warnings]}


def _in_file(proposed: Sequence[str], data: TaskData, classes: str | None) -> list[str]:
    """Return what the file of classes should say, where the outputs, in the data's order so far, are ``proposed``."""
    if classes is None:
        return [*proposed]
    known = data.task.given_classes(Path(classes), data.info.class_names)
    listed = [*known.names]
    for output, name in zip(known.outputs, proposed, strict=True):
        listed[output] = name
    return listed
