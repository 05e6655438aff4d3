"""Files are whole or absent, also when the process is killed while it writes."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.errors import BusyError, UserError
from pipeline.core.files import (
    clear_leftovers,
    read_csv,
    read_json,
    replaced_folder,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)
from tests.helpers import ROOT

WRITER = """
import sys, time
from pathlib import Path
from pipeline.core.files import replaced_folder
with replaced_folder(Path(sys.argv[1])) as folder:
    (folder / "weights").write_text("half")
    print("writing", flush=True)
    time.sleep(600)  # until it is killed
"""


def test_a_killed_writer_leaves_the_earlier_folder(tmp_path: Path) -> None:
    target = tmp_path / "student"
    target.mkdir()
    (target / "weights").write_text("whole")
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (target / "weights").read_text() == "whole"
    with replaced_folder(target) as folder:
        (folder / "weights").write_text("new")
    assert (target / "weights").read_text() == "new"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"student", ".student.lock"}, "the leftover goes with the next run"


def test_a_folder_appears_only_when_it_is_done(tmp_path: Path) -> None:
    target = tmp_path / "deep/out"
    with replaced_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    with pytest.raises(RuntimeError, match="broken"), replaced_folder(target) as folder:
        raise RuntimeError("broken")
    assert (target / "a").read_text() == "1"
    assert {path.name for path in target.parent.iterdir()} == {"out", ".out.lock"}


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": [1.5, None, "é"]})
    before = path.read_bytes()
    assert before.decode().splitlines()[1].strip().startswith('"a"')
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError):
        write_bytes(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_what_is_no_plain_file_is_not_replaced(tmp_path: Path) -> None:
    """A file would come in the place of a device: whoever writes to /dev/null as root would lose it."""
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UserError, match=r"pipe.json: is no plain file; give another path"):
        write_json(tmp_path / "pipe.json", {})
    assert stat.S_ISFIFO((tmp_path / "pipe.json").stat().st_mode)


def test_a_carriage_return_breaks_no_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["file", "share"], [{"file": "a\rb.png", "share": 0.5}])
    assert read_csv(tmp_path / "a.csv") == [{"file": "a\\rb.png", "share": "0.5"}]


def test_csv_quotes_what_needs_it(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("name", "value"), [{"name": 'a,"b"', "value": 0.1 + 0.2}])
    assert (tmp_path / "a.csv").read_text() == 'name,value\n"a,""b""",0.3\n'


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such file"), (b"{", "not valid JSON"), (b"[]", "holds a JSON list")]
)
def test_bad_json_is_named(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"report.json: {words}"):
        read_json(path)


def test_importing_the_pipeline_sets_up_no_logging() -> None:
    code = "import logging, pipeline.training.loop, stages.train_teacher; assert not logging.getLogger().handlers"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


KILLED_AFTER = """
import os, pathlib, sys
from pipeline.core.files import replaced_folder
rename, left = pathlib.Path.rename, [int(sys.argv[2])]
def stop_after(self, target):
    rename(self, target)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), 9)
pathlib.Path.rename = stop_after
with replaced_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "weights").write_text("new")
"""


@pytest.mark.parametrize(("renames", "kept"), [(1, "old"), (2, "new")])
def test_a_kill_between_the_renames_loses_neither_folder(renames: int, kept: str, tmp_path: Path) -> None:
    target = tmp_path / "student"
    target.mkdir()
    (target / "weights").write_text("old")
    command = [sys.executable, "-c", KILLED_AFTER, str(target), str(renames)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert target.exists() == (renames == 2)
    with pytest.raises(RuntimeError, match="next run"), replaced_folder(target):
        raise RuntimeError("next run")
    assert (target / "weights").read_text() == kept
    assert {path.name for path in tmp_path.iterdir()} == {"student", ".student.lock"}


def test_a_failed_rename_loses_neither_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "student"
    with replaced_folder(target) as folder:
        (folder / "weights").write_text("old")
    rename = Path.rename

    def fail_at_the_second(self: Path, to: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt), replaced_folder(target) as folder:
        (folder / "weights").write_text("new")
    assert (target / "weights").read_text() == "old"


def test_a_folder_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def note_sync(handle: int) -> None:
        events.append(("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        fsync(handle)

    def note_rename(self: Path, to: Path) -> Path:
        events.append(("rename", str(self)))
        return rename(self, to)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    with replaced_folder(tmp_path / "new/out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub/a").write_text("by whatever library")
        write_text(folder / "sub/b", "by this project")
        assert [event for event in events if event[0] == "sync"] == [("sync", str(tmp_path))], "each but once"
    work = tmp_path / "new/.out.partial"
    moment = events.index(("rename", str(work)))
    assert {("sync", str(work / name)) for name in ("", "sub", "sub/a", "sub/b")} <= set(events[:moment])
    assert ("sync", str(tmp_path)) in events[:moment], "its parent is new as well"
    assert events[moment + 1 :] == [("sync", str(work.parent))]
    events.clear()
    write_text(tmp_path / "a.json", "{}")
    assert [path for _, path in events][-1] == str(tmp_path)
    assert len(events) == 2


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664)])
def test_files_of_any_library_keep_to_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    earlier = os.umask(umask)
    try:
        (tmp_path / "another's").write_text("")
        (tmp_path / "another's").chmod(0o444)
        with replaced_folder(tmp_path / "out") as folder:
            (folder / "weights").write_text("")
            (folder / "weights").chmod(0o644)
            (folder / "linked").hardlink_to(tmp_path / "another's")
            write_text(folder / "a.json", "{}")
    finally:
        os.umask(earlier)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {"weights": mode, "linked": 0o444, "a.json": mode}


def test_leftovers_of_an_output_that_is_not_written_again_go(tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial/half").touch()
    (tmp_path / ".report.json.partial-0a").touch()
    with replaced_folder(tmp_path / "busy") as folder:
        for name in ("out", "report.json", "busy", "nothing"):
            clear_leftovers(tmp_path / name)
        assert {path.name for path in tmp_path.iterdir()} == {".out.lock", ".busy.lock", folder.name}


def test_what_a_killed_writer_left_goes_and_what_a_live_one_writes_stays(tmp_path: Path) -> None:
    code = (
        "import os, sys, time, pipeline.core.files as files\n"
        "def stop(handle):\n    print('writing', flush=True)\n    time.sleep(600)\n"
        "os.fsync = stop\n"
        "files.write_bytes(files.Path(sys.argv[1]), b'half')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.json")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        write_text(tmp_path / "a.json", "{}")
        assert len(list(tmp_path.iterdir())) == 2, "another process is at it"
        process.kill()
        process.wait()
    write_text(tmp_path / "a.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_two_runs_do_not_write_the_same_folder(tmp_path: Path) -> None:
    with replaced_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("first")
        with pytest.raises(BusyError, match="another run is still writing it"), replaced_folder(tmp_path / "out"):
            pass
    assert (tmp_path / "out/a").read_text() == "first"
