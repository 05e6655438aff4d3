"""Checks of the parameters against this host and the user's files, before any stage runs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from models.backbones.sources import known_without_pytorch
from models.core.table import choose
from pipeline.core.errors import UserError, readable_file, user_error
from pipeline.core.files import Json, read_json, sha256
from pipeline.core.printable import printable
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES
from pipeline.networks.programs import find_program
from pipeline.networks.torchvision_weights import is_published
from pipeline.params.schema import Params
from pipeline.tasks.table import TASKS


def check_params(params: Params, *, earlier: Json | None = None) -> Json:
    """Check what the schema cannot know, and return the facts about the user's files on which stages depend.

    Args:
        earlier: what an earlier check found right, from ``earlier_inputs``; spares importing PyTorch for it again.

    Raises:
        UserError: a backbone, stage, file or folder is not there; names the parameter.
    """
    return check_networks(params, earlier=earlier) | {
        "data": data_fingerprint(params.prepare_data),
        "teacher": "needed" if params.distill_student.needs_teacher else "not needed",
        "teacher_network": network_fingerprint(params.train_teacher.backbone),
        "teacher_weights": weights_fingerprint(params.train_teacher.weights),
    }


def check_networks(params: Params, *, earlier: Json | None = None) -> Json:
    """Check that the networks exist and have what the method needs; return what was found right.

    Args:
        earlier: as for ``check_params``.

    Raises:
        UserError: a backbone or a stage is not there; names the parameter.
    """
    known, student, teacher = earlier or {}, params.distill_student, params.train_teacher
    backbones = {"distill_student.backbone": student.backbone}
    if find_program(teacher.backbone) is None:
        backbones["train_teacher.backbone"] = teacher.backbone
    elif student.teacher_pairs:
        raise UserError(
            f"distill_student.transfer: got features, but the teacher {printable(teacher.backbone)} shows none; "
            "set it to logits, or take a teacher of this pipeline's backbones"
        )
    check_backbones(backbones, known=known.get("backbones", []))
    if student.needs_feature_map:
        check_feature_map(student.backbone, earlier=known)
    check_feature_pairs(list(backbones.values()), student.teacher_pairs, earlier=known)
    return {
        "backbones": list(backbones.values()),
        "feature_map": student.backbone if student.needs_feature_map else None,
        "feature_pairs": student.teacher_pairs,
    }


def data_fingerprint(settings: PrepareData) -> str:
    """Return a text that changes when the user's images change; the source's name where it comes with the pipeline.

    Raises:
        UserError: the source is of a task that there is not; the root is not what the source needs, or cannot be read.
    """
    with user_error("prepare_data.source"):
        choose(TASKS, SOURCES[settings.source].task, kind="task")
    fingerprint = SOURCES[settings.source].fingerprint
    if fingerprint is None or settings.root is None:
        return settings.source
    return fingerprint(Path(settings.root), settings.download)


def network_fingerprint(backbone: str) -> str | None:
    """Return a digest of the user's files that ``backbone`` names; None where it names none.

    Raises:
        UserError: a file is not there, or is not what it should be.
    """
    program = find_program(backbone)
    return None if program is None else program.fingerprint()


def weights_fingerprint(weights: str | None) -> str | None:
    """Return the SHA-256 of the file of weights, the name of torchvision's, or None where none are given.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    if weights is None or is_published(weights):
        return weights
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"train_teacher.weights: no such file: {path}")
    with readable_file(path):
        return sha256(path)


def check_backbones(backbones: Mapping[str, str], *, known: Iterable[str]) -> None:
    """Raise UserError, naming its parameter, at the first of ``backbones`` (parameter to name) that does not exist.

    PyTorch, which takes seconds, is imported only for names that its sources need it for, and that are not ``known``.
    """
    for key, name in backbones.items():
        if not known_without_pytorch(name) and name not in known:
            from models.backbones.sources import backbone_source

            with user_error(key, advice=f"fmkt params --explain {key} lists all"):
                backbone_source(name)


def check_feature_map(backbone: str, *, earlier: Json) -> None:
    """Raise UserError where the student's ``backbone`` pools no feature map.

    PyTorch is imported only for backbones that need it and that the ``earlier`` inputs do not name as having one.
    """
    if not known_without_pytorch(backbone) and backbone != earlier.get("feature_map"):
        from models.factory import build_transfer_parts

        with user_error("distill_student.backbone"):
            build_transfer_parts(backbone, 2)


def check_feature_pairs(backbones: Sequence[str], pairs: Sequence[Sequence[int]], *, earlier: Json) -> None:
    """Raise UserError where student or teacher (``backbones``, in this order) lacks a stage of ``pairs``.

    PyTorch is imported only where the ``earlier`` inputs, which the last probe found right, were others.
    """
    if not pairs or (earlier.get("backbones"), earlier.get("feature_pairs")) == (backbones, pairs):
        return
    from models.factory import build_parts
    from models.students import check_stages

    with user_error("distill_student.feature_pairs"):
        for position, backbone in enumerate(backbones):
            check_stages(backbone, build_parts(backbone, 2).backbone, [pair[position] for pair in pairs])


def earlier_inputs(facts: Path) -> Json:
    """Return the inputs that the last probe found right, from its file ``facts``; none where that is no help."""
    try:
        inputs = read_json(facts)["inputs"]
    except (KeyError, UserError):
        return {}
    return inputs if isinstance(inputs, dict) else {}


def check_device(device: str, *, num_gpus: int) -> None:
    """Raise UserError where ``device`` is a CUDA device that a host with ``num_gpus`` does not have."""
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= num_gpus:
        raise UserError(f"base.device: got {device!r}, but this host has {num_gpus} NVIDIA GPU(s); use auto or cpu")


def check_provider(provider: str) -> None:
    """Raise UserError where what shall compute the ONNX files is not available here.

    ONNX Runtime is imported only for providers that need more than a CPU.
    """
    if provider != "cpu":
        from pipeline.runtimes.onnx import require_provider

        require_provider(provider, "evaluate.provider")
