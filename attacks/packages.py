"""Packages that somebody has changed: each is refused in a line, or still gives what the untouched one gives.

Whoever can write one file can write the list of sums as well. Where that makes another package of it, in which all is
right, its signature tells it from the one that was signed: then that must be refused.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file

from attacks.campaign import Attack, NotHereError, Outcome
from attacks.tamperings import ENDLESS, Tampering, put_in_place, tamperings, write_sums_again
from pipeline.core.errors import BusyError, GateError, UserError
from stages.__main__ import main
from workbench.bench import Bench
from workbench.project import write_params

CHANGES = {
    "distill_student.method": "ofm_kt",
    "distill_student.backbone": "resnet8_x0_25",
    "calibrate_steps.candidates": [2],
    "export_onnx.batch_sizes": [1],
    "export_onnx.num_samples": 8,
    "export_onnx.precisions": ["fp32", "int8-cpu", "int8-trt"],
    **{
        f"export_onnx.gates.int8-{kind}.{gate}": 0.5
        for kind in ("cpu", "trt")
        for gate in ("min_agreement", "max_drop")
    },
}
NAMED, REAL, SUMMED = 0.2, 0.01, 0.75
"""Shares: of cases that are one of the named tamperings; of those judged by the commands themselves, each a process;
of random changes after which the sums are written again."""
SECONDS = 60
"""That a command may take on a busy host."""
PROOF = ("--proof-seconds", "4")
"""For the network that never ends, which takes all of it."""
READY = '"ready"'


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


class Answers(NamedTuple):
    """What a package says and gives."""

    about: Any
    seen: list[Any]
    """What is seen on the images."""


class Target(NamedTuple):
    """What the cases share."""

    package: Path
    images: Path
    signers: Path
    named: Mapping[str, Tampering]
    answers: Answers
    """Of the untouched package."""


@contextlib.contextmanager
def opened() -> Iterator[Attack]:
    """Make a small package by the chain, sign it, and yield what attacks copies of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")  # the engines of this host are none of the attacker's
        target = make_target(folder)
        yield lambda rng, case: attack(target, rng, case)


def make_target(folder: Path) -> Target:
    """Return a small package in ``folder``, made by the chain, with a signature, and what it gives."""
    if shutil.which("ssh-keygen") is None:
        raise NotHereError("packages are signed by ssh-keygen, which is not installed")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (folder / "signers").write_text(f"us {key.with_name('key.pub').read_text()}")
    bench = Bench(folder, lambda changes: write_params(folder / "params.yaml", changes))
    bench.prepare()
    (folder / "teacher.json").write_text(json.dumps({"status": "not needed"}))
    (folder / "teacher.csv").write_text("epoch,loss,val_accuracy\n")
    changes = CHANGES | {"package.signing_key": str(key)}
    for step in (bench.distill, bench.calibrate, bench.trace, bench.export, bench.measure):
        done = step(changes)
        assert done.exit_code == 0, done.output
    bench.to_package(changes)
    package, images = folder / "package", folder / "images"
    images.mkdir()
    for number, pixels in enumerate(load_file(package / "samples.safetensors")["images"][:3]):
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(images / f"{number}.png")
    target = Target(package, images, folder / "signers", tamperings(package), Answers(None, []))
    return target._replace(answers=read_answers(target, package, in_process))


def attack(target: Target, rng: random.Random, folder: Path) -> Outcome:
    """Change a copy of the package in one way, and use it."""
    package = shutil.copytree(target.package, folder / "package")
    if rng.random() < NAMED:
        name = rng.choice(sorted(target.named))
        return judge(target, package, name, target.named[name], real=name == ENDLESS or rng.random() < REAL)
    ways = [rng.choice(list(WAYS)) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    change = Tampering(lambda path: [WAYS[way](path, rng) for way in ways], sums_again=rng.random() < SUMMED)
    return judge(target, package, f"random: {ways[0]}", change, real=rng.random() < REAL)


def judge(target: Target, package: Path, kind: str, tampering: Tampering, *, real: bool) -> Outcome:
    """Return what became of ``package``, a copy, after ``tampering``."""
    with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):  # of several random changes
        tampering.change(package)
        if tampering.sums_again:
            write_sums_again(package)
    run = in_a_process if real else in_process
    said = [run(["verify", "--package", str(package), *PROOF])]
    is_accepted = said[0].code == 0
    said.append(run(["about", "--json", "--package", str(package)]))
    said.append(run(["about", "--package", str(package)]))
    said.append(run(["predict", "--package", str(package), "--json", "--top", "10", str(target.images), *PROOF]))
    said.append(run(["predict", "--package", str(package), "--top", "10", str(target.images), *PROOF]))
    said.append(served(package) if real else loaded(package))
    for answer in said:
        fault = fault_of(answer)
        if fault:
            return Outcome(kind, "broke", fault.replace(str(package), "PACKAGE"))
    if not is_accepted:
        return Outcome(kind, "held")
    if any(answer.code for answer in said):
        words = " | ".join(answer.err.strip() for answer in said if answer.code)
        return Outcome(kind, "broke", f"verify calls it intact, and: {words}")
    if answers_of(said[1], said[3]) == target.answers:
        return Outcome(kind, "harmless")
    signed = in_process(["verify", "--package", str(package), "--allowed-signers", str(target.signers), *PROOF])
    fault = fault_of(signed)
    if fault or not signed.code:
        return Outcome(kind, "broke", fault or "accepted as signed, with other answers")
    return Outcome(kind, "held")


