"""Which feature maps of student and teacher belong together, where the settings leave that to the networks."""

import torch
from torch import nn

from pipeline.core.errors import UserError, user_error
from pipeline.data.dataset import DataInfo
from pipeline.distillation.frozen_teacher import with_stages
from pipeline.distillation.settings import DistillStudent
from pipeline.tasks.training import TaskTraining

KEY = "distill_student.feature_pairs"


def with_pairs(settings: DistillStudent, info: DataInfo, task: TaskTraining) -> DistillStudent:
    """Return ``settings`` with the pairs of feature maps and their weights, where any are transferred.

    Without pairs each map of the student goes with the teacher's of the same number; without weights the task says what
    counts.

    Raises:
        UserError: the student's backbone cannot be built; or the weights are not those of its maps.
    """
    if not settings.transfers_features or (settings.feature_pairs is not None and not task.sums_pairs):
        return settings
    student = with_stages(plain_student(settings, info, task))
    count, name = len(student.map_widths), student.map_name
    pairs = settings.feature_pairs or tuple((number, number) for number in range(1, count + 1))
    weights = settings.pair_weights
    if weights is None and task.sums_pairs:
        weights = tuple(float(own != count) for own, _ in pairs)
        if not any(weights):
            raise UserError(f"{KEY}: got the last {name} alone, which has no loss unless pair_weights gives it one")
    if not (weights is None or isinstance(weights, str)) and len(weights) != len(pairs):
        raise UserError(f"distill_student.pair_weights: got {len(weights)} for {len(pairs)} {name}s; give one for each")
    return settings.model_copy(update={"feature_pairs": pairs, "pair_weights": weights})


def plain_student(settings: DistillStudent, info: DataInfo, task: TaskTraining) -> nn.Module:
    """Return the plain network of ``settings``; whatever is drawn for it changes no weight that is drawn later."""
    with torch.random.fork_rng(devices=[]), user_error("distill_student.backbone"):
        spec = task.plain_network(settings, info, mean=[*info.mean], std=[*info.std])
        return task.build_plain(task.with_feature_map(spec))


def require_alike(student: nn.Module, teacher: nn.Module, info: DataInfo) -> None:
    """Raise UserError where the maps of ``student`` and ``teacher``, which go together by their number, differ."""
    own, theirs = _map_sizes(student, info), _map_sizes(teacher, info)
    if own != theirs:
        name = with_stages(student).map_name
        shown = [", ".join("x".join(map(str, size)) for size in sizes) for sizes in (own, theirs)]
        raise UserError(
            f"{KEY}: got null, which takes {name} after {name}, but those of the student are {shown[0]}, those of the "
            f"teacher {shown[1]} pixels; give the pairs, as [[student's {name}, teacher's {name}], ...]"
        )


@torch.no_grad()
def _map_sizes(network: nn.Module, info: DataInfo) -> list[tuple[int, ...]]:
    """Return height and width of each feature map of ``network``, which is in eval mode from then on."""
    device = next(network.parameters()).device
    maps = with_stages(network.eval()).feature_maps(torch.zeros(1, 3, *info.image_size, device=device))
    return [tuple(one.shape[2:]) for one in maps]
