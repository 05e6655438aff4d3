"""What is said of programs that take the CPU beside a training."""

import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.core import other_programs
from pipeline.core.other_programs import OtherPrograms, advice_beside_others, beside_others
from workbench.load import busy_programs

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5})


def share(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, ours: float, busy: float, idle: float, threads: int = 2
) -> float:
    """Return the share of others after seconds in which two cores were ``busy`` and ``idle``, ``ours`` of them here."""
    (root / "proc").mkdir(exist_ok=True)
    now = [0.0]
    monkeypatch.setattr(other_programs, "time", SimpleNamespace(process_time=lambda: now[0]))

    def write(busy: float, idle: float) -> None:
        half, rest = round(busy * TICKS / 2), round(idle * TICKS / 2)
        mine = f"{half - 6} 1 1 {rest - 1} 1 1 1 2 0 0"  # user, nice, system, idle, iowait, irq, softirq, steal, guests
        lines = ["cpu 9 9 9 9 9 9 9 9 0 0", f"cpu2 {mine}", f"cpu5 {mine}", "cpu7 1 2 3 4 5 6 7 8 0 0", "intr 5"]
        (root / "proc/stat").write_text("\n".join(lines) + "\n")

    write(100, 100)
    watch = OtherPrograms(threads=threads, root=root)
    write(100 + busy, 100 + idle)
    now[0] = ours
    return watch.share()


@pytest.mark.parametrize(
    ("seconds", "threads", "expected"),
    [
        ({"ours": 10, "busy": 20, "idle": 0}, 2, 0.5),
        ({"ours": 4, "busy": 19, "idle": 1}, 2, 0.75),
        ({"ours": 10, "busy": 20, "idle": 0}, 1, 0),  # it has all that it can use: a core
        ({"ours": 6, "busy": 20, "idle": 0}, 1, 0.7),  # its thread had to wait for one of both cores
        ({"ours": 10, "busy": 20, "idle": 0}, 8, 0.5),
        ({"ours": 19.5, "busy": 20, "idle": 0}, 8, 0),  # its own threads wait for each other
        ({"ours": 5, "busy": 15, "idle": 5}, 2, 0),  # there was room
        ({"ours": 0.1, "busy": 0.5, "idle": 0}, 2, 0),  # too short to tell
        ({"ours": 17, "busy": 18.5, "idle": 1.5}, 2, 0),  # not worth a word
    ],
)
def test_others_count_where_they_take_what_this_process_could_use(
    seconds: dict[str, float], threads: int, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert share(tmp_path, monkeypatch, **seconds, threads=threads) == pytest.approx(expected)


def test_a_system_that_counts_nothing_says_nothing(tmp_path: Path) -> None:
    assert OtherPrograms(threads=2, root=tmp_path).share() == 0


def test_processes_that_a_training_started_are_no_others(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ends, other_end = context.Pipe()
    child = context.Process(target=ends.recv, daemon=True)
    child.start()
    try:
        stat = tmp_path / f"proc/{child.pid}/stat"
        stat.parent.mkdir(parents=True)
        counts = ["S", *"1234567890", str(7 * TICKS), str(TICKS), "0"]
        stat.write_text(f"{child.pid} (a (name) of 3) {' '.join(counts)}\n")
        watch = OtherPrograms(threads=2, root=tmp_path)
        counts[11:13] = str(12 * TICKS), str(3 * TICKS)
        stat.write_text(f"{child.pid} (a (name) of 3) {' '.join(counts)}\n")
        assert watch._read().ours - watch.began.ours == pytest.approx(7, abs=0.5)
    finally:
        other_end.send("the end")
        child.join()


def test_real_programs_on_the_same_core_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with busy_programs(3):
            time.sleep(0.5)  # until they have started
            watch = OtherPrograms(threads=1)
            began = time.monotonic()
            while time.monotonic() - began < 1:
                pass
            assert 0.4 < watch.share() <= 1
    finally:
        os.sched_setaffinity(0, before)


def test_what_is_said_and_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert (beside_others(0), advice_beside_others(0)) == ("", "")
    assert beside_others(0.524) == " while other programs take 52% of the CPU, less without them"
    assert advice_beside_others(0.5).startswith("OMP_WAIT_POLICY=PASSIVE in the environment helps")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert not advice_beside_others(0.5)
