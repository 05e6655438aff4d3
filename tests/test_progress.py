"""What a user sees of a training: a bar on a terminal, plain lines elsewhere."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

from tests.helpers import ROOT

CODE = """
import sys
from pathlib import Path
import pipeline.training.progress
from pipeline.core.logging_setup import configure_logging
from tests.test_training import run
configure_logging()
pipeline.training.progress.READ_SECONDS = pipeline.training.progress.LINE_SECONDS = 0.0
run(Path(sys.argv[1]), epochs=2)
"""


def on_terminal(command: list[str]) -> str:
    """Return what ``command`` writes to standard error where that is a terminal of 150 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 150, 0, 0))
    with subprocess.Popen(command, stderr=theirs, cwd=ROOT):
        os.close(theirs)
        written = b""
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # Linux's end of a terminal
                break
            written += data
    os.close(ours)
    return written.decode()


def test_a_terminal_shows_a_bar_with_figures_speed_and_time_left(tmp_path: Path) -> None:
    written = on_terminal([sys.executable, "-c", CODE, str(tmp_path)])
    bars = [part for part in written.split("\r") if " images/s, epoch " in part]
    assert bars
    assert all("/128 [" in bar and "<" in bar and "loss " in bar and "train_accuracy " in bar for bar in bars)
    lines = [line for line in written.replace("\r", "\n").splitlines() if "val_accuracy" in line]
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]


def test_elsewhere_plain_lines_tell_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    written = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr
    lines = written.splitlines()
    assert "\r" not in written
    assert lines[0].startswith("training: 2 epochs of 4 batches of 16; device cpu, num_threads")
    within = [line for line in lines if " step " in line]
    assert [line.split("  ")[0] for line in within[:4]] == [f"epoch 1 step {i}/4" for i in (1, 2, 3, 4)]
    assert all("loss " in line and "images/s, 00:0" in line for line in within)