def read_answers(target: Target, package: Path, run: Callable[[Sequence[str]], Said]) -> Answers:
    """Return what ``package`` says and gives; it must be right."""
    asked = (
        ["about", "--json", "--package", str(package)],
        ["predict", "--package", str(package), "--json", "--top", "10", str(target.images)],
    )
    said = [run(words) for words in asked]
    assert not any(answer.code for answer in said), said
    return answers_of(*said)


def answers_of(about: Said, seen: Said) -> Answers:
    """Return the answers among what two commands printed."""
    content = json.loads(about.out)
    del content["sha256sums_sha256"]  # which every change changes
    return Answers(content, [json.loads(line) for line in seen.out.splitlines()])


def fault_of(said: Said) -> str:
    """Return what is wrong with how a command ended; empty: it ended well, or refused in lines."""
    if said.code not in {0, 1, 2}:
        return f"exit code {said.code}: {said.err[-2000:]}"
    if "Traceback (most recent call last)" in said.err:
        return said.err[-2000:]
    odd = re.search(r"[^\n -~\u00a0-\U0010ffff]|[\u2028\u2029\u202e]", said.out + said.err)
    if odd:
        return f"the character {odd[0]!r} reaches the terminal: {said.err[:500]!r}"
    lines = said.err.splitlines()
    if said.code and (not lines or not all(line.startswith("error: ") for line in lines)):
        return f"exit code {said.code} without a line on why, or with others: {said.err[:2000]!r} {said.out[:200]!r}"
    forged = [line for line in lines if line.startswith("error: forged")]
    if forged or any(len(line) > LONGEST for line in lines):
        return f"a line that the package has made, or a long one: {said.err[:2000]!r}"
    return ""


LONGEST = 1500
"""Characters of a line that somebody is to read."""


def in_process(words: Sequence[str]) -> Said:
    """Run a command of ``fmkt`` here; what it raises is a traceback."""
    done = CliRunner().invoke(main, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return Said(-1, done.stdout, "".join(traceback.format_exception(done.exception)))
    return Said(done.exit_code, done.stdout, done.stderr)


def in_a_process(words: Sequence[str]) -> Said:
    """Run a command of ``fmkt`` as users do."""
    command = [sys.executable, "-m", "stages", *words]
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=SECONDS, env=os.environ, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return Said(-1, "", f"no end after {SECONDS} s: {' '.join(words)}")
    return Said(done.returncode, *(text.decode(errors="backslashreplace") for text in (done.stdout, done.stderr)))


def loaded(package: Path) -> Said:
    """Open ``package`` as the server does, here."""
    from pipeline.package.reader import Package
    from pipeline.serving.models import load_models, package_facts

    try:
        opened = Package.open(package)
        load_models(opened, ["fp32"], provider="cpu", num_threads=1)
        package_facts(opened)
    except UserError as error:
        return Said(2, "", f"error: {error}".replace("\n", "\nerror: ") + "\n")
    except (BusyError, GateError) as error:
        return Said(1, "", f"error: {error}\n")
    return Said(0, "", "")


def served(package: Path) -> Said:
    """Start the server over ``package``, and end it once it is ready."""
    words = ["serve", "--package", str(package), "--http-port", "0", "--grpc-port", "0", *PROOF]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [sys.executable, "-m", "stages", *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        ) as process,
    ):
        for _ in range(SECONDS * 10):
            if process.poll() is not None or READY in _text(log):
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        said = _text(log)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM if READY in said else signal.SIGKILL)
            process.wait(SECONDS)
    if READY in said:
        return Said(0, said, "")
    return Said(process.returncode, "", said)


def _text(log: Any) -> str:
    log.seek(0)
    content: bytes = log.read()
    return content.decode(errors="backslashreplace")


HOSTILE: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), "", "a", "../x",
    "/etc/passwd", "\x1b[2J", "\u202e", "\ud800", "a\nerror: forged", "a" * 100_000, [], {}, [None], [[]], {"a": {}},
    ["a"], [1] * 1000, {"": ""},
)  # fmt: skip
"""Values of every type of JSON, and of none."""
Way = Callable[[Path, random.Random], object]


def _files(package: Path) -> list[Path]:
    """Return the plain files of ``package``: what links lead to is the host's, and neither read nor written here."""
    return sorted(path for path in package.rglob("*") if path.is_file() and not path.is_symlink())


def _described(package: Path) -> list[Path]:
    return [path for path in _files(package) if path.suffix == ".json"]


