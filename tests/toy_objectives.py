"""The objective of any method for little networks and images, and a batch of them."""

from dataclasses import replace
from typing import Any

import torch

from models.classifier import Classifier
from pipeline.data.batch import Batch
from pipeline.data.dataset import DataInfo
from pipeline.distillation.criteria import DkdSettings
from pipeline.distillation.method import Networks, build_student
from pipeline.distillation.methods import METHODS
from pipeline.distillation.pairs import with_pairs
from pipeline.distillation.settings import DistillStudent, Flow, LogitLoss, Losses
from pipeline.networks.saved import build_network
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.training import ClassificationTraining
from pipeline.training.fine_tuning import TunedBackbone
from pipeline.training.objective import Objective
from pipeline.training.settings import FineTuning
from pipeline.training.teacher_settings import TrainTeacher

TASK = ClassificationTraining()
INFO = DataInfo("classification", ("a", "b", "c", "d"), (8, 8), (0.5,) * 3, (0.25,) * 3, "none", "packed")
BESIDE = {"logit_loss": LogitLoss(weight=0.5, criterion="kd")}
VARIANTS: dict[str, dict[str, Any]] = {
    "fm_kt": {},
    "fm_kt_theta": {},
    "ofm_kt": {},
    "metric": {},
    "metric_meta": {},
    "fm_kt on features": {"method": "fm_kt", "transfer": "features", "loss": "pkd"},
    "metric on features": {"method": "metric", "transfer": "features", "loss": "pkd"},
    "fm_kt on features beside logits": {"method": "fm_kt", "transfer": "features", "loss": "pkd", **BESIDE},
    "fm_kt on features and logits": {"method": "fm_kt", "transfer": "features_and_logits", "loss": "pkd", **BESIDE},
}


def make_batch(count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand(count, 3, 8, 8, generator=generator), ClassTargets(torch.arange(count) % 4))


LABELS = torch.arange(8) % 4
"""Those of ``make_batch``."""


def make_teacher(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    network = TASK.build_plain(
        TASK.plain_network(TrainTeacher(backbone="resnet8x4"), INFO, mean=list(INFO.mean), std=list(INFO.std))
    )
    assert isinstance(network, Classifier)
    return network


def make_objective(
    method: str = "fm_kt",
    *,
    teacher: Classifier | None = None,
    flow: dict[str, Any] | None = None,
    dkd_warmup_epochs: int = 0,
    class_counts: tuple[int, ...] | None = None,
    **changes: Any,
) -> Any:
    """Return the objective of the default settings with ``changes``; its weights are the same in every call."""
    losses = Losses(dkd=DkdSettings(warmup_epochs=dkd_warmup_epochs))
    options = {"method": method, "backbone": "resnet8", "loss": "kd", "losses": losses}
    settings = DistillStudent(**{**options, "flow": Flow(**{"num_steps": (4,), **(flow or {})}), **changes})
    teacher, entry = teacher or make_teacher(), METHODS[method].load()
    torch.manual_seed(1)
    settings = with_pairs(settings, INFO, TASK)
    student = build_student(entry.student(settings, INFO, TASK), INFO.image_size)
    spec = entry.adapter(settings, INFO, TASK, student, teacher)
    networks = Networks(student, build_network(spec) if spec else None, teacher)
    info = replace(INFO, class_counts=class_counts or ())
    supervision = TASK.supervision(info, label_smoothing=0.0, class_weights="balanced" if class_counts else None)
    return entry.objective(settings, networks, supervision)


def tune(objective: Objective, **settings: Any) -> TunedBackbone:
    """Let the backbone of ``objective`` be one that was given, treated as ``settings`` say."""
    names = [name for name in objective.student.state_dict() if name.startswith("backbone.")]
    objective.tuned = TunedBackbone(objective.student, names, FineTuning(**settings))
    return objective.tuned


def variant(name: str, **changes: Any) -> Any:
    return make_objective(**({"method": name} | VARIANTS[name] | changes))
