"""A model repository for NVIDIA Triton, put together from a package: its configurations beside links to its files.

The package holds every ONNX file once; a repository wants a copy for each model. It is put together where Triton runs,
out of what can run there, so that Triton in its default mode, which loads all models or ends, starts with it.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import UserError
from pipeline.core.files import Json, replaced_folder
from pipeline.export.precisions import FP32
from pipeline.package.engine_register import engine_fault, listed_engines
from pipeline.package.reader import Package
from pipeline.package.verify import ENGINES
from pipeline.runtimes.engine_file import read_sidecar

TRITON = "triton"
"""Folder of the configurations in a package."""
CONFIG = "config.pbtxt"
CLASS_NAMES_TEXT = "labels.txt"
ONNX_FILE = "model.onnx"
PLAN_FILE = "model.plan"
VERSION = "1"
OURS = {CONFIG, CLASS_NAMES_TEXT, f"{VERSION}/{ONNX_FILE}", f"{VERSION}/{PLAN_FILE}"}
"""The files of a model."""
GPU_DEVICES = ("nvidia[0-9]*", "nvhost-gpu", "nvgpu", "dxg")
"""In /dev: of a server's or a desktop's GPU, of Jetson's in two generations, of WSL's."""
DEV = Path("/dev")


class Variant(NamedTuple):
    """A model of the repository."""

    suffix: str
    """Behind the package's name."""
    backend: str
    file: str
    precisions: tuple[str, ...]
    """The first of these that the package has is the model's file; with none of them the model is left out."""
    on_gpu: bool


VARIANTS = (
    Variant("", "onnxruntime", ONNX_FILE, (FP32,), on_gpu=False),
    Variant("-int8-cpu", "onnxruntime", ONNX_FILE, ("int8-cpu",), on_gpu=False),
    Variant("-gpu", "onnxruntime", ONNX_FILE, ("fp16", FP32), on_gpu=True),
    Variant("-tensorrt", "tensorrt", PLAN_FILE, (FP32,), on_gpu=True),
)


class Model(NamedTuple):
    """A model of a repository as it was put together."""

    name: str
    source: Path
    """The package's file that it is."""
    linked: bool
    """Whether it is that very file under another name; else a copy."""


class Repository(NamedTuple):
    """What was put together."""

    models: list[Model]
    left_out: dict[str, str]
    """From each model that is not in it to the reason."""


def variants_of(package: Package) -> list[tuple[Variant, Path]]:
    """Return what the package's files allow, each with the ONNX file that it is, or is built from."""
    found = []
    for variant in VARIANTS:
        precision = next((name for name in variant.precisions if name in package.files), None)
        if precision is not None:
            found.append((variant, package.file(precision)))
    return found


def has_gpu() -> bool:
    """Return whether this host shows an NVIDIA GPU."""
    return any(next(DEV.glob(pattern), None) is not None for pattern in GPU_DEVICES)


def write_triton_repository(
    out: Path, package: Package, *, gpu: bool, engine: str | None = None, copy: bool = False
) -> Repository:
    """Put the repository together in ``out``, which is replaced whole where it is one of this package already.

    Args:
        gpu: take the models that run on a GPU.
        engine: the precision of the engine that is taken, where several were built.
        copy: copy files even where they can be linked.

    Raises:
        UserError: the package is damaged, ``out`` holds something else, or an engine does not suit the configuration.
    """
    target = out.resolve()
    models, left_out = _chosen(package, gpu=gpu, engine=engine)
    _require_place(target, package)
    written = []
    with replaced_folder(target) as folder:
        for name, (file, source) in models.items():
            (folder / name / VERSION).mkdir(parents=True)
            for text in _texts(package, name):
                shutil.copyfile(text, folder / name / text.name)
            linked = _link_or_copy(source, folder / name / VERSION / file, copy=copy)
            written.append(Model(name, source, linked))
    return Repository(written, left_out)


