"""A package as its consumer finds it: read, checked against its sums, without PyTorch."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline.core.errors import UserError
from pipeline.core.files import Json, read_json, sha256
from pipeline.tasks.classification.metrics import Labels, Logits
from pipeline.tasks.classification.parity import Gate

Value = TypeVar("Value")

SUMS = "SHA256SUMS"
SAMPLES = "samples.safetensors"
MANIFEST = "manifest.json"
LABELS = "labels.json"


class Package(NamedTuple):
    """What a package says of itself."""

    folder: Path
    name: str
    labels: tuple[str, ...]
    image_size: tuple[int, int]
    """Height and width of the input, in pixels."""
    input_dtype: str
    """``float32``: pixels in [0, 1]; ``uint8``: pixels as they are."""
    files: dict[str, Path]
    """From each precision to its ONNX file; ``fp32`` is the first."""
    manifest: Json


class Samples(NamedTuple):
    """Test images with what the trained network answers."""

    images: NDArray[np.uint8]
    """RGB, (N, 3, H, W)."""
    labels: Labels
    """(N,)."""
    logits: Logits
    """Of the trained network in float32, (N, num_classes)."""


def read_package(folder: Path) -> Package:
    """Return what the package in ``folder`` says of itself; no file is opened but those that describe it.

    Raises:
        UserError: ``folder`` is no package, or its description is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give that of a package (dvc repro writes artifacts/package)")
    manifest, labels = (_described(folder / name) for name in (MANIFEST, LABELS))
    try:
        height, width = manifest["image_size"]
        files = {entry["precision"]: folder / Path(file).name for file, entry in manifest["files"].items()}
        return Package(
            folder=folder,
            name=manifest["name"],
            labels=tuple(labels["labels"]),
            image_size=(height, width),
            input_dtype=manifest["input"],
            files=fp32_first(files),
            manifest=manifest,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / MANIFEST}: not as a package has it ({error!r}); fetch the package again") from error


def fp32_first(by_precision: Mapping[str, Value]) -> dict[str, Value]:
    """Return ``by_precision`` in the order in which precisions are shown."""
    return dict(sorted(by_precision.items(), key=lambda item: (item[0] != "fp32", item[0])))


def _described(path: Path) -> Json:
    if not path.is_file():
        raise UserError(f"{path}: no such file, so {path.parent} is no package; dvc repro writes artifacts/package")
    return read_json(path)


def read_gate(manifest: Json, precision: str, *, gpu_kernels: bool) -> Gate:
    """Return how far a network of ``precision`` may be from the trained one, as ``manifest`` says.

    ``other_kernels``: it does not run on the CPU, where its file was judged.

    Raises:
        UserError: ``manifest`` does not say it.
    """
    try:
        gate = Gate(**manifest["gates"][precision])
    except (KeyError, TypeError) as error:
        raise UserError(f"{MANIFEST}: has no gates of {precision} ({error!r}); export or fetch it again") from error
    return gate.for_gpu_kernels() if gpu_kernels and precision == "fp32" else gate


def choose_file(package: Package, precision: str) -> Path:
    """Return the ONNX file of ``precision``.

    Raises:
        UserError: the package has none; lists those that it has.
    """
    if precision not in package.files:
        known = ", ".join(sorted(package.files))
        raise UserError(f"{package.folder}: has no file of precision {precision!r}; it has {known}")
    return package.files[precision]


def read_sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 that ``SHA256SUMS`` gives each file of the package in ``folder``.

    Raises:
        UserError: the list is missing or damaged.
    """
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, name in (line.split("  ", maxsplit=1) for line in lines)}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); fetch the package again") from error
    except ValueError as error:
        raise UserError(f"{path}: not a list of SHA-256 sums; fetch the package again") from error


def damaged_files(folder: Path, names: Iterable[str], sums: dict[str, str]) -> list[str]:
    """Return a line on each of ``names`` that is missing, not listed in ``sums``, or not as listed there."""
    found = []
    for name in names:
        path = folder / name
        if not path.is_file():
            found.append(f"{path}: missing")
        elif name not in sums:
            found.append(f"{path}: not listed in {SUMS}")
        elif sha256(path) != sums[name]:
            found.append(f"{path}: differs from its SHA-256 in {SUMS} (damaged or tampered with)")
    return found


def check_files(package: Package, names: Iterable[str]) -> None:
    """Compare the files ``names`` of ``package``, relative to its folder, with their sums.

    Raises:
        UserError: one is missing, damaged or tampered with; names it.
    """
    faults = damaged_files(package.folder, names, read_sums(package.folder))
    if faults:
        raise UserError("\n".join(f"{fault}; fetch the package again" for fault in faults))


def read_samples(folder: Path) -> Samples:
    """Return the sample images of the package in ``folder``.

    Raises:
        UserError: their file is missing or damaged.
    """
    path = folder / SAMPLES
    try:
        tensors = load_file(path)
        return Samples(tensors["images"], tensors["labels"], tensors["logits"])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: missing or damaged ({error}); fetch the package again") from error
