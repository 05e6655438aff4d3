"""What this host can do, and what to install so that it can do more."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import UserError
from pipeline.core.host import BF16, cpu_facts, cpu_flags, list_gpus, probe_tensorrt, version_of
from pipeline.core.processes import memory_limit, num_cores

INT8 = {"avx512_vnni": "VNNI", "avx_vnni": "VNNI", "amx_int8": "AMX", "asimddp": "dot products", "i8mm": "I8MM"}
"""Flags of CPUs that multiply bytes in one instruction, and what they are called."""
GIB = 2**30
NEEDED_DISK = 8 * GIB
"""Of the environment, and of a first run."""
NEEDED_MEMORY = 4 * GIB
INSTALL = "make install, then source .venv/bin/activate"
PROGRAMS = {
    "git": "DVC keeps what it knows in a git repository: install git",
    "make": "the commands of README.md are targets of make: install make",
    "dvc": INSTALL,
    "ssh-keygen": "needed to sign packages (package.signing_key): install openssh-client",
}
EXTRAS = {
    "timm": ("backbones of timm", "timm"),
    "pillow-heif": ("photos in HEIC", "heic"),
    "uvicorn": ("fmkt serve", "serve"),
}
"""From each optional package to what it is for and the extra that brings it."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    subject: str
    found: str
    advice: str = ""
    """What to do about it; empty where nothing is to be done."""
    is_fault: bool = False
    """Whether a run would fail."""


def examine(folder: Path, root: Path = Path("/")) -> list[Finding]:
    """Return what was found of this host, for a project in ``folder``; ``root`` is where the system's files lie."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        lambda: _cpu(root),
        lambda: _memory(root),
        lambda: _disk(folder),
        _gpus,
        _tensorrt,
        _onnxruntime,
        _packages,
        _programs,
    )
    return [finding for look in looks for finding in look()]


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    is_fault = sys.version_info < (3, 11)
    advice = "make repro needs 3.11 or later: make distclean install PYTHON=python3.12" if is_fault else ""
    yield Finding("Python", f"{version}, {platform.system()} on {platform.machine()}", advice, is_fault)


def _cpu(root: Path) -> Iterator[Finding]:
    facts = cpu_facts(root)
    flags = cpu_flags(facts)
    cores, there = num_cores(root), os.cpu_count() or 1
    held = "" if cores == there else f" (of {there}: this process is bound to them, or a container's quota says so)"
    yield Finding("CPU", f"{facts.get('model name', platform.machine())}, {cores} core(s){held}")
    fast = sorted({name for flag, name in INT8.items() if flag in flags})
    if fast:
        yield Finding("INT8 on the CPU", f"{' and '.join(fast)}: int8-cpu may be faster than fp32; the summary says")
    else:
        yield Finding(
            "INT8 on the CPU",
            "no instructions for it: int8-cpu is smaller than fp32, hardly faster",
            "deploy fp32 on hosts like this one",
        )
    halves = sorted({name for flag, name in BF16.items() if flag in flags})
    yield Finding("bf16 on the CPU", " and ".join(halves) if halves else "none: training on the CPU is in fp32")


def _memory(root: Path) -> Iterator[Finding]:
    fields = dict(line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines() if ":" in line)
    total, free = (int(fields.get(name, "0 kB").split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = memory_limit(root)
    held = "" if limit is None or limit >= total else f", of which a container's limit leaves {_gib(limit)}"
    usable = min(total, limit or total)
    advice = "lower the batch sizes, or images of several hundred pixels may not fit" if usable < NEEDED_MEMORY else ""
    yield Finding("memory", f"{_gib(total)}, {_gib(free)} available{held}", advice)


def _disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    advice = f"the environment and a first run take {_gib(NEEDED_DISK)}: make room, or clone elsewhere"
    yield Finding("disk", f"{_gib(free)} free here", advice if free < NEEDED_DISK else "")
    shared = Path("/dev/shm")  # noqa: S108  (PyTorch's workers pass images through it)
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        advice = "loading photos by several workers needs more: docker run --shm-size 1g" if size < GIB // 2 else ""
        yield Finding("shared memory", _gib(size), advice)


def _gpus() -> Iterator[Finding]:
    try:
        gpus, cuda = list_gpus()
    except UserError as error:
        yield Finding("GPU", "not looked for", str(error))
        return
    if not gpus:
        yield Finding("GPU", "no NVIDIA GPU, or no driver for it: trainings run on the CPU")
    for gpu in gpus:
        facts = [gpu.name, "memory of the host" if gpu.memory is None else _gib(gpu.memory)]
        facts += [
            f"compute capability {gpu.compute_capability}",
            *([] if cuda is None else [f"driver for CUDA {cuda}"]),
        ]
        yield Finding("GPU", ", ".join(facts))


def _tensorrt() -> Iterator[Finding]:
    try:
        found = probe_tensorrt()
    except UserError:  # GPUs were not looked for, which has been said
        return
    if found["buildable"]:
        yield Finding("TensorRT", f"{found['tensorrt']}: engines are built and verified here")
    elif found["gpu"] is None:
        yield Finding(
            "TensorRT",
            f"no engines here ({found['reason']})",
            "build on the target instead: fmkt.pyz build-engine there",
        )
    else:
        yield Finding("TensorRT", found["reason"], 'pip install -e ".[tensorrt]"')


def _onnxruntime() -> Iterator[Finding]:
    if importlib.util.find_spec("onnxruntime") is None:
        yield Finding("ONNX Runtime", "not installed", INSTALL, is_fault=True)
        return
    from pipeline.runtimes.onnx import available_providers

    version = version_of("onnxruntime-gpu") or version_of("onnxruntime")
    yield Finding("ONNX Runtime", f"{version}, providers that run here: {', '.join(available_providers())}")


def _packages() -> Iterator[Finding]:
    torch = version_of("torch")
    yield Finding("PyTorch", torch or "not installed", "" if torch else INSTALL, is_fault=torch is None)
    for package, (purpose, extra) in EXTRAS.items():
        if version_of(package) is None:
            yield Finding(package, f"not installed, needed for {purpose}", f'pip install -e ".[{extra}]"')


def _programs() -> Iterator[Finding]:
    for program, purpose in PROGRAMS.items():
        if shutil.which(program) is None:
            yield Finding(program, "not found", purpose, is_fault=program in {"git", "dvc"})


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
