"""Power cuts in the middle of the chain: its file system is copied without sync, and the copy goes on by itself.

The chain runs on an ext4 file system in a file, whose journal is written every second. At random moments its processes
are stopped for as long as the file is copied; the copy is what a power cut would have left.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from attacks.campaign import Attack, Outcome
from attacks.chains import Chain, process_numbers
from attacks.mounts import call, keep_mounts_private, mounted

SIZE = "600M"
MOMENTS = 6
"""Cuts of one run of the chain; one more comes as it has ended."""
TRAININGS = ("train_teacher", "distill_student")


class Cut(NamedTuple):
    """A disk as a power cut left it."""

    kind: str
    disk: Path
    epochs: dict[str, int]
    """Of each training that has checkpoints: how many had ended."""


@contextlib.contextmanager
def opened() -> Iterator[Attack]:
    """Yield an attack on disks that were cut off in the middle of a chain.

    Raises:
        NotHereError: this user may not mount.
    """
    keep_mounts_private()
    folder = Path(os.environ["TMPDIR"], "power")
    disk, place = folder / "disk", folder / "mounted"
    place.mkdir(parents=True)
    expected: dict[str, str] = {}
    cuts: list[Cut] = []

    def attack(rng: random.Random, _: Path) -> Outcome:
        if not cuts:
            cuts.extend(_cuts(rng, disk, place, expected))
        return _gone_on(cuts.pop(rng.randrange(len(cuts))), place, expected)

    try:
        with _mounted(disk, place, new=True):
            pass
        yield attack
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cuts(rng: random.Random, disk: Path, place: Path, expected: dict[str, str]) -> list[Cut]:
    """Run a new chain, and return what was cut out of it; ``expected`` becomes what it has written."""
    cuts = []
    with _mounted(disk, place, new=True):
        chain = Chain.made(place / "chain")
        subprocess.run(["sync", "--file-system", str(place)], check=True)
        log = disk.with_name("log")
        process = chain.start("dvc", "repro", output=log)
        for number in range(MOMENTS):
            between = rng.random() < 0.5  # a stage has ended, DVC is at work
            stages = rng.randrange(1, 4)
            for _ in range(stages):
                _wait_for_change(process, log, until=b"Running stage" if not between else b"Updating lock file")
            time.sleep(rng.uniform(0, 0.3 if between else 2))
            if process.poll() is None:
                cuts.append(_cut(chain, disk, "as DVC keeps what a stage wrote" if between else "in a stage", number))
        if code := process.wait():
            raise RuntimeError(f"the chain ended with {code}: {log.read_text(errors='replace')}")
        cuts.append(_cut(chain, disk, "as dvc repro has ended", MOMENTS))
        chain.call("python", "-m", "stages", "settle")
        cuts.append(_cut(chain, disk, "as make repro has ended", MOMENTS + 1))
        found = chain.digests()
    if expected and found != expected:
        raise RuntimeError("another run has other bits")
    expected |= found
    return cuts


def _wait_for_change(process: "subprocess.Popen[bytes]", log: Path, *, until: bytes) -> None:
    """Wait until ``until`` stands in ``log`` once more than now, or ``process`` ends."""
    count = log.read_bytes().count(until)
    while process.poll() is None and log.read_bytes().count(until) == count:
        time.sleep(0.01)


def _cut(chain: Chain, disk: Path, kind: str, number: int) -> Cut:
    """Copy ``disk`` while nothing runs in the chain."""
    copy = disk.with_name(f"cut-{number}")
    stopped = process_numbers(chain.root)
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        before = -1
        while before != disk.stat().st_mtime_ns:  # else what was written meanwhile is in half of the copy
            before = disk.stat().st_mtime_ns
            subprocess.run(["cp", "--sparse=always", str(disk), str(copy)], check=True)
        return Cut(kind, copy, {stage: epochs for stage in TRAININGS if (epochs := _epochs(chain.root, stage))})
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _epochs(root: Path, stage: str) -> int:
    """Return how many epochs of ``stage`` checkpoints have."""
    names = [path.stem for path in (root / ".checkpoints" / stage).glob("*/epoch-*.checkpoint")]
    return max((int(name.rpartition("-")[2]) for name in names), default=0)


def _gone_on(cut: Cut, place: Path, expected: dict[str, str]) -> Outcome:
    """Run the chain on what ``cut`` left, and compare."""
    with _mounted(cut.disk, place):
        chain = Chain(place / "chain")
        left = {stage: _epochs(chain.root, stage) for stage in cut.epochs}
        lost = [f"{stage}: {left[stage]} of {had} epochs" for stage, had in cut.epochs.items() if left[stage] < had]
        before = chain.digests()
        code, output = chain.repro()
        faults = [f"it ended with {code}: {output[-2000:]}"] if code else [*chain.faults(expected)]
        ran = re.findall(r"Running stage '(.*?)'", output)
        if lost:
            faults.append(f"lost: {', '.join(lost)}")
        if anew := cut.epochs.keys() & _begun_anew(output):
            faults.append(f"trained anew: {', '.join(sorted(anew))}")
        if cut.kind == "as make repro has ended":
            if ran != ["probe_environment"]:
                faults.append(f"ran again: {', '.join(ran)}")
            if before != expected:
                faults.append("outputs were damaged")
    cut.disk.unlink()
    repaired = " ".join(re.findall(r"(?:repaired: .*|.*objects? removed, .*)", output))
    return Outcome(f"cut {cut.kind}", "broke" if faults else "held", f"{'; '.join(faults)} [{repaired}]")


def _begun_anew(output: str) -> set[str]:
    """Return the stages in ``output`` that ran and did not go on where they were."""
    parts = re.split(r"Running stage '(.*?)'", output)
    return {name for name, said in zip(parts[1::2], parts[2::2], strict=True) if "going on after its epoch" not in said}


@contextlib.contextmanager
def _mounted(disk: Path, place: Path, *, new: bool = False) -> Iterator[None]:
    """Mount the file ``disk`` on ``place``; a new one is empty.

    Raises:
        NotHereError: this user may not, or there is no such program.
    """
    if new:
        disk.unlink(missing_ok=True)
        call("truncate", f"--size={SIZE}", str(disk))
        call("mkfs.ext4", "-q", "-F", str(disk))
    with mounted(str(disk), place, "-o", "loop,commit=1"):
        yield
