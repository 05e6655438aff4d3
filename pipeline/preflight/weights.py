"""Checks of the weights that networks start from, before any stage runs."""

from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.files import Json
from pipeline.networks.given_weights import digest_of
from pipeline.networks.origins import find_weights, is_published
from pipeline.params.schema import Params
from pipeline.tasks.classification.class_names import read_classes
from pipeline.training.network_settings import TrainedNetwork


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
    fitting = {
        section: [settings.backbone, prints[section], settings.weights_entry]
        for section, settings in used.items()
        if settings.weights is not None
    }
    known = earlier.get("fitting_weights", {})
    for section, fit in fitting.items():
        if known.get(section) != fit:
            _check_fit(used[section], section)
    return {
        "teacher_weights": prints["train_teacher"],
        "teacher_classes": classes_fingerprint(teacher.classes),
        "student_weights": prints["distill_student"],
        "fitting_weights": fitting,
    }


def weights_fingerprint(weights: str | None, key: str) -> str | None:
    """Return the SHA-256 of the file of ``weights``, the words for published ones, or None where none are given.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    if weights is None or is_published(weights):
        return weights
    return digest_of(Path(weights), key)


def classes_fingerprint(classes: str | None) -> str | None:
    """Return the SHA-256 of the file of the teacher's ``classes``, or None where none is given.

    Raises:
        UserError: the file does not exist, cannot be read, or is no list of classes.
    """
    if classes is None:
        return None
    digest = digest_of(Path(classes), "train_teacher.classes")
    read_classes(Path(classes))
    return digest


def _check_fit(settings: TrainedNetwork, section: str) -> None:
    """Raise UserError where the weights of ``settings`` cannot be had or do not fit their backbone."""
    from models.factory import build_classifier
    from pipeline.networks.weights import load_weights

    assert settings.weights is not None
    key = f"{section}.weights"
    given = find_weights(settings.backbone, settings.weights, entry=settings.weights_entry, key=key)
    network = build_classifier(backbone=settings.backbone, num_classes=2, mean=[0.0] * 3, std=[1.0] * 3)
    weights = given.read()
    try:
        load_weights(network, weights, new_head=True)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
