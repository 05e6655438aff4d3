"""What is reported of a teacher that was trained elsewhere."""

import torch
from torch import nn

from pipeline.core.files import Json
from pipeline.tasks.data import TaskData
from pipeline.tasks.training import Validation
from pipeline.training.diagnosis import given_weights_warnings


def given_teacher_report(network: nn.Module, data: TaskData, found: Validation, device: torch.device) -> Json:
    """Return the figures of ``network`` on the calibration images, and why it is to be doubted, for the report.

    Args:
        found: of it on the test images.
    """
    check = data.training.check_given(network, data.split("calib"), data.info, device)
    report: Json = dict(check.figures)
    if check.proposed_classes:
        report["proposed_classes"] = [*check.proposed_classes]
    warnings = given_weights_warnings(found, what="the given teacher", section="train_teacher", check=check)
    return report | {"warnings": warnings}
