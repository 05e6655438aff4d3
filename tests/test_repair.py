"""What a power cut leaves half-written of DVC's own files: found, said in a line, removed, and made again."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML

from pipeline.core.durable import DURABLE, cache_folder, settle
from pipeline.preflight.repair import repair, repair_cache
from tests.helpers import ROOT

PIPELINE = """\
stages:
  copy:
    cmd: mkdir out && cp a out/a && echo ran >> ran
    deps: [a]
    outs: [out]
"""


def put(root: Path, content: bytes, *, kept: bytes | None = None, suffix: str = "") -> Path:
    """Write an object of DVC's cache as DVC does, of whose ``content`` a power cut left ``kept``."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = root / ".dvc/cache/files/md5" / digest[:2] / (digest[2:] + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if kept is None else kept)
    path.chmod(0o444)
    return path


def test_damaged_objects_go_and_whole_ones_stay(tmp_path: Path) -> None:
    whole, listed = put(tmp_path, b"whole"), put(tmp_path, b"[]", suffix=".dir")
    empty, cut = put(tmp_path, b"empty", kept=b""), put(tmp_path, b"a list", kept=b"a li", suffix=".dir")
    nothing = put(tmp_path, b"")
    assert list(repair_cache(tmp_path)) == [
        f"{tmp_path}/.dvc/cache: 2 damaged objects removed, as a power cut leaves them; what is missing is made again"
    ]
    assert [path.exists() for path in (whole, listed, empty, cut, nothing)] == [True, True, False, False, True]
    assert list(repair_cache(tmp_path)) == []


def test_only_what_came_after_the_last_moment_when_all_was_on_the_disk_is_read(tmp_path: Path) -> None:
    before = put(tmp_path, b"before", kept=b"damaged by hand")
    settle(tmp_path)
    later = (tmp_path / DURABLE).stat().st_mtime + 60
    os.utime(tmp_path / DURABLE, (later, later))
    assert list(repair_cache(tmp_path)) == []
    (tmp_path / DURABLE).unlink()
    assert len(list(repair_cache(tmp_path))) == 1
    assert not before.exists()


def test_abandoned_temporary_files_go(tmp_path: Path) -> None:
    folder = put(tmp_path, b"whole").parent
    (folder / ".new.tmp").touch()
    (folder / ".old.tmp").touch()
    os.utime(folder / ".old.tmp", (0, 0))
    assert list(repair_cache(tmp_path)) == []
    assert {path.name for path in folder.glob(".*")} == {".new.tmp"}


@pytest.mark.parametrize("name", ["config", "config.local"])
def test_the_cache_is_where_the_configuration_says(name: str, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n['remote \"a%b\"']\n    url = x\n")
    assert cache_folder(tmp_path) == tmp_path / ".dvc/cache"
    with (tmp_path / ".dvc" / name).open("a") as file:
        file.write(f"[cache]\n    dir = {tmp_path}/shared\n")
    assert cache_folder(tmp_path) == tmp_path / "shared"


@pytest.mark.parametrize("content", [b"", b'{"write": {"a', b"[]", b'{"read": {"a": [{}]}}'])
def test_a_list_of_readers_and_writers_that_nobody_can_read_goes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert list(repair(tmp_path)) == [f"{path}: was half-written, removed"]
    assert not path.exists()


def test_processes_with_the_number_of_an_earlier_dvc_hold_no_lock(tmp_path: Path) -> None:
    path = tmp_path / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", "print(); input()", "dvc"], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        other = {"pid": 1, "cmd": "dvc repro"}
        running = {"pid": process.pid, "cmd": "dvc repro"}
        path.write_text(json.dumps({"read": {"/a": [running, other], "/b": [other]}, "write": {"/c": other}}))
        assert list(repair(tmp_path)) == []
        assert json.loads(path.read_text()) == {"read": {"/a": [running]}, "write": {}}
        process.communicate()


def test_of_a_lock_any_beginning_is_whole_or_goes(tmp_path: Path) -> None:
    """What stays has no entry that DVC's own schema refuses."""
    whole = (ROOT / "dvc.lock").read_bytes()
    path, kept = tmp_path / "dvc.lock", 0
    for length in (0, 1, 10, 30, *range(60, 1500, 7), len(whole)):
        path.write_bytes(whole[:length])
        said = list(repair(tmp_path))
        assert bool(said) != path.exists()
        if path.exists():
            COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(path))
            kept += 1
    assert 1 <= kept < 200


@pytest.mark.slow
def test_after_a_power_cut_dvc_goes_on(tmp_path: Path) -> None:
    """As on ext4 right after the end of ``dvc repro``: names are there, what DVC wrote is empty."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    variables |= {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}

    def call(*words: str, expect: int = 0) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    call("dvc", "init", "--no-scm", "--quiet")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "a").write_text("content")
    call("dvc", "repro")
    whole = (tmp_path / "dvc.lock").read_text()
    for damaged in (*(tmp_path / ".dvc/cache").rglob("*"), tmp_path / "out/a", tmp_path / ".dvc/tmp/rwlock"):
        if damaged.is_file():
            damaged.chmod(0o644)
            damaged.write_bytes(b"")
            damaged.chmod(0o444 if "md5" in damaged.parts else 0o644)
    (tmp_path / "dvc.lock").write_text(whole[: whole.index("outs:") + 5])
    call("dvc", "repro", expect=255)
    said = call(sys.executable, "-m", "stages", "repair").splitlines()
    assert len(said) == 3
    assert all(line.startswith("repaired: ") for line in said)
    call("dvc", "repro")
    assert (tmp_path / "out/a").read_text() == "content"
    assert (tmp_path / "dvc.lock").read_text() == whole
    assert call(sys.executable, "-m", "stages", "settle") == ""
    assert call(sys.executable, "-m", "stages", "repair") == ""
    assert (tmp_path / "ran").read_text() == "ran\nran\n"