def _chosen(package: Package, *, gpu: bool, engine: str | None) -> tuple[dict[str, tuple[str, Path]], dict[str, str]]:
    """Return the models, by name the file that Triton looks for and what it is here; and why others are left out."""
    models: dict[str, tuple[str, Path]] = {}
    left_out: dict[str, str] = {}
    for variant, onnx in variants_of(package):
        name = f"{package.name}{variant.suffix}"
        if variant.on_gpu and not gpu:
            left_out[name] = "no NVIDIA GPU is to be seen on this host; --gpu takes it all the same"
            continue
        configs = _texts(package, name)
        if variant.file == ONNX_FILE:
            (source,) = package.verified([onnx.name])
        elif (plan := _engine(package, engine, configs[0])) is None:
            left_out[name] = "no engine lies in the package; build-engine builds it on the device that runs it"
            continue
        else:
            source = plan
        models[name] = variant.file, source
    return models, left_out


def _texts(package: Package, name: str) -> list[Path]:
    """Return configuration and class names of the model ``name``, which are as their sums say.

    Raises:
        UserError: they are not, or the package has none.
    """
    names = f"{TRITON}/{name}/{CLASS_NAMES_TEXT}"
    return package.verified([f"{TRITON}/{name}/{CONFIG}", *([names] if names in package.sums else [])])


def _require_place(target: Path, package: Package) -> None:
    """Raise UserError where a repository of ``package`` must not take the place of ``target``."""
    home = package.folder.resolve()
    if target == home or home in target.parents or target in home.parents:
        raise UserError(f"--out: {target} lies in the package, or the package in it; give a folder of its own")
    if target.exists() and not target.is_dir():
        raise UserError(f"--out: {target} is no folder; give a new one")
    names = {f"{package.name}{variant.suffix}" for variant in VARIANTS}
    for path in sorted(target.rglob("*")) if target.is_dir() else ():
        name, _, file = path.relative_to(target).as_posix().partition("/")
        if name not in names or (path.is_file() and file not in OURS):
            raise UserError(
                f"--out: {target} holds {path.relative_to(target)}, which is not of a repository of {package.name}; "
                "give a new folder (Triton takes several: --model-repository may be repeated)"
            )


def built_engines(package: Package) -> dict[str, tuple[Path, Json]]:
    """Return the engines that were built here from ``package`` and lie in it, by precision, with their sidecars.

    Raises:
        UserError: one was not built here, has changed since, or was built from another file than the package's.
    """
    plans = sorted((package.folder / ENGINES).glob("*.plan"))
    listed = listed_engines() if plans else {}
    found = {}
    for plan in plans:
        fault = engine_fault(plan, package.sums, listed, needs_sidecar=True)
        if fault is not None:
            raise UserError(fault)
        about = read_sidecar(plan)
        found[about["precision"]] = plan, about
    return found


def _engine(package: Package, wanted: str | None, config: Path) -> Path | None:
    """Return the engine that the model with the configuration ``config`` runs; None: there is none.

    Raises:
        UserError: as ``built_engines``; or there are several and none is ``wanted``, or it takes other batches.
    """
    engines = built_engines(package)
    known = ", ".join(sorted(engines)) or "none"
    if wanted is not None and wanted not in engines:
        raise UserError(f"--engine: got {wanted}, but built here are: {known}; build it with build-engine")
    if not engines:
        return None
    if wanted is None and len(engines) > 1:
        raise UserError(f"engines of several precisions were built here: {known}; say with --engine which one it is")
    path, about = engines[wanted or next(iter(engines))]
    _require_batches(path, about["batch"], config)
    return path


def _require_batches(plan: Path, batch: Mapping[str, int], config: Path) -> None:
    """Raise UserError where ``config`` promises batches, from 1 on, that the engine in ``plan`` does not take."""
    found = re.search(r"^\s*max_batch_size\s*:\s*(\d+)", config.read_text(encoding="utf-8"), re.MULTILINE)
    most = 0 if found is None else int(found[1])
    smallest, largest = batch["min"], batch["max"]
    if smallest > 1 or largest < most:
        raise UserError(
            f"{plan}: takes batches of {smallest} to {largest}, but {config} promises 1 to {most}; build it again "
            f"with build-engine --min-batch 1 --max-batch {most}, or leave it out with --no-gpu"
        )


def _link_or_copy(source: Path, target: Path, *, copy: bool) -> bool:
    """Put the file ``source`` under the name ``target``; return whether it is a link."""
    if not copy:
        try:
            os.link(source.resolve(), target)
        except OSError:  # another file system, one without links, or somebody else's file
            pass
        else:
            return True
    shutil.copyfile(source, target)
    return False
