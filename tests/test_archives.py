"""Archives of images: read like folders, and refused where they are damaged or reach outside."""

import gzip
import io
import os
import random
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from pipeline.core.errors import UserError
from pipeline.core.scratch import own_place, scratch_folder
from pipeline.data.sources.archive import opened_folder
from tests.helpers import ROOT, SPLIT_LAYOUT, fill_folder, image_bytes, make_archive, refused

Prepare = Callable[..., Result]


@pytest.mark.parametrize(
    "kind", ["folder", "zip", "ZIP", "tar", "tar.gz", "TAR.GZ", "tar.bz2", "tar.xz", "nested.tar.gz"]
)
def test_a_folder_and_its_archives_give_the_same_bytes(kind: str, prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    expected = tmp_path / "expected"
    assert prepare(images).exit_code == 0
    (tmp_path / "out").rename(expected)
    assert prepare(images if kind == "folder" else make_archive(images, kind)).exit_code == 0
    for name in ("train", "calib", "test"):
        file = f"{name}.safetensors"
        assert (tmp_path / "out" / file).read_bytes() == (expected / file).read_bytes()


def test_an_image_in_an_archive_is_named_below_the_archive(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    (images / "train/cat/004.png").write_bytes(b"?")
    refused(prepare(make_archive(images, "tar.gz")), "images.tar.gz/train/cat/004.png")


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "train/../../evil.png", "C:\\evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_that_reach_outside_are_refused(name: str, kind: str, prepare: Prepare, tmp_path: Path) -> None:
    path = tmp_path / f"evil.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, image_bytes())
    else:
        with tarfile.open(path, "w") as tar:
            member = tarfile.TarInfo(name)
            member.size = len(image_bytes())
            tar.addfile(member, io.BytesIO(image_bytes()))
    refused(prepare(path), f"evil.{kind}", "outside the target directory")
    assert not list(tmp_path.rglob("evil.png"))


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz"])
def test_the_first_python_of_the_oldest_series_unpacks(
    suffix: str, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Python 3.11.0 to 3.11.3 have no filters of members, but where a distribution has brought them there."""
    for name in ("data_filter", "tar_filter", "fully_trusted_filter"):
        monkeypatch.delattr(tarfile, name, raising=False)
    for name in ("extract", "extractall"):
        monkeypatch.delattr(tarfile.TarFile, name)
    assert prepare(make_archive(fill_folder(tmp_path / "images", SPLIT_LAYOUT), suffix)).exit_code == 0


def test_what_is_unpacked_has_the_rights_of_this_user_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("cat/a.png")
        member.size, member.mode, member.uid = len(image_bytes()), 0o6777, 4321
        archive.addfile(member, io.BytesIO(image_bytes()))
    with opened_folder(path) as folder:
        facts = (folder / "cat/a.png").stat()
        assert (stat.S_IMODE(facts.st_mode) & ~0o666, facts.st_uid) == (0, os.getuid())
        assert (folder / "cat/a.png").read_bytes() == image_bytes()


def test_links_in_archives_are_refused(prepare: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("train/cat/a.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    refused(prepare(path), "train/cat/a.png", "link or a device")


def test_links_and_passwords_in_zip_archives_are_refused(prepare: Prepare, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        item = zipfile.ZipInfo("train/cat/a.png")
        item.external_attr = 0o120777 << 16
        archive.writestr(item, "/etc/passwd")
    refused(prepare(tmp_path / "links.zip"), "train/cat/a.png", "link or a device")
    path = make_archive(fill_folder(tmp_path / "images", SPLIT_LAYOUT), "zip")
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # set the bit that says: encrypted
        start = content.find(signature)
        while start >= 0:
            content[start + offset] |= 1
            start = content.find(signature, start + 1)
    path.write_bytes(content)
    refused(prepare(path), "images.zip", "cannot be unpacked", "encrypted")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_a_truncated_archive_is_refused(kind: str, prepare: Prepare, tmp_path: Path) -> None:
    path = make_archive(fill_folder(tmp_path / "images", SPLIT_LAYOUT), kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(prepare(path), path.name, "cannot be unpacked")


def test_backslashes_divide_the_names_of_windows(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    path = tmp_path / "windows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(images.rglob("*")):
            item = zipfile.ZipInfo(f"scenes\\{str(file.relative_to(images)).replace('/', chr(92))}")
            item.create_system = 0
            if file.is_dir():  # some end in a backslash, others have an attribute
                item.filename += "\\" if file.parent == images else ""
                item.external_attr = 0 if file.parent == images else 0x10
            archive.writestr(item, b"" if file.is_dir() else file.read_bytes())
    assert prepare(path).exit_code == 0
    assert not list(tmp_path.glob(".cache/unpacked/unpacked*"))


def test_a_member_without_a_name_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "nameless.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/a.png", image_bytes())
        archive.writestr("x", image_bytes())
    content = bytearray(path.read_bytes())
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 28] = 0  # the length of its name
    del content[entry + 46]
    content[-10] -= 1  # the size of the directory
    path.write_bytes(content)
    refused(prepare(path), "nameless.zip", "member no. 2 has no name")


def tar_of(*headers: tarfile.TarInfo) -> bytes:
    return b"".join(
        header.tobuf(tarfile.GNU_FORMAT) + bytes(-(-header.size // 512) * 512) for header in headers[:-1]
    ) + (headers[-1].tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def tar_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.type = size, kind
    return header


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [2**40, 2**62, -512])
@pytest.mark.parametrize("packed", ["plain", "gz"])
def test_what_a_tar_header_announces_takes_no_memory(kind: bytes, size: int, packed: str, tmp_path: Path) -> None:
    content = tar_of(tar_header("cat/a.png", 0), tar_header("x", size, kind))
    path = tmp_path / f"a.tar{'' if packed == 'plain' else '.gz'}"
    path.write_bytes(content if packed == "plain" else gzip.compress(content))
    with pytest.raises(UserError, match=rf"cannot be unpacked \(a header in it says that {size} bytes follow"):
        opened_folder(path).__enter__()


def test_a_member_larger_than_the_disk_is_refused_at_its_header(tmp_path: Path) -> None:
    """What follows, as much as it says, would have to be unpacked to find the next one."""
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_of(tar_header("cat/a.png", 0), tar_header("cat/b.png", 2**60)) + bytes(2**20)))
    with pytest.raises(UserError, match=r"unpacks to 1073741824.0 GiB or more, .* GiB are free in"):
        opened_folder(path).__enter__()


def test_more_members_than_the_disk_takes_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    facts = {name: getattr(free, name) for name in ("f_bavail", "f_frsize")}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**facts, f_favail=3))
    path = make_archive(fill_folder(tmp_path / "images", {"cat": 2, "dog": 2}), "tar")
    with pytest.raises(UserError, match=r"has 4 members or more, 3 more files can be in"):
        opened_folder(path).__enter__()


def test_a_damaged_header_is_no_end_of_an_archive(tmp_path: Path) -> None:
    content = bytearray(tar_of(tar_header("cat/a.png", 512), tar_header("cat/b.png", 512), tar_header("cat/c.png", 0)))
    content[1024] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be unpacked \(a header in it, at byte 1024, is damaged\)"):
        opened_folder(tmp_path / "a.tar").__enter__()
    content[1024] ^= 1
    (tmp_path / "a.tar").write_bytes(content.rstrip(b"\0").ljust(2560, b"\0"))  # without an end, as some programs write
    with opened_folder(tmp_path / "a.tar") as folder:
        assert sorted(path.name for path in (folder / "cat").iterdir()) == ["a.png", "b.png", "c.png"]


def test_other_archives_are_refused_with_what_is_read(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "images.rar").write_bytes(b"Rar!")
    refused(
        prepare(tmp_path / "images.rar"), "images.rar: neither a directory nor an archive (.tar, .tar.gz", "unpack it"
    )


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_mutated_archives_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"cat": 2, "dog": 1})
    content = make_archive(images, kind).read_bytes()
    chance, path = random.Random(0), tmp_path / f"mutated.{kind}"  # noqa: S311  (no secret)
    refusals: list[str] = []
    for _ in range(150):
        mutated = bytearray(content)
        start = max(0, content.find(b"PK\x01\x02")) if chance.random() < 0.7 else 0  # where a zip says what it holds
        for _ in range(chance.choice((1, 2, 8))):
            mutated[chance.randrange(start, len(mutated))] = chance.choice((0, 1, 47, 92, 128, 255))
        path.write_bytes(mutated[: len(mutated) if chance.random() < 0.9 else chance.randrange(len(mutated))])
        try:
            with opened_folder(path) as folder:
                assert all(file.is_relative_to(folder) for file in folder.rglob("*"))
        except UserError as error:
            refusals.append(str(error))
    assert 0 < len(refusals) < 150
    assert all(text.isprintable() for text in refusals)
    assert not list(tmp_path.glob(".cache/unpacked/unpacked*"))


UNPACK = """
import sys, time
from pathlib import Path
from pipeline.data.sources.archive import opened_folder
with opened_folder(Path(sys.argv[1])):
    print("unpacked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP"])
def test_what_a_killed_run_unpacked_goes_with_the_next_one(name: str, tmp_path: Path) -> None:
    archive = make_archive(fill_folder(tmp_path / "images", {"cat": 2, "dog": 2}), "zip")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(tmp_path)}
    command = [sys.executable, "-c", UNPACK, str(archive)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "unpacked\n"
        (kept,) = tmp_path.glob(".cache/unpacked/unpacked*")
        with opened_folder(archive):
            assert kept.is_dir()  # it is still in use
        process.send_signal(signal.Signals[name])
    with opened_folder(archive) as folder:
        assert list(tmp_path.glob(".cache/unpacked/unpacked*")) == [folder]
    assert [path.name for path in (tmp_path / ".cache/unpacked").iterdir()] == [".lock"]


def test_a_place_outside_of_projects_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = own_place()
    assert (place.parent, own_place()) == (tmp_path, place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    place.rmdir()
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to("elsewhere")
    with pytest.raises(PermissionError, match=place.name):
        own_place()


def test_scratch_folders_of_many_runs_at_once_stay(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "place") as one, scratch_folder(tmp_path / "place") as other:
        assert one != other
        assert one.is_dir()
        assert other.is_dir()
    assert [path.name for path in (tmp_path / "place").iterdir()] == [".lock"]


def test_a_file_that_is_no_archive_is_told_in_words(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "page.tar.gz").write_text("<html>not found</html>")
    refused(prepare(tmp_path / "page.tar.gz"), "it is neither a zip nor a tar file, or is cut off")
