"""Checks of the networks before any stage runs: that they exist, take the images, and have what the method needs.

PyTorch, which takes seconds, is imported only for networks that need it and that an earlier check has not found right.
"""

from collections.abc import Mapping

from models.backbones.sources import backbone_fingerprint, known_without_pytorch
from pipeline.core.errors import UserError, user_error
from pipeline.core.files import Json
from pipeline.core.printable import printable
from pipeline.data.sources.table import SOURCES
from pipeline.networks.programs import find_program
from pipeline.params.schema import Params
from pipeline.tasks.table import TASKS

TEACHER, STUDENT = "train_teacher.backbone", "distill_student.backbone"
PAIRS = {"feature_pairs", "pair_weights"}


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
        "image_size": size and list(size),
        "feature_map": student.backbone if student.needs_feature_map else None,
        "pairs": student.model_dump(mode="json", include=PAIRS) if student.transfers_features else None,
        "detectors": [one.detector.model_dump(mode="json") for one in (student, params.train_teacher)],
        "student_network": digests[STUDENT],
        "teacher_network": digests[TEACHER],
        "sizes": compared_sizes(params),
    }
    if facts != {key: (earlier or {}).get(key) for key in facts}:
        check_backbones(backbones)
        check_buildable(params, backbones)
        check_feature_pairs(params)
        if facts["sizes"] is not None:
            from pipeline.preflight.sizes import check_student_is_smaller

            check_student_is_smaller(params)
    return facts


def known_size(params: Params) -> tuple[int, int] | None:
    """Return height and width of the images, as far as they are known before any is read."""
    return params.prepare_data.known_size


def is_built_to_be_checked(params: Params, backbone: str) -> bool:
    """Return whether the network of ``backbone`` may not fit the images, and whether it does shows when it is built."""
    task = SOURCES[params.prepare_data.source].task
    return not known_without_pytorch(backbone) or (task in TASKS and TASKS[task].builds_to_check)


def _check_transfer(params: Params) -> None:
    """Raise UserError where features are to be transferred from a teacher that is a program."""
    student = params.distill_student
    if student.transfers_features:
        raise UserError(
            f"distill_student.transfer: got {student.transfer}, but the teacher "
            f"{printable(params.train_teacher.backbone)} shows none; set it to logits, "
            "or take a teacher of this pipeline's backbones"
        )


def compared_sizes(params: Params) -> Json | None:
    """Return what decides about the sizes of student and teacher.

    None where the student may be the larger one, or the teacher is a program, whose size shows when it is opened.
    """
    student = params.distill_student
    if student.allow_larger or not student.needs_teacher or params.train_teacher.is_program:
        return None
    keys = {"method", "backbone", "detector", "transfer", *PAIRS, "flow"}
    size = known_size(params)
    return {
        "student": student.model_dump(mode="json", include=keys),
        "teacher": params.train_teacher.model_dump(mode="json", include={"backbone", "detector"}),
        "source": params.prepare_data.source,
        "image_size": size and list(size),
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
        if is_built_to_be_checked(params, name) and (needs_map or is_own or size is not None):
            from models.factory import check_image_size
            from pipeline.preflight.assumed_networks import assumed_network

            with user_error(key):
                chosen = params.distill_student if key == STUDENT else params.train_teacher
                network = assumed_network(params, chosen, with_feature_map=needs_map)
                if size is not None:
                    check_image_size(network, size)


def check_feature_pairs(params: Params) -> None:
    """Raise UserError where student or teacher lacks a feature map that is to be paired, or their maps differ."""
    student = params.distill_student
    if not student.transfers_features:
        return
    from models.students import check_maps
    from pipeline.distillation.frozen_teacher import with_stages
    from pipeline.distillation.pairs import require_alike, with_pairs
    from pipeline.preflight.assumed_networks import assumed_data, assumed_network

    task, info = assumed_data(params)
    with user_error("distill_student.feature_pairs"):
        own = assumed_network(params, student, with_feature_map=True)
        theirs = assumed_network(params, params.train_teacher)
        pairs = with_pairs(student, info, task).pairs
        for position, network in enumerate((own, theirs)):
            name = (student, params.train_teacher)[position].backbone
            shown = with_stages(network)
            check_maps(f"backbone {name!r}", shown.map_widths, [p[position] for p in pairs], name=shown.map_name)
    if student.feature_pairs is None and known_size(params) is not None:
        require_alike(own, theirs, info)
