"""Facts about the user's files from which DVC knows when they changed: their paths lie outside the repository."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from models.backbones.catalog import SMALL_IMAGE_BACKBONES
from pipeline.core.errors import UserError, user_error, readable_file
from pipeline.core.files import Json, read_json, sha256
from pipeline.data.sources.archive import ARCHIVE_SUFFIXES
from pipeline.data.sources.listing import files_below
from pipeline.networks.torchvision_weights import is_published


def data_fingerprint(source: str, root: Path | None, *, download: bool = False) -> str:
    """Return a text that changes when images are added, removed, renamed or replaced.

    An archive is hashed whole; of a directory the names, sizes and times of its files, which is quick and may find a
    change where there is none: then the same images are packed once more. Sources whose files torchvision itself
    verifies are known by their name.

    Raises:
        UserError: ``root`` does not exist, is no archive of a known kind, or cannot be read.
    """
    if root is None:
        return source
    if source != "imagefolder":
        if not download and not root.is_dir():
            raise UserError(
                f"prepare_data.root: no such directory: {root}; give that of {source}, or set download to true"
            )
        return source
    if root.is_file() and not root.name.endswith(ARCHIVE_SUFFIXES):
        raise UserError(
            f"prepare_data.root: neither a directory nor an archive ({', '.join(ARCHIVE_SUFFIXES)}): {root}"
        )
    if root.is_file():
        with readable_file(root):
            return f"archive {sha256(root)}"
    if not root.is_dir():
        raise UserError(f"prepare_data.root: no such directory or archive: {root}")
    digest = hashlib.sha256()
    for path in files_below(root):
        with readable_file(path):
            facts = path.stat()
        digest.update(os.fsencode(path.relative_to(root)) + f"\0{facts.st_size} {facts.st_mtime_ns}\0".encode())
    return f"directory {digest.hexdigest()}"


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
    """Raise UserError, blamed on its parameter, at the first of ``backbones`` (parameter to name) that does not exist.

    PyTorch, which takes seconds, is imported only for names that are neither for small images nor in ``known``.
    """
    for key, name in backbones.items():
        if name not in SMALL_IMAGE_BACKBONES and name not in known:
            from models.factory import check_backbone  # noqa: PLC0415

            with user_error(key):
                check_backbone(name)


def check_feature_map(backbone: str, *, earlier: Json) -> None:
    """Raise UserError where the student's ``backbone`` pools no feature map.

    PyTorch is imported only for backbones of torchvision that the ``earlier`` inputs do not name as having one.
    """
    if backbone not in SMALL_IMAGE_BACKBONES and backbone != earlier.get("feature_map"):
        from models.factory import build_transfer_parts  # noqa: PLC0415

        with user_error("distill_student.backbone"):
            build_transfer_parts(backbone, 2)


def check_feature_pairs(backbones: Sequence[str], pairs: Sequence[Sequence[int]], *, earlier: Json) -> None:
    """Raise UserError where student or teacher (``backbones``, in this order) lacks a stage of ``pairs``.

    PyTorch is imported only where the ``earlier`` inputs, which the last probe found right, were others.
    """
    if not pairs or (earlier.get("backbones"), earlier.get("feature_pairs")) == (backbones, pairs):
        return
    from models.factory import build_parts  # noqa: PLC0415
    from models.students import check_stages  # noqa: PLC0415

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
