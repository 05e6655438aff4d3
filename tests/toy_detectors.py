"""The objective of any method for little detectors, and a batch of images with objects."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from pipeline.data.batch import Batch
from pipeline.distillation.building import Distillation, build_distillation
from pipeline.distillation.settings import DistillStudent, Flow
from pipeline.tasks.detection.task import Detection
from pipeline.training.network_settings import DetectorSettings
from pipeline.training.teacher import build_teacher
from pipeline.training.teacher_settings import TrainTeacher
from tests.detection_data import INFO, make_split

TASK = Detection()
TRAINING = TASK.training()
SMALL: dict[str, Any] = {"width": 32, "num_convs": 1, "levels": (2, 3), "extra": "pool"}
LEVELS = 3


def make_batch(count: int = 6, seed: int = 3) -> Batch:
    split = make_split(count, seed)
    return Batch(split.images.double() / 255, split.targets)


def make_teacher(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    settings = TrainTeacher(backbone="resnet8", detector=DetectorSettings(**{**SMALL, **changes}))
    return build_teacher(settings, INFO, TRAINING).network.double()


def distilled(method: str, teacher: nn.Module | None = None, **changes: Any) -> Distillation:
    """Return a small student in float64 and what trains it; its weights are the same in every call."""
    options: dict[str, Any] = {"transfer": "features", "loss": "pkd", "feature_pairs": None, "loss_weight": 6.0}
    options |= {"detector": DetectorSettings(**SMALL), "flow": Flow(num_steps=(2,)), "allow_larger": True}
    settings = DistillStudent(method=method, backbone="resnet8", **(options | changes))
    found = teacher or make_teacher()
    torch.manual_seed(1)
    data: Any = SimpleNamespace(info=INFO, training=TRAINING, task=TASK)
    built = build_distillation(settings, data, found.float)
    built.objective.double().eval()
    return built
