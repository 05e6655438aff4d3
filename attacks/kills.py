"""SIGKILL at random moments in every stage, run by itself or by DVC: the same command again ends with the same bits."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from attacks.campaign import Attack, Outcome
from attacks.chains import Chain, outputs, stages

WAYS = ("the stage", "the stage under DVC", "DVC")
"""What is killed."""
LONGEST = 10.0
"""Seconds of a stage here; of one that ends earlier the next try comes earlier."""


@contextlib.contextmanager
def opened() -> Iterator[Attack]:
    """Yield an attack on a chain that has run once."""
    with Chain.finished() as chain:
        expected = chain.digests()

        def attack(rng: random.Random, folder: Path) -> Outcome:
            name, runtime = rng.choice(stages())
            way = rng.choice(WAYS)
            moment = rng.uniform(0, LONGEST)
            addressed = name if runtime is None else f"{name}@{runtime}"
            kind = f"kill {way}: {addressed}"
            while not _was_killed(chain, way, (name, runtime), moment, folder):
                moment = rng.uniform(0, moment)
            faults = []
            if way == "the stage":
                code, output = chain.call(*chain.stage(name, runtime))
                if code:
                    faults.append(f"the same command ended with {code}: {output[-1500:]}")
            code, output = chain.repro()
            if code:
                faults.append(f"the chain ended with {code}: {output[-1500:]}")
            faults += chain.faults(expected)
            if faults:
                shutil.rmtree(chain.root / ".dvc/tmp", ignore_errors=True)  # the next case begins anew
                chain.repro()
            return Outcome(kind, "broke" if faults else "held", f"after {moment:.2f} s: {'; '.join(faults)}")

        yield attack


def _was_killed(chain: Chain, way: str, stage: tuple[str, str | None], seconds: float, folder: Path) -> bool:
    """Start ``stage`` without its outputs and kill what ``way`` says after ``seconds``; return whether it still ran."""
    name, runtime = stage
    addressed = name if runtime is None else f"{name}@{runtime}"
    for output in outputs(name, runtime):
        path = chain.root / output
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    words = chain.stage(name, runtime) if way == "the stage" else ["dvc", "repro", "-f", "-s", addressed]
    process = chain.start(*words, output=folder / "killed.log")
    number = process.pid
    if way != "the stage":
        number = _stage_under(process) or number
    time.sleep(seconds)
    ended = way != "the stage under DVC" and process.poll() is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid if way == "DVC" else number, signal.SIGKILL)
    process.wait()
    return not ended and process.returncode != 0


def _stage_under(process: "subprocess.Popen[bytes]") -> int | None:
    """Wait until DVC has started the stage; return its number."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        with contextlib.suppress(OSError):
            for number in children.read_text().split():
                if b"stages." in Path(f"/proc/{number}/cmdline").read_bytes():
                    return int(number)
        time.sleep(0.01)
    return None
