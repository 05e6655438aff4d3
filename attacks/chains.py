"""A chain to disturb: a copy of this project whose stages take seconds, and what it must write."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.preflight.stage_table import STAGES, Kind, PathOption, command_line
from workbench.project import TINY, copy_project

COMPARED = (
    "artifacts/data",
    "artifacts/teacher",
    "artifacts/student",
    "artifacts/calibration",
    "artifacts/onnx",
    "artifacts/evaluation",
    "artifacts/tensorrt",
    "reports/teacher.json",
    "reports/teacher_history.csv",
    "reports/student.json",
    "reports/student_history.csv",
    "reports/flow_steps.csv",
    "reports/flow_by_num_steps.csv",
    "reports/likelihood.csv",
    "reports/mistakes.csv",
    "reports/per_class.csv",
    "reports/confusion.csv",
    "reports/precision_recall.csv",
    "reports/score_by_epoch.csv",
)
"""Outputs that are the same in every run; in the others there are times."""
FINISHED = "FMKT_FINISHED_CHAIN"
"""The variable that holds the folder of a chain which has run, so that not every campaign has to run one."""
AT_WORK = (".partial", ".replaced")
"""In the names of what a process is writing."""
MISSING_SECONDS = 10
"""That a process may take to end after the one that started it."""


class Chain:
    """A copy of this project in ``root``, with small parameters."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def made(cls, root: Path) -> "Chain":
        """Return a new one, in which nothing has run."""
        copy_project(root, TINY)
        chain = cls(root)
        for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "start"]):
            code, output = chain.call("git", *words)
            if code:
                raise RuntimeError(output)
        return chain

    @classmethod
    @contextlib.contextmanager
    def finished(cls) -> "Iterator[Chain]":
        """Yield one that has run, in a folder that goes at the end: a copy of that in ``FINISHED``, or a new one.

        Raises:
            RuntimeError: a new one does not end well.
        """
        with tempfile.TemporaryDirectory() as folder:
            root, there = Path(folder, "chain"), os.environ.get(FINISHED)
            if there is not None:
                yield cls(shutil.copytree(there, root, symlinks=True))
                return
            chain = cls.made(root)
            chain.run()
            yield chain

    def run(self) -> None:
        """Run the whole chain.

        Raises:
            RuntimeError: it does not end well.
        """
        code, output = self.repro()
        if code:
            raise RuntimeError(f"the chain ended with {code}: {output}")

    def environment(self) -> dict[str, str]:
        """Return the variables of a session with the environment active; DVC keeps all that it has in ``root``."""
        not_kept = {"DVC_ROOT", "DVC_STAGE", "PYTHONPATH"}
        kept = {name: value for name, value in os.environ.items() if name not in not_kept}
        names = {f"GIT_{role}_{key}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**kept, **names, "PATH": path, "DVC_SITE_CACHE_DIR": str(self.root / ".dvc/site")}

    def start(self, *words: str, output: Path | int, **options: Any) -> "subprocess.Popen[bytes]":
        """Start a command in ``root``; its output goes to a file, so that nobody waits for what it left behind."""
        target = output if isinstance(output, int) else output.open("wb")
        try:
            return subprocess.Popen(
                words, cwd=self.root, env=self.environment(), stdout=target, stderr=subprocess.STDOUT, **options
            )
        finally:
            if not isinstance(target, int):
                target.close()

    def call(self, *words: str, **options: Any) -> tuple[int, str]:
        """Return the exit code of a command and what it printed."""
        process = self.start(*words, output=subprocess.PIPE, **options)
        output, _ = process.communicate()
        return process.returncode, output.decode(errors="replace")

    def stage(self, name: str, runtime: str | None = None, place: Path | None = None) -> list[str]:
        """Return the command line of a stage; ``place`` is the folder of what it writes where that is not ``root``."""
        paths: dict[str, str | Path] = {**STAGES[name].project_paths(runtime)}
        if place is not None:
            paths |= {option.argument: place / paths[option.argument] for option in written(name)}
        return [sys.executable, "-m", *command_line(name, paths, runtime=runtime)]

    def repro(self) -> tuple[int, str]:
        """Run the chain as ``make repro`` does; return the exit code and what was printed."""
        python = sys.executable
        first, words = self.call(python, "-m", "stages", "repair")
        second, output = self.call("dvc", "repro")
        third, settled = self.call(python, "-m", "stages", "settle")
        return first or second or third, words + output + settled

    def digests(self) -> dict[str, str]:
        """Return the digest of each file that is compared, by its name."""
        return digests(self.root)

    def faults(self, expected: Mapping[str, str]) -> Iterator[str]:
        """Yield what is wrong after a chain has ended well: other bits, a package that is not whole, leftovers."""
        found = self.digests()
        different = [name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name)]
        if different:
            yield f"other bits in {', '.join(sorted(different))}"
        code, output = self.call(sys.executable, "-m", "stages", "verify")
        if code:
            yield f"the package is not whole: {output[-500:]}"
        if left := self.leftovers():
            yield f"left over: {', '.join(left)}"
        if running := processes_in(self.root):
            yield f"still running: {', '.join(running)}"
        code, output = self.call("git", "fsck", "--no-dangling")
        if code or "error" in output:
            yield f"git is damaged: {output[-500:]}"

    def leftovers(self) -> list[str]:
        """Return the names of what only a process at work has, and of checkpoints that nobody needs any more."""
        found = [
            path
            for top in ("artifacts", "reports", ".checkpoints", ".cache")
            for path in (self.root / top).rglob("*")
            if any(word in path.name for word in AT_WORK) or path.name.startswith(("unpacked-", "epoch-"))
        ]
        found += [path for path in self.root.iterdir() if any(word in path.name for word in AT_WORK)]
        return sorted(path.relative_to(self.root).as_posix() for path in found)


def digests(root: Path) -> dict[str, str]:
    """Return the digest of each file below ``root`` that is compared, by its name."""
    tops = [root / name for name in COMPARED]
    files = [file for top in tops for file in ([top] if top.is_file() else sorted(top.rglob("*")))]
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }


def stages() -> list[tuple[str, str | None]]:
    """Return each stage in the order in which they run, with each of its runtimes."""
    return [(stage.name, runtime) for stage in STAGES.values() for runtime in (stage.runtimes or [None])]


def written(name: str) -> list[PathOption]:
    """Return the options of what the stage ``name`` writes."""
    return [option for option in STAGES[name].options if option.kind not in {Kind.INPUT, Kind.FACTS}]


def outputs(name: str, runtime: str | None) -> list[str]:
    """Return the paths that a stage writes."""
    paths = STAGES[name].project_paths(runtime)
    return [paths[option.argument] for option in written(name)]


def process_numbers(root: Path) -> list[int]:
    """Return the numbers of the processes that work in ``root``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve().is_relative_to(root.resolve()):
                found.append(int(process.name))
    return found


def processes_in(root: Path) -> list[str]:
    """Return the command lines of the processes that work in ``root``, once they have had time to end."""
    deadline = time.monotonic() + MISSING_SECONDS
    while (numbers := process_numbers(root)) and time.monotonic() < deadline:
        time.sleep(0.05)
    found = []
    for number in numbers:
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ").strip())
    return found
