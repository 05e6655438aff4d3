"""Checks of the networks before any stage runs: that they exist, take the images, and have what the method needs.

PyTorch, which takes seconds, is imported only for networks that need it and that an earlier check has not found right.
"""

from collections.abc import Mapping, Sequence

from models.backbones.sources import backbone_fingerprint, known_without_pytorch
from pipeline.core.errors import UserError, user_error
from pipeline.core.files import Json
from pipeline.core.printable import printable
from pipeline.data.sources.table import SOURCES
from pipeline.networks.programs import find_program
from pipeline.params.schema import Params

TEACHER, STUDENT = "train_teacher.backbone", "distill_student.backbone"
CLASSES = 2
"""So many classes have the networks that are built to be checked; how many there are is not known yet."""


def check_networks(params: Params, *, earlier: Json | None = None) -> Json:
    """Check that the networks exist and have what the method needs; return what was found right, and of which files.

    Args:
        earlier: what an earlier check found right, from ``earlier_inputs``.

    Raises:
        UserError: a backbone or a stage is not there, cannot be built, or cannot take the images, or the student is
            larger than its teacher; names the parameter.
    """
    student, size = params.distill_student, known_size(params)
    backbones = {STUDENT: student.backbone, TEACHER: params.train_teacher.backbone}
    program = find_program(params.train_teacher.backbone)
    digests: dict[str, str | None] = {}
    if program is not None:
        del backbones[TEACHER]
        digests[TEACHER] = program.fingerprint()
        _check_transfer(params)
    for key, name in backbones.items():
        with user_error(key, advice=f"fmkt params --explain {key} lists all"):
            digests[key] = backbone_fingerprint(name)
    facts: Json = {
        "backbones": list(backbones.values()),
        "image_size": size,
        "feature_map": student.backbone if student.needs_feature_map else None,
        "feature_pairs": student.teacher_pairs,
        "student_network": digests[STUDENT],
        "teacher_network": digests[TEACHER],
        "sizes": compared_sizes(params),
    }
    if facts != {key: (earlier or {}).get(key) for key in facts}:
        check_backbones(backbones)
        check_buildable(params, backbones)
        check_feature_pairs(list(backbones.values()), student.teacher_pairs)
        if facts["sizes"] is not None:
            from pipeline.preflight.sizes import check_student_is_smaller

            check_student_is_smaller(params)
    return facts


def known_size(params: Params) -> int | None:
    """Return height and width of the images, as far as they are known before any is read."""
    settings = params.prepare_data
    return settings.image_size or SOURCES[settings.source].image_size


def _check_transfer(params: Params) -> None:
    """Raise UserError where features are to be transferred from a teacher that is a program."""
    if params.distill_student.teacher_pairs:
        raise UserError(
            f"distill_student.transfer: got features, but the teacher {printable(params.train_teacher.backbone)} shows "
            "none; set it to logits, or take a teacher of this pipeline's backbones"
        )


def compared_sizes(params: Params) -> Json | None:
    """Return what decides about the sizes of student and teacher.

    None where the student may be the larger one, or the teacher is a program, whose size shows when it is opened.
    """
    student = params.distill_student
    if student.allow_larger or not student.needs_teacher or params.train_teacher.is_program:
        return None
    keys = {"method", "backbone", "transfer", "feature_pairs", "flow"}
    return {
        "student": student.model_dump(mode="json", include=keys),
        "teacher": params.train_teacher.backbone,
        "source": params.prepare_data.source,
        "image_size": known_size(params),
    }


def check_backbones(backbones: Mapping[str, str]) -> None:
    """Raise UserError, naming its parameter, at the first of ``backbones`` (parameter to name) that does not exist."""
    for key, name in backbones.items():
        if not known_without_pytorch(name):
            from models.backbones.sources import find_backbone

            with user_error(key, advice=f"fmkt params --explain {key} lists all"):
                find_backbone(name)


def check_buildable(params: Params, backbones: Mapping[str, str]) -> None:
    """Raise UserError at a network that cannot be built, take the images, or has no feature map where it needs one."""
    size = known_size(params)
    for key, name in backbones.items():
        needs_map = params.distill_student.needs_feature_map and key == STUDENT
        is_own = backbone_fingerprint(name) is not None
        if not known_without_pytorch(name) and (needs_map or is_own or size is not None):
            from models.factory import check_image_size
            from pipeline.preflight.assumed_networks import assumed_network

            with user_error(key):
                chosen = params.distill_student if key == STUDENT else params.train_teacher
                network = assumed_network(params, chosen, with_feature_map=needs_map)
                if size is not None:
                    check_image_size(network, (size, size))


def check_feature_pairs(backbones: Sequence[str], pairs: Sequence[Sequence[int]]) -> None:
    """Raise UserError where student or teacher (``backbones``, in this order) lacks a stage of ``pairs``."""
    if not pairs:
        return
    from models.factory import build_parts
    from models.students import check_stages

    with user_error("distill_student.feature_pairs"):
        for position, backbone in enumerate(backbones):
            check_stages(backbone, build_parts(backbone, CLASSES).backbone, [pair[position] for pair in pairs])