def _flip(package: Path, rng: random.Random) -> None:
    path = rng.choice(_files(package))
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        data[rng.randrange(min(len(data), rng.choice((300, 10**9))))] ^= 1 << rng.randrange(8)
    put_in_place(path, data)


def _cut(package: Path, rng: random.Random) -> None:
    path = rng.choice(_files(package))
    data = path.read_bytes()
    put_in_place(path, data[: rng.randrange(len(data) + 1)])


def _insert(package: Path, rng: random.Random) -> None:
    path = rng.choice(_files(package))
    data, place = path.read_bytes(), rng.randrange(10**9)
    place %= len(data) + 1
    put_in_place(path, data[:place] + rng.randbytes(rng.choice((1, 8, 4096))) + data[place:])


def _flip_network(package: Path, rng: random.Random) -> None:
    path = rng.choice([path for path in _files(package) if path.suffix == ".onnx"] or _files(package))
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 3))):
        place = rng.randrange(len(data))
        data[place : place + rng.choice((1, 1, 4))] = rng.randbytes(rng.choice((0, 1, 1, 4)))
    put_in_place(path, data)


def _flip_samples(package: Path, rng: random.Random) -> None:
    path = package / "samples.safetensors"
    if path not in _files(package):  # of several random changes
        return
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 3))):
        data[rng.randrange(min(len(data), rng.choice((8, 400, 10**9))))] = rng.randrange(256)
    put_in_place(path, data)


def _edit(package: Path, rng: random.Random) -> None:
    path = rng.choice(_described(package))
    try:
        content = json.loads(path.read_text())
    except ValueError:  # of several random changes
        return
    places = list(_places(content))
    if not places:
        return
    holder, key = rng.choice(places)
    way = rng.randrange(4)
    if way == 0:
        del holder[key]
    elif way == 1:
        other, its = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[its]))
    else:
        holder[key] = rng.choice(HOSTILE)
    put_in_place(path, (json.dumps(content)).encode())


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each object and list of ``content`` with each of its keys."""
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])


def _add_key(package: Path, rng: random.Random) -> None:
    path = rng.choice(_described(package))
    text = path.read_text()
    found = [place.start() for place in re.finditer(r"\{", text)]
    keys = re.findall(r'"(\w+)":', text)
    if found and keys:
        place = rng.choice(found) + 1
        added = f'"{rng.choice(keys)}": {json.dumps(rng.choice(HOSTILE))}, '
        put_in_place(path, (text[:place] + added + text[place:]).encode())


def _swap(package: Path, rng: random.Random) -> None:
    one, other = (rng.choice(_files(package)) for _ in range(2))
    held = one.read_bytes()
    put_in_place(one, other.read_bytes())
    put_in_place(other, held)


def _rename(package: Path, rng: random.Random) -> None:
    path = rng.choice(_files(package))
    path.rename(path.with_name(rng.choice((path.name.upper(), f"{path.name}\u0301", f"{path.name} ", "e\u0301.json"))))


def _link(package: Path, rng: random.Random) -> None:
    path = rng.choice(_files(package))
    target = rng.choice((path.name, "/dev/zero", "/proc/self/mem", "..", "../images", "README.md", "nowhere"))
    path.unlink()
    path.symlink_to(target)


def _strange(package: Path, rng: random.Random) -> None:
    place = rng.choice(["", "engines/", "triton/", "triton/a/1/", "clients/", "a/b/"])
    name = rng.choice(
        ["x", "model.plan", "x.plan.json", "model.onnx.data", ".x", "\x1b[2J", "a\nerror: forged", "x.plan"]
    )
    path = package / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a pipe, of several random changes
    if rng.random() < 0.3:
        os.mkfifo(path)
    else:
        put_in_place(path, rng.randbytes(rng.choice((0, 10))))


def _sums(package: Path, rng: random.Random) -> None:
    path = package / "SHA256SUMS"
    if path not in _files(package):  # of several random changes
        return
    lines = path.read_text(errors="surrogateescape").splitlines(keepends=True)
    way = rng.randrange(5)
    place = rng.randrange(len(lines) or 1)
    if way == 0:
        del lines[place : place + 1]
    elif way == 1:
        lines.insert(place, rng.choice(lines or [""]))
    elif way == 2:
        rng.shuffle(lines)
    elif way == 3:
        lines.insert(place, f"{'0' * 64}  {rng.choice(['/dev/zero', '../x', 'x', 'a//b', './x', 'engines/'])}\n")
    else:
        lines[place : place + 1] = ["".join(rng.sample(line, len(line))) for line in lines[place : place + 1]]
    put_in_place(path, "".join(lines).encode(errors="surrogateescape"))


WAYS: Mapping[str, Way] = {
    "bytes flipped": _flip,
    "cut short": _cut,
    "bytes put in": _insert,
    "network changed": _flip_network,
    "samples changed": _flip_samples,
    "JSON edited": _edit,
    "key added": _add_key,
    "files swapped": _swap,
    "file renamed": _rename,
    "link": _link,
    "stranger": _strange,
    "sums edited": _sums,
}
