"""Checks of the weights that networks start from, before any stage runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from models.backbones.sources import backbone_fingerprint
from pipeline.core.errors import UserError, user_error
from pipeline.core.files import Json
from pipeline.data.sources.table import SOURCES
from pipeline.networks.given_weights import digest_of, statistics_beside
from pipeline.networks.origins import find_weights, is_published
from pipeline.params.schema import Params
from pipeline.preflight.network_checks import known_size
from pipeline.tasks.table import get_task
from pipeline.training.network_settings import TrainedNetwork

if TYPE_CHECKING:
    from torch import nn

OTHER_SIZE = 64
"""Height and width of images for which no network is built that is not told any."""


def check_given_weights(params: Params, *, earlier: Json) -> Json:
    """Check that given weights can be had and fit their networks; return the facts on which stages depend.

    Published ones are downloaded here, so that no stage has run for nothing where that fails.

    Args:
        earlier: what an earlier check found right; spares PyTorch and the files' content for it.

    Raises:
        UserError: weights are not there or do not fit; names the parameter.
    """
    teacher, student = params.train_teacher, params.distill_student
    prints = {
        "train_teacher": weights_fingerprint(teacher.weights, "train_teacher.weights"),
        "distill_student": weights_fingerprint(student.weights, "distill_student.weights"),
    }
    used: dict[str, TrainedNetwork] = {"distill_student": student}
    if student.needs_teacher:
        used["train_teacher"] = teacher
    fitting: dict[str, Json] = {}
    size = known_size(params)
    for section, settings in used.items():
        if settings.weights is not None:
            needs_map = section == "distill_student" and student.needs_feature_map
            fitting[section] = {
                "backbone": settings.backbone,
                "detector": settings.detector.model_dump(mode="json"),
                "own_code": backbone_fingerprint(settings.backbone),
                "weights": prints[section],
                "weights_entry": settings.weights_entry,
                "image_size": size and list(size),
                "feature_map": needs_map,
            }
            if earlier.get("fitting_weights", {}).get(section) != fitting[section]:
                _check_fit(params, section, settings, needs_map=needs_map)
    return {
        "teacher_weights": prints["train_teacher"],
        "teacher_classes": classes_fingerprint(teacher.classes, SOURCES[params.prepare_data.source].task),
        "student_weights": prints["distill_student"],
        "fitting_weights": fitting,
    }


def weights_fingerprint(weights: str | None, key: str) -> str | None:
    """Return a digest of the file of ``weights``, the words for published ones, or None where none are given.

    It is the SHA-256 of the file, and of the normalisation in the description beside it, where there is one.

    Raises:
        UserError: a file does not exist or cannot be read.
    """
    if weights is None or is_published(weights):
        return weights
    digest, statistics = digest_of(Path(weights), key), statistics_beside(Path(weights))
    return digest if statistics is None else hashlib.sha256(f"{digest} {statistics}".encode()).hexdigest()


def classes_fingerprint(classes: str | None, task: str) -> str | None:
    """Return the SHA-256 of the file of the teacher's ``classes``, or None where none is given; ``task`` is a name.

    Raises:
        UserError: the file does not exist, cannot be read, or is no list of classes.
    """
    if classes is None:
        return None
    digest = digest_of(Path(classes), "train_teacher.classes")
    get_task(task).given_classes(Path(classes), ())
    return digest


def _check_fit(params: Params, section: str, settings: TrainedNetwork, *, needs_map: bool) -> None:
    """Raise UserError where the weights of ``settings`` cannot be had or do not fit their backbone.

    What misfits where the weights depend on the size of the images, which is not known yet, is left to its stage.
    """
    from pipeline.networks.weights import load_weights
    from pipeline.preflight.assumed_networks import assumed_data, assumed_network

    assert settings.weights is not None
    key = f"{section}.weights"
    whole = assumed_data(params)[0].published_names(settings)
    given = find_weights(settings.backbone, settings.weights, entry=settings.weights_entry, key=key, whole=whole)
    weights = given.read()
    with user_error(f"{section}.backbone"):
        network = assumed_network(params, settings, with_feature_map=needs_map)
    try:
        load_weights(network, weights, new_head=True)
    except UserError as error:
        knows_size = known_size(params) is not None
        if knows_size or not _follows_size(network, params, settings, needs_map=needs_map):
            raise UserError(f"{key}: {error}") from error


def _follows_size(network: nn.Module, params: Params, settings: TrainedNetwork, *, needs_map: bool) -> bool:
    """Return whether weights of ``network``, that of ``settings``, are others for images of another size."""
    from pipeline.preflight.assumed_networks import assumed_network

    data = params.prepare_data.model_copy(update={"image_size": OTHER_SIZE})
    try:
        other = assumed_network(params.model_copy(update={"prepare_data": data}), settings, with_feature_map=needs_map)
    except ValueError:
        return True
    one, another = ({name: tensor.shape for name, tensor in each.state_dict().items()} for each in (network, other))
    return one != another
