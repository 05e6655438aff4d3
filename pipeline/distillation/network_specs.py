"""The networks of a method: the student that deploys, and what is trained beside it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from models.backbones.backbone import Backbone
from models.classifier import Classifier
from models.factory import check_image_size, require_feature_map
from models.students import SampledStudent, check_stages
from pipeline.core.errors import user_error
from pipeline.core.files import Json
from pipeline.data.dataset import DataInfo
from pipeline.distillation.methods import METHODS
from pipeline.networks.saved import build_network


class NetworkSpec(NamedTuple):
    """From what ``pipeline.networks.saved.build_network`` makes a network."""

    kind: str
    arguments: Json


def student_spec(distill: Mapping[str, Any], info: DataInfo) -> NetworkSpec:
    """Return how the student of the parameters ``distill`` is made."""
    arguments: Json = {"backbone": distill["backbone"], "num_classes": len(info.classes)}
    arguments |= {"mean": list(info.mean), "std": list(info.std)}
    kind = METHODS[distill["method"]].student
    if distill["method"] == "metric_meta":
        return NetworkSpec(kind, arguments | {"layers": distill["flow"]["meta_encoder"]})
    if kind == "flow_student":
        arguments |= _flow_arguments(distill)
        if distill["transfer"] == "features":
            stages = [pair[0] for pair in distill["feature_pairs"]]
            return NetworkSpec("feature_flow_student", arguments | {"stages": stages})
    return NetworkSpec(kind, arguments)


def _flow_arguments(distill: Mapping[str, Any]) -> Json:
    return {key: distill["flow"][key] for key in ("schedule", "meta_encoder", "time_scale")}


def adapter_spec(
    distill: Mapping[str, Any], info: DataInfo, student: nn.Module, teacher: Classifier | None
) -> NetworkSpec | None:
    """Return how that is made which is trained beside ``student`` and does not deploy; None where nothing is.

    Raises:
        UserError: the student or the teacher has no stage that is to be paired.
    """
    if distill["method"] == "fm_kt_theta":
        assert isinstance(student, Classifier)
        with user_error("distill_student.backbone"):
            require_feature_map(distill["backbone"], student.backbone)
        sizes = {"channels": student.backbone.channels, "num_classes": len(info.classes)}
        return NetworkSpec("logit_flow", sizes | _flow_arguments(distill))
    if distill["transfer"] == "logits" or distill["method"] == "none" or teacher is None:
        return None
    pairs = distill["feature_pairs"]
    with user_error("distill_student.feature_pairs"):
        check_pairs(distill["backbone"], _backbone(student), "the teacher's backbone", teacher.backbone, pairs)
    device = next(teacher.parameters()).device
    with torch.no_grad():
        maps = teacher.eval().feature_maps(torch.zeros(1, 3, *info.image_size, device=device))
    own = _backbone(student).widths
    shapes = [[own[i - 1], maps[j - 1].shape[1], list(maps[j - 1].shape[2:])] for i, j in pairs]
    return NetworkSpec("feature_transforms", {"shapes": shapes})


def _backbone(student: nn.Module) -> Backbone:
    assert isinstance(student, Classifier | SampledStudent)
    backbone = student.backbone
    assert isinstance(backbone, Backbone)
    return backbone


def check_pairs(
    backbone: str, backbone: Backbone, teacher_backbone: str, teacher_backbone: Backbone, pairs: Sequence[Sequence[int]]
) -> None:
    """Raise ValueError where the student's or the teacher's backbone lacks a stage of ``pairs``."""
    check_stages(backbone, backbone, [pair[0] for pair in pairs])
    check_stages(teacher_backbone, teacher_backbone, [pair[1] for pair in pairs])


def taught(distill: Mapping[str, Any]) -> Json:
    """Return ``teacher_stages``, to be kept with the student: what it learnt of the teacher.

    None: nothing; empty: the logits; else the teacher's stages, counted from 1.
    """
    if not METHODS[distill["method"]].needs_teacher:
        return {"teacher_stages": None}
    features = distill["transfer"] == "features"
    return {"teacher_stages": [pair[1] for pair in distill["feature_pairs"]] if features else []}


def build_student(recipe: NetworkSpec, image_size: tuple[int, int]) -> nn.Module:
    """Return the student with random weights.

    Raises:
        UserError: the backbone is unknown, has no feature map or stage, or cannot take images of ``image_size``.
    """
    with user_error("distill_student.backbone"):
        student = build_network(recipe.kind, recipe.arguments)
        check_image_size(student, image_size, *([1] if isinstance(student, SampledStudent) else []))
    return student
