"""What a terminal shows: help in sections, what the host can do, colours only where they are seen."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.core.host import Gpu
from pipeline.core.processes import memory_limit
from pipeline.preflight import doctor
from pipeline.preflight.doctor import Finding, examine
from stages.__main__ import SECTIONS, main
from tests.helpers import ROOT, image_bytes, said_on_a_terminal

GIB = 2**30
CPUINFO = "model name\t: A processor\nflags\t\t: fpu {flags}\n"


def host(root: Path, *, flags: str = "", memory: int = 16 * GIB) -> Path:
    """Write what a Linux host says of itself into ``root``."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(CPUINFO.format(flags=flags))
    kib = memory // 1024
    (root / "proc/meminfo").write_text(f"MemTotal: {kib} kB\nMemFree: 5 kB\nMemAvailable: {kib // 2} kB\n")
    return root


def found(root: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(Path(), root)}


def test_help_lists_every_command_once_under_a_title() -> None:
    said = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    listed = re.findall(r"^  ([a-z][a-z-]*) {2,}\S", said, re.MULTILINE)
    assert sorted(set(listed)) == sorted(main.commands)
    assert all(listed.count(name) == 1 for name in main.commands)
    assert all(f"{title}:" in said for title in SECTIONS)
    assert "..." not in said.partition("Options:")[2]


@pytest.mark.parametrize(("flags", "words"), [("avx512_vnni", "VNNI"), ("amx_int8", "AMX"), ("avx2", "no inst")])
def test_the_instructions_that_decide_about_int8_are_named(flags: str, words: str, tmp_path: Path) -> None:
    finding = found(host(tmp_path, flags=flags))["INT8 on the CPU"]
    assert words in finding.found
    assert bool(finding.advice) == words.startswith("no ")


@pytest.mark.parametrize("version", [1, 2])
def test_the_memory_that_a_container_leaves_counts(version: int, tmp_path: Path) -> None:
    root = host(tmp_path)
    assert memory_limit(root) is None
    line, group = (
        ("0::/a/b\n", root / "sys/fs/cgroup/a") if version == 2 else ("5:memory:/b\n", root / "sys/fs/cgroup/memory/b")
    )
    (root / "proc/self/cgroup").write_text(line)
    group.mkdir(parents=True)
    file = group / ("memory.max" if version == 2 else "memory.limit_in_bytes")
    file.write_text("max\n" if version == 2 else f"{2**63 - 4096}\n")
    assert memory_limit(root) is None
    file.write_text(f"{2 * GIB}\n")
    assert memory_limit(root) == 2 * GIB
    finding = found(root)["memory"]
    assert "a container's limit leaves 2.0 GiB" in finding.found
    assert "batch sizes" in finding.advice


def test_few_labels_stand_on_a_line_and_more_on_lines_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(image_bytes())
    words = ["predict", "--package", str(ROOT / "tests/packages/v0_1"), str(picture)]

    def piped(*more: str) -> str:
        return CliRunner().invoke(main, [*words, *more]).stdout

    few, many = (said_on_a_terminal(monkeypatch, *words, *more) for more in ((), ("--top", "5")))
    assert few == piped()
    assert re.fullmatch(rf"{picture}: (\d \d+\.\d\d%(, |\n)){{3}}", few)
    assert re.fullmatch(rf"{picture}:\n(  \d  [ \d]{{1,3}}\.\d\d%\n){{5}}", many)
    assert len({len(line) for line in many.splitlines()[1:]}) == 1, "they are aligned"
    in_a_pipe = piped("--top", "5")
    assert in_a_pipe.count("\n") == 1
    shown, printed = (re.findall(r"(\d) +(\d+\.\d\d%)", text) for text in (many, in_a_pipe))
    assert shown == printed, "the same, the surest first"


def test_the_doctor_says_what_there_is_and_ends_well() -> None:
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0, done.output
    assert all(len(line) <= 100 for line in done.output.splitlines())
    assert {"Python", "CPU", "memory", "disk", "GPU", "TensorRT", "ONNX Runtime", "PyTorch"} <= {
        line.split("  ")[0] for line in done.output.splitlines()
    }
    listed = [json.loads(line) for line in CliRunner().invoke(main, ["doctor", "--json"]).output.splitlines()]
    assert [entry["subject"] for entry in listed] == [finding.subject for finding in examine(Path())]


def test_what_the_driver_does_not_tell_of_a_gpu_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu, cuda, words in (
        (Gpu("Orin", "8.7", None), None, "Orin, memory of the host, compute capability 8.7"),
        (Gpu("H", "9.0", 80 * GIB), "13.1", "H, 80.0 GiB, compute capability 9.0, driver for CUDA 13.1"),
    ):
        monkeypatch.setattr(doctor, "list_gpus", lambda gpu=gpu, cuda=cuda: ([gpu], cuda))
        assert [finding.found for finding in doctor._gpus()] == [words]


def test_without_the_package_that_asks_the_driver_the_rest_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0, done.output
    assert re.search(r"^GPU +not looked for\n +-> .*pip install nvidia-ml-py", done.output, re.MULTILINE)
    assert re.search("^ONNX Runtime", done.output, re.MULTILINE)


def test_what_a_run_cannot_do_without_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 1
    assert re.search(r"^git +not found\n +-> .*install git$", done.output, re.MULTILINE)


def test_colours_are_for_terminals_and_for_who_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["preset", "no such preset"]
    assert "\x1b[31merror" in CliRunner().invoke(main, words, color=True).output
    assert "\x1b" not in CliRunner().invoke(main, words).output
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in CliRunner().invoke(main, words, color=True).output
