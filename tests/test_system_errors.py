"""What the system refuses is said in one line, with path and cause; nothing is lost, and the exit code is 1."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from safetensors.numpy import save_file

from pipeline.core.errors import UserError, system_fault, written_file
from pipeline.core.files import replaced_folder, write_bytes
from stages.exit_codes import errors_end_it
from tests.helpers import ROOT
from workbench.project import default_params

Prepare = Callable[..., Result]


def line_of(error: OSError) -> str:
    """Return the line that a command ends with at ``error``."""
    line = system_fault(error)
    assert line is not None
    assert "\n" not in line
    return line


def test_a_full_disk_is_named_with_what_is_free(tmp_path: Path) -> None:
    target = tmp_path / "student"
    target.mkdir()
    (target / "earlier").write_text("whole")
    with pytest.raises(OSError, match="No space left") as caught, replaced_folder(target):
        Path("/dev/full").write_text("new")  # there every write finds the disk full
    line = line_of(caught.value)
    assert line.startswith(f"{target}: No space left on device; ")
    assert line.endswith(" MiB are free there; free some, or choose another place; then run the same command again")
    assert [path.name for path in target.iterdir()] == ["earlier"]
    assert {path.name for path in tmp_path.iterdir()} == {"student", ".student.lock"}


def test_what_a_library_in_rust_says_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught, written_file(tmp_path / "student"):
        save_file({"images": np.zeros(8)}, tmp_path / "none/weights")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(tmp_path / "student"))
    with pytest.raises(ValueError, match="another"), written_file(tmp_path / "student"):
        raise ValueError("another error")


def test_copies_too_are_named_by_where_they_go(tmp_path: Path) -> None:
    """Copying names both files; the one that is read is not full."""
    error = OSError(errno.ENOSPC, "No space left on device", "/else/body.onnx", None, str(tmp_path / "work/model.onnx"))
    with pytest.raises(OSError, match="No space") as caught, written_file(tmp_path / "onnx", work=tmp_path / "work"):
        raise error
    assert line_of(caught.value).startswith(f"{tmp_path / 'onnx'}: No space left on device; ")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EROFS, "Read-only file system; mount it writable"),
        (errno.EACCES, f"Permission denied; this user (uid {os.geteuid()}) may not"),
        (errno.EDQUOT, "Disk quota exceeded; the quota is used up"),
        (errno.EIO, "Input/output error; the disk or the network storage has a fault"),
        (errno.ENAMETOOLONG, "File name too long"),
    ],
)
def test_each_cause_is_said(code: int, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(self: Path, *_: object) -> None:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "replace", refuse)
    (tmp_path / "a.json").write_text("earlier")
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        write_bytes(tmp_path / "a.json", b"new")
    assert line_of(caught.value).startswith(f"{tmp_path / 'a.json'}: {words}")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]


def test_what_hinders_to_clear_up_does_not_hide_the_cause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a read-only file system even what is not there cannot be removed."""

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    for name in ("open", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(OSError, match="Read-only") as caught:
        write_bytes(tmp_path / "a.json", b"new")
    assert line_of(caught.value).startswith(f"{tmp_path / 'a.json'}: Read-only file system; ")


def test_a_file_system_without_locks(prepare: Prepare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    done = prepare(None, source="digits")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: {tmp_path}/out: No locks available; file locks do not work there (NFS without its lock service?); "
        "choose a place where they do; then run the same command again"
    )


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError) as caught, replaced_folder(tmp_path / "onnx"), tempfile.TemporaryDirectory():
        pass
    line = line_of(caught.value)
    assert line.startswith("this process: No usable temporary directory found in ['")
    assert "; set TMPDIR to a folder that can be written; then run" in line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["stages.prepare_data", "--params", "{params}", "--out", "{folder}/data"], "{folder}/data"),
        (["stages", "preset", "cifar10", "--params", "{params}"], "{params}.bak"),
    ],
)
def test_commands_end_with_one_line_and_lose_nothing(words: list[str], named: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(default_params() + "# mine\n")
    command = [word.format(params=params, folder=tmp_path) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    path = named.format(params=params, folder=tmp_path)
    assert done.stderr.splitlines()[-1] == (
        f"error: {path}: File too large; files may not be so large there; see ulimit -f; "
        "then run the same command again"
    )
    assert params.read_text() == default_params() + "# mine\n"
    assert {path.name for path in tmp_path.iterdir()} <= {"params.yaml", ".data.lock"}


def test_faults_of_the_program_keep_their_traceback() -> None:
    for error in (BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("odd"), OSError(errno.EINVAL, "Invalid")):
        assert system_fault(error) is None


def test_a_line_that_is_too_long_to_read_keeps_its_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_end_it():
        raise UserError("params.yaml: key: got '" + "\u202e" * 10_000 + "', expected a number\nand so on")
    first, second = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert first.startswith("error: params.yaml: key: got '\\u202e")
    assert first.endswith("', expected a number")
    assert len(first) < 1500
    assert second == "error: and so on"


def test_output_that_has_no_room_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-m", "stages", "preset"]
        done = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: /dev/full: No space left on device; ")
    assert done.stderr.count("\n") == 1
