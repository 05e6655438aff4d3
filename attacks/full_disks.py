"""What runs out in the middle of a stage, such as disk and inodes: one line with the cause, then the same bits."""

import contextlib
import random
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

from attacks.campaign import Attack, Outcome, Verdict, refusal
from attacks.chains import Chain, digests, outputs, stages
from attacks.mounts import call, keep_mounts_private, mounted
from pipeline.preflight.code import MADE_FROM

WAYS = ("a full disk", "no inode left", "a limit on the size of files", "few open files")
CAUSES = {
    "a full disk": ("No space left on device",),
    "no inode left": ("No space left on device",),
    "a limit on the size of files": ("File too large",),
    "few open files": ("Too many open files",),
}
PLENTY = 512 * 2**20
"""Bytes with which every stage ends well."""
INODES = 24
"""About as many as the stages with the most files need."""
FILES = (6, 24)
"""Open files allowed: from hardly enough to start to nearly enough."""
STAYS = (".checkpoints", ".cache", ".dvc")
"""What a failed stage may leave for the next one, beside lock files, what the digests of code were made from, folders,
and files that it had written whole."""


@contextlib.contextmanager
def opened() -> Iterator[Attack]:
    """Yield an attack on the stages of a chain that has run once.

    Raises:
        NotHereError: this user may not mount.
    """
    keep_mounts_private()
    with Chain.finished() as chain:
        place = chain.root.parent / "disk"
        place.mkdir()
        expected = chain.digests()

        def attack(rng: random.Random, _: Path) -> Outcome:
            name, runtime = rng.choice(stages())
            way = rng.choice(WAYS)
            size = _size_of(chain.root, outputs(name, runtime))
            limits: dict[int, int] = {}
            room, inodes = PLENTY, 0
            if way == "a full disk":
                room = 4096 * rng.randrange(1, max(2, int(1.2 * size) // 4096 + 4))
            elif way == "no inode left":
                inodes = rng.randrange(2, INODES)
            elif way == "a limit on the size of files":
                limits[resource.RLIMIT_FSIZE] = rng.randrange(1, max(2, size))
            else:
                limits[resource.RLIMIT_NOFILE] = rng.randrange(*FILES)
            with mounted("attack", place, "-t", "tmpfs", "-o", f"size={room},nr_inodes={inodes}"):
                faults, had_room = _tried(chain, place, (name, runtime), way, limits, expected)
            verdict: Verdict = "broke" if faults else "harmless" if had_room else "held"
            about = f"{name} {runtime or ''}: room {room}, inodes {inodes}, limits {limits}: {'; '.join(faults)}"
            return Outcome(f"{way}: {name}", verdict, about)

        yield attack


def _tried(
    chain: Chain,
    place: Path,
    stage: tuple[str, str | None],
    way: str,
    limits: dict[int, int],
    expected: dict[str, str],
) -> tuple[list[str], bool]:
    """Run a stage that writes to ``place`` within ``limits``, then without; return the faults, and if it had room."""
    words, tops = chain.stage(*stage, place=place), outputs(*stage)
    code, output = _run(chain, words, place, limits)
    faults = [fault] if (fault := refusal(code, output)) else []
    if code and not faults:
        said = output.strip().splitlines()[-1]
        if not said.startswith("error: ") or not any(cause in said for cause in CAUSES[way]):
            faults.append(f"does not say why: {output[-500:]}")
        files = [path.relative_to(place) for path in place.rglob("*") if path.is_file()]
        left = [path.name for path in files if not _may_stay(path, tops)]
        if left:
            faults.append(f"left over: {', '.join(sorted(left))}")
    call("mount", "-o", f"remount,size={PLENTY},nr_inodes=0", str(place))
    again, output = _run(chain, words, place, {})
    if again:
        faults.append(f"with room it ended with {again}: {output[-1500:]}")
    wanted = {name: digest for name, digest in expected.items() if any(Path(name).is_relative_to(top) for top in tops)}
    found = digests(place)
    if different := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        faults.append(f"other bits in {', '.join(different)}")
    return faults, code == 0


def _run(chain: Chain, words: list[str], place: Path, limits: dict[int, int]) -> tuple[int, str]:
    """Run a stage whose checkpoints lie in ``place`` as well."""

    def limit() -> None:
        for which, most in limits.items():
            resource.setrlimit(which, (most, most))

    environment = {**chain.environment(), "DVC_ROOT": str(place)}
    done = subprocess.run(
        words, cwd=chain.root, env=environment, capture_output=True, text=True, check=False, preexec_fn=limit
    )
    return done.returncode, done.stdout + done.stderr


def _may_stay(path: Path, tops: list[str]) -> bool:
    """Return whether a stage that failed, and writes ``tops``, may leave the file ``path``."""
    return path.parts[0] in STAYS or path.name.endswith((".lock", MADE_FROM)) or path.as_posix() in tops


def _size_of(root: Path, names: list[str]) -> int:
    """Return the bytes of the files ``names`` and of those in the folders ``names``."""
    tops = [root / name for name in names]
    return sum(file.stat().st_size for top in tops for file in [top, *top.rglob("*")] if file.is_file())
