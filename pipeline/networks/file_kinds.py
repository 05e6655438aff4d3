"""What a file given as weights is: by its first bytes, whatever it is called."""

import enum
import re
import tarfile
import zipfile
from pathlib import Path

from pipeline.core.damage import DAMAGED_ZIP
from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable

HEAD = 512
"""Bytes at the start of a file that tell what it is."""
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of ``torch.save`` before PyTorch 1.6, or with its old serialisation, begin: a number, pickled."""
MAX_UNPACKED = 20
"""Times its own size that an archive may unpack to; ``torch.save`` does not compress at all."""
SMALL = 2**24
"""Bytes to which any archive may unpack."""
ADVICE = "give a .safetensors file or a state dict (torch.save of network.state_dict())"


class FileKind(enum.Enum):
    """A format in which weights are read."""

    SAFETENSORS = "safetensors"
    TORCH = "PyTorch, as torch.save writes it"
    LEGACY_TORCH = "PyTorch, as torch.save wrote it before version 1.6"
    TORCHSCRIPT = "TorchScript archive"


_OTHERS = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with git lfs pull"),
    (rb"\s*<", "a web page or XML, torch.save has not written this file; download it again"),
    (rb"\x89HDF\r\n\x1a\n", "HDF5, as Keras and TensorFlow write it"),
    (rb"GGUF", "GGUF, of llama.cpp"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb".{4}TFL3", "TensorFlow Lite"),
    (rb"\x1f\x8b", "gzip-compressed; unpack it first (gunzip, or tar xzf)"),
    (rb"BZh\d1AY", "bzip2-compressed; unpack it first (bunzip2, or tar xjf)"),
    (rb"\xfd7zXZ\x00", "xz-compressed; unpack it first (unxz, or tar xJf)"),
    (rb"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it first (unzstd)"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (rb"Rar!", "a RAR archive; unpack it first"),
    (rb".{257}ustar", "a tar archive; unpack it first (tar xf)"),
    (rb"[\x80-\x8f\xde][\xa1-\xbf](params|model|step|batch_stats|opt_state)", "msgpack, as Flax writes it"),
    (rb"\x08[\x01-\x20]\x12.{1,40}?(pytorch|onnx|tf2onnx|keras|skl|paddle)", "ONNX"),
    (rb"\x08[\x01-\x20]([\x12\x3a]|\x42)", "a protocol buffer, such as ONNX"),
    (rb"\x80[\x00-\x05]", "a pickle, but torch.save has not written this file"),
)
"""What else is given by mistake: a pattern of the first bytes, and what it is."""


def file_kind(path: Path) -> FileKind:
    """Return the format of the weights in the file ``path``.

    Raises:
        UserError: there is no such file, it cannot be read, or holds no weights in a format that is read; says what it
            is.
    """
    if not path.exists():
        raise unreadable(path, "no such file")
    if path.is_dir():
        raise unreadable(path, _folder(path))
    if not path.is_file():
        raise unreadable(path, "a pipe or a device")
    with readable_file(path), path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(LEGACY):
        return FileKind.LEGACY_TORCH
    if re.match(rb".{8}\s*\{", head, re.DOTALL) and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return FileKind.SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    raise unreadable(path, _other(path, head))


def _zip_kind(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except DAMAGED_ZIP as error:
        raise unreadable(path, f"a zip archive that is damaged or cut off: {printable(error)}") from error
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(SMALL, MAX_UNPACKED * path.stat().st_size):
        raise unreadable(path, f"a compressed archive that would unpack to {unpacked / 2**30:.1f} GiB")
    inner = {name.partition("/")[2] if "/" in name else name for name in (member.filename for member in members)}
    if "data.pkl" in inner:
        return FileKind.TORCHSCRIPT if "constants.pkl" in inner else FileKind.TORCH
    raise unreadable(path, _zip_content([member.filename for member in members], inner))


def _zip_content(names: list[str], inner: set[str]) -> str:
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz)"
    if {"metadata.json", "config.json"} <= set(names):
        return "a Keras model (.keras)"
    if any(name.endswith(("archive_format", "archive_version")) for name in inner) and "models" in str(inner):
        return "an exported program (torch.export); it runs as it is: give it as the teacher's backbone, exported:FILE"
    weights = [name for name in names if name.endswith((".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar"))]
    holds = f", which holds {printable(weights[0])}" if weights else ""
    return f"a zip archive of other files{holds}; unpack it first (unzip)"


def _other(path: Path, head: bytes) -> str:
    """Return what the file ``path``, which begins with ``head``, is instead of weights."""
    if not head:
        return "the file is empty"
    if head.lstrip()[:1] == b"{":
        shards = b'"weight_map"' in path.read_bytes()[: 2**24]
        return "the index of a network in several files; join them in one first" if shards else "JSON"
    for pattern, what in _OTHERS:
        if re.match(pattern, head, re.DOTALL):
            return what if "archive" not in what or not tarfile.is_tarfile(path) else _tar_content(path, what)
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return "safetensors that are damaged or cut off"
    return "torch.save has not written this file"


def _tar_content(path: Path, what: str) -> str:
    with tarfile.open(path) as archive:
        first = archive.next()
    return f"{what}; it holds {printable(first.name)}" if first else what


def _folder(path: Path) -> str:
    suffixes = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".tar")
    found = sorted(item.name for item in path.iterdir() if item.name.endswith(suffixes))
    if not found:
        return "a folder without weights"
    return f"a folder; give one of its files: {', '.join(map(printable, found[:5]))}"


def unreadable(path: Path, reason: str) -> UserError:
    """Return the error that ``path`` holds no weights for the ``reason``, a few words."""
    return UserError(f"{printable(path)}: no readable weights ({reason}); {ADVICE}")
