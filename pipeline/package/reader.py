"""A package as its consumer finds it: opened once, compared with its sums, without PyTorch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.core.arrays import is_finite
from pipeline.core.errors import UserError
from pipeline.core.files import Json
from pipeline.core.plain import read_plain, shown
from pipeline.core.signature import Signature
from pipeline.export.folder import MANIFEST, SAMPLES, fp32_first, read_gate, read_samples
from pipeline.export.precisions import FP32
from pipeline.package.schema import (
    CLASS_NAMES_FILE,
    PREPROCESSING_FILE,
    SCHEMA,
    ClassTable,
    PackageManifest,
    as_described,
    read_described,
)
from pipeline.package.sums import AGAIN, damaged_files, place_of, read_sums, say_again
from pipeline.runtimes.engine_file import read_signature
from pipeline.tasks.base import Classes, Task
from pipeline.tasks.gate import PlacedGate
from pipeline.tasks.table import exported_task
from pipeline.tasks.verification import Reference

NEEDED = (MANIFEST, CLASS_NAMES_FILE)
"""JSON files that every package has; the others are read where it has them."""
DTYPES = {"float32", "uint8", "int32"}
"""The types of inputs and outputs that every runtime and the server know."""
REMEDY = "this is not what was trained: take another precision or provider, or fetch the package again"


@dataclass(frozen=True, eq=False)
class Package:
    """What a package says of itself, as it was when it was opened."""

    folder: Path
    name: str
    task: Task
    classes: Classes
    signature: Signature
    files: Mapping[str, Path]
    """From each precision to its ONNX file, fp32 first."""
    manifest: Json
    sums: Mapping[str, str]
    """From each file's name, relative to the folder, to its SHA-256."""

    @classmethod
    def open(cls, folder: Path, sums: Mapping[str, str] | None = None) -> "Package":
        """Return the package in ``folder``; the files that describe it are read, and must be as their sums say.

        Args:
            sums: what its list says, where that has been read; None: it is read.

        Raises:
            UserError: ``folder`` is no package, or its description is damaged; then a line names each damaged file.
        """
        require_package(folder)
        sums = read_sums(folder) if sums is None else sums
        described = {name: read_described(folder, name, sums) for name in SCHEMA if name in {*NEEDED, *sums}}
        classes = read_plain(ClassTable, described[CLASS_NAMES_FILE]).classes()
        with as_described(folder / MANIFEST):
            package = _described(folder, described[MANIFEST], classes, sums)
        _require_preprocessing(package, described.get(PREPROCESSING_FILE, {}))
        return package

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of what can be seen."""
        return self.classes.names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the input, in pixels."""
        _, height, width = self.signature.input.shape
        return height, width

    @property
    def input_dtype(self) -> str:
        """``float32``: pixels in [0, 1]; ``uint8``: pixels as they are."""
        return self.signature.input.dtype

    @cached_property
    def samples(self) -> Reference:
        """Test images with what is right about them and what the trained network answers.

        Raises:
            UserError: their file is missing, damaged or tampered with.
        """
        (path,) = self.verified([SAMPLES])
        samples = read_samples(self.folder, self.manifest)
        arrays = {"images": samples.pixels, **samples.outputs}
        found = {name: (str(array.dtype), *array.shape) for name, array in arrays.items()}
        signature, count = self.signature, len(samples)
        expected = {"images": ("uint8", count, *signature.input.shape)}
        expected |= {output.name: (output.dtype, count, *output.shape) for output in signature.outputs}
        if not count or found != expected:
            raise UserError(f"{path}: holds {shown(found)}, expected at least one image, and {expected}; {AGAIN}")
        if not all(map(is_finite, arrays.values())):
            raise UserError(f"{path}: its numbers are not all finite; {AGAIN}")
        try:
            self.task.require_answers(samples.outputs, self.class_names)
            if samples.truth:
                self.task.require_truth(samples.truth, count, self.class_names)
        except ValueError as error:
            raise UserError(f"{path}: {error}; {AGAIN}") from error
        return samples

    @property
    def warnings(self) -> list[str]:
        """What the stages warned of; packages of earlier versions do not say it."""
        return list(self.manifest.get("warnings", []))

    @property
    def left_out(self) -> Mapping[str, str]:
        """From each precision that did not pass its gate, and is not here, to the reason."""
        return dict(self.manifest.get("left_out", {}))

    def file(self, precision: str) -> Path:
        """Return the ONNX file of ``precision``.

        Raises:
            UserError: the package has none; lists those that it has.
        """
        if precision not in self.files:
            known = ", ".join(sorted(self.files))
            why = f" ({precision} was left out: {self.left_out[precision]})" if precision in self.left_out else ""
            raise UserError(f"{self.folder}: has no file of precision {precision!r}; it has {known}{why}")
        return self.files[precision]

    def verified(self, names: Iterable[str]) -> list[Path]:
        """Return the paths of the files ``names``, relative to the folder, which are as their sums say.

        Raises:
            UserError: files are missing, damaged or tampered with; a line names each.
        """
        given = list(names)
        faults = self.damaged(given)
        if faults:
            raise UserError("\n".join(say_again(faults)))
        return [self.folder / name for name in given]

    def damaged(self, names: Iterable[str]) -> list[str]:
        """Return a line on each of the files ``names`` that is missing, not listed, or not as its sum says."""
        return damaged_files(self.folder, names, self.sums)

    def gate(self, precision: str, *, gpu_kernels: bool) -> PlacedGate:
        """Return how far a network of ``precision`` may be from the trained one.

        Args:
            gpu_kernels: it does not run on the CPU, where its file was verified.

        Raises:
            UserError: the manifest does not say it.
        """
        gate = read_gate(self.manifest, precision, gpu_kernels=gpu_kernels)
        return PlacedGate(gate, f"{MANIFEST}: gates.{precision}", REMEDY)


