"""What a user sees of a training: a bar on a terminal, plain lines elsewhere."""

import fcntl
import logging
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

import pipeline.training.progress
from pipeline.core.logging_setup import logged
from pipeline.core.other_programs import OtherPrograms
from tests.toy_training import run


@pytest.fixture(autouse=True)
def _every_step_is_shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Read the figures at each step, and leave the log as it was."""
    monkeypatch.setattr(pipeline.training.progress, "READ_SECONDS", 0.0)
    monkeypatch.setattr(pipeline.training.progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(OtherPrograms, "share", lambda _: 0.0)  # whatever runs beside the tests
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level


def train_showing(errors: TextIO, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train two epochs with ``errors`` in the place of standard error."""
    monkeypatch.setattr("sys.stderr", errors)
    with logged():
        run(folder, epochs=2)
    errors.close()


def read_to_end(terminal: int, parts: list[bytes]) -> None:
    """Append what is written to ``terminal`` until its other side is closed."""
    while True:
        try:
            parts.append(os.read(terminal, 4096))
        except OSError:  # Linux's end of a terminal
            return


def test_a_terminal_shows_a_bar_with_figures_speed_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 150, 0, 0))
    parts: list[bytes] = []
    reader = threading.Thread(target=read_to_end, args=(ours, parts))
    reader.start()
    with os.fdopen(theirs, "w") as errors:
        train_showing(errors, tmp_path, monkeypatch)
    reader.join()
    os.close(ours)
    written = b"".join(parts).decode()
    bars = [part for part in written.split("\r") if " images/s, epoch " in part]
    assert bars
    assert all("/128 [" in bar and "<" in bar and "loss " in bar and "train_accuracy " in bar for bar in bars)
    lines = [line for line in written.replace("\r", "\n").splitlines() if "val_accuracy" in line]
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]


def test_the_first_steps_foretell_time_and_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run(tmp_path, epochs=5)
    said = [record.message for record in caplog.records if "foretell" in record.message]
    assert len(said) == 1
    assert re.fullmatch(r"the first 10 steps foretell \d+:\d\d for this training; memory so far \d+\.\d GiB", said[0])


def test_what_is_foretold_beside_other_programs_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OtherPrograms, "share", lambda _: 0.52)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with caplog.at_level("INFO"):
        run(tmp_path, epochs=5)
    (said,) = (record.message for record in caplog.records if "foretell" in record.message)
    beside = "while other programs take 52% of the CPU, less without them"
    assert f"for this training {beside}; OMP_WAIT_POLICY=PASSIVE in the environment helps" in said
    paces = [record.message for record in caplog.records if " images/s" in record.message]
    assert paces
    assert all(message.endswith(f" left {beside}") for message in paces)


def test_elsewhere_plain_lines_tell_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.txt"
    with path.open("w") as errors:
        train_showing(errors, tmp_path / "run", monkeypatch)
    written = path.read_bytes().decode()
    lines = written.splitlines()
    assert "\r" not in written
    assert lines[0].startswith("training: 2 epochs of 4 steps of 16 images, 8 steps; device cpu, num_threads")
    within = [line for line in lines if " step " in line]
    assert [line.split("  ")[0] for line in within[:4]] == [f"epoch 1 step {i}/4" for i in (1, 2, 3, 4)]
    assert all(re.search(r"loss .* images/s, \d+:\d\d left$", line) for line in within)