def require_package(folder: Path) -> None:
    """Raise UserError where ``folder`` holds no package."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give that of a package (dvc repro writes artifacts/package)")
    if place_of(folder, MANIFEST) is None:
        raise UserError(f"{folder / MANIFEST}: no such file, so {folder} is no package; {AGAIN}")


def _require_preprocessing(package: Package, content: Json) -> None:
    """Raise UserError where preprocessing.json says of images what this version does not do for their task."""
    needed = package.task.preprocessing()
    if not needed and not content:
        return
    path = package.folder / PREPROCESSING_FILE
    for key, value in {**needed, "image_size": list(package.image_size)}.items():
        if content.get(key) != value:
            raise UserError(f"{path}: {key} is {shown(content.get(key))}, expected {value!r}; {AGAIN}")


def _described(folder: Path, manifest: Json, classes: Classes, sums: Mapping[str, str]) -> Package:
    """Return the package that ``manifest`` describes; raises ValueError where it makes no sense."""
    given = read_plain(PackageManifest, manifest)
    task = exported_task(manifest)
    signature = _signature(given, task, classes.names)
    task.require_signature(signature, classes.names)
    files = {entry.precision: folder / name for name, entry in given.files.items()}
    if FP32 not in files:
        raise ValueError(f"it has files of the precisions {list(files)}; {FP32} is always among them")
    for precision in files:
        read_gate(manifest, precision, gpu_kernels=False)
    return Package(
        folder=folder,
        name=given.name,
        task=task,
        classes=classes,
        signature=signature,
        files=fp32_first(files),
        manifest=manifest,
        sums=sums,
    )


def _signature(manifest: PackageManifest, task: Task, class_names: tuple[str, ...]) -> Signature:
    """Return what the network takes and returns; packages of version 0.1 do not say it, it follows from their task."""
    if manifest.signature is not None:
        found = read_signature(manifest.signature)
    else:
        height, width = manifest.image_size
        found = task.signature(image_size=(height, width), input_dtype=manifest.input, class_names=class_names)
    unknown = {spec.dtype for spec in (found.input, *found.outputs)} - DTYPES
    if unknown or len(found.input.shape) != 3:
        raise ValueError(f"its signature has unknown types or an input that is no image: {found}")
    said = {"image_size": manifest.image_size, "input": manifest.input}
    for key, value in {"image_size": list(found.input.shape[1:]), "input": found.input.dtype}.items():
        if said[key] != value:
            raise ValueError(f"{key} is {shown(said[key])}, and its signature says {value!r}")
    return found
