"""Hostile archives of images: nothing is written outside the folder that they are unpacked to, and nothing stays.

Each case is a zip or tar archive, as people make them, with damaged bytes, lies about its members, or members that
nobody should have. It is opened and its images are listed and read as prepare_data does.
"""

import contextlib
import functools
import io
import os
import random
import stat
import struct
import tarfile
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from PIL import Image

from attacks.campaign import Attack, Outcome
from attacks.damage import DAMAGES, flip_bits, number
from attacks.memory import peak_from_here
from pipeline.core.errors import UserError
from pipeline.data.reading import Fit, read_images
from pipeline.data.sources.archive import opened_folder
from pipeline.data.sources.image_tree import read_tree

LARGEST = 300
"""MiB by which the process may grow."""
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
TAR_KINDS = (("", ".tar"), ("gz", ".tar.gz"), ("gz", ".tgz"), ("bz2", ".tar.bz2"), ("xz", ".tar.xz"))
CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
OUTSIDE = "/fmkt-attack-out.png"
ODD_NAMES = (
    *(
        "../out.png",
        "a/../../out.png",
        OUTSIDE,
        "//out.png",
        "C:\\out.png",
        "..\\out.png",
        "a\\..\\..\\out",
    ),
    *("", ".", "/", "..", "./", "a//b.png", "a/./b.png", " ", "a\0b.png", "a\nb.png", "a\x1b[2Jb.png", "a\x7fb.png"),
    *("café.png", "cafe\u0301.png", "\u202egnp.a", "a" * 255 + ".png", "a" * 5000, "a/" * 150 + "b.png", "a/" * 1500),
    *("cat", "cat/", "cat/a.png", "CAT/A.PNG", "-rf", "~", "$HOME/x.png", "%2e%2e/x.png", "con", "nul.png", ".lock"),
    *("\udce9.png", "\udcff\udcfe/a.png", "a:b.png", "a\u2028b.png"),
)
TAR_TYPES = (
    *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE),
    *(b"V", b"S", b"L", b"K", b"x", b"g", b"X", b"D", b"M", b"N", b"Z", b"\xff"),
)
TARGETS = ("/etc/passwd", "../../outside", "cat/a.png", ".", "/", "..", "cat", "dog/self.png", "")

Files = dict[str, bytes]
Made = tuple[bytes, str]
"""An archive, and the suffix of its name."""


@functools.cache
def _image(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (colour, 90, 20)).save(buffer, "PNG")
    return buffer.getvalue()


def good() -> Files:
    """Return what a good archive holds."""
    return {name: _image(40 * i) for i, name in enumerate(("cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"))}


def zipped(files: Files, rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            with archive.open(_zip_info(name, rng.choice(COMPRESSIONS)), "w", force_zip64=rng.random() < 0.2) as file:
                file.write(content)
    return buffer.getvalue()


def _zip_info(name: str, compression: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    item = zipfile.ZipInfo("x")
    item.filename = item.orig_filename = name
    item.compress_type = compression
    return item


def tarred(members: list[tuple[tarfile.TarInfo, bytes]], mode: str, rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    form = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    options: Any = {"preset": 0} if mode == "xz" else {"compresslevel": 1} if mode else {}
    with tarfile.open(fileobj=buffer, mode=f"w:{mode}", format=form, errors="surrogateescape", **options) as archive:  # type: ignore[call-overload]
        for info, content in members:
            with contextlib.suppress(ValueError, UnicodeError):  # what this form cannot say
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _member(name: str, content: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def good_archive(rng: random.Random) -> Made:
    if rng.random() < 0.5:
        return zipped(good(), rng), ".zip"
    mode, suffix = rng.choice(TAR_KINDS)
    return tarred([_member(*each) for each in good().items()], mode, rng), suffix


def damaged(rng: random.Random) -> Made:
    data, suffix = good_archive(rng)
    return rng.choice(list(DAMAGES.values()))(data, rng), suffix


def damaged_tar_heads(rng: random.Random) -> Made:
    """Change the headers of a tar archive that then has the right sums."""
    data = bytearray(tarred([_member(*each) for each in good().items()], "", rng))
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(len(good())) * 1024
        start, length = rng.choice(((0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8)))
        new = rng.choice((rng.randbytes(length), b"\0" * length, b"7" * length, b"\xff" * length, b"\x80" + bytes(11)))
        data[at + start : at + start + length] = new[:length].ljust(length, b"\0")
        head = bytes(data[at : at + 148]) + b" " * 8 + bytes(data[at + 156 : at + 512])
        data[at + 148 : at + 156] = f"{sum(head):06o}\0 ".encode()
    return bytes(data), ".tar"


def damaged_directory(rng: random.Random) -> Made:
    """Lie where a zip archive says what it holds, and where."""
    data = zipped(good(), rng)
    start = data.find(CENTRAL)
    directory = data[start:]
    for _ in range(rng.choice((1, 2, 6))):
        directory = number(directory, rng) if rng.random() < 0.6 else flip_bits(directory, rng)
    return data[:start] + directory, ".zip"


ZIP_FIELDS = {
    8: "<H",
    10: "<H",
    16: "<I",
    20: "<I",
    24: "<I",
    28: "<H",
    30: "<H",
    32: "<H",
    34: "<H",
    38: "<I",
    42: "<I",
}
"""Places and forms in an entry of the directory: flags, method, sum, sizes, lengths, disk, attributes, offset."""


def lying_zip(rng: random.Random) -> Made:
    """Write an edge of what is possible into one field of the directory, the end record or a local header."""
    data = bytearray(zipped(good(), rng))
    signature, fields = rng.choice(
        (
            (CENTRAL, ZIP_FIELDS),
            (CENTRAL, ZIP_FIELDS),
            (LOCAL, {6: "<H", 8: "<H", 14: "<I", 18: "<I", 22: "<I", 26: "<H", 28: "<H"}),
            (END, {4: "<H", 6: "<H", 8: "<H", 10: "<H", 12: "<I", 16: "<I", 20: "<H"}),
        )
    )
    at = data.find(signature)
    for _ in range(rng.randrange(4)):
        at = max(at, data.find(signature, at + 1))
    for place in rng.sample(list(fields), rng.choice((1, 1, 2))):
        most = 2 ** (8 * struct.calcsize(fields[place])) - 1
        old = struct.unpack_from(fields[place], data, at + place)[0]
        value = rng.choice(
            (0, 1, most, most // 2, rng.randrange(most), min(old + 1, most), max(old - 1, 0), 12, 14, 99)
        )
        struct.pack_into(fields[place], data, at + place, value)
    return bytes(data), ".zip"


def odd_names(rng: random.Random) -> Made:
    """Give members names that lead elsewhere, that no system has, or that others have."""
    names = [rng.choice(ODD_NAMES) for _ in range(rng.choice((1, 1, 3)))]
    if rng.random() < 0.5:
        mode, suffix = rng.choice(TAR_KINDS)
        members = [_member(name, _image(7)) for name in names] + [_member(*each) for each in good().items()]
        for info, _ in members:
            if rng.random() < 0.2:
                info.type = tarfile.DIRTYPE
        return tarred(members, mode, rng), suffix
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in [*good().items(), *((name, _image(7)) for name in names)]:
            archive.writestr(_zip_info("x" * len(name.encode("utf-8", "surrogateescape"))), content)
    data = buffer.getvalue()
    for name in names:
        new = name.encode("utf-8", "surrogateescape")
        data = data.replace(b"x" * len(new), new, 2) if new else data
    return data, ".zip"


def links_and_devices(rng: random.Random) -> Made:
    """Add members that are no files, and files that would be written through them."""
    name, target = rng.choice(("dog/self.png", "cat", "link", "a.png")), rng.choice(TARGETS)
    if rng.random() < 0.6:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = rng.choice(TAR_TYPES), target
        info.devmajor, info.devminor = 1, rng.choice((3, 5, 9))
        through = _member(f"{name}/through.png", _image(9))
        others = [_member(*each) for each in good().items()]
        at = rng.randrange(len(others))
        mode, suffix = rng.choice(TAR_KINDS)
        return tarred([*others[:at], (info, b""), through, *others[at:]], mode, rng), suffix
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        item = _zip_info(name)
        kind = rng.choice((stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFDIR))
        item.external_attr = (kind | 0o777) << 16 | rng.choice((0, 0x10))
        archive.writestr(item, target)
        archive.writestr(_zip_info(f"{name}/through.png"), _image(9))
        for each, content in good().items():
            archive.writestr(_zip_info(each), content)
    return buffer.getvalue(), ".zip"


def endless_member(rng: random.Random) -> Made:
    """Say that a member is larger than any disk, and go on for a while."""
    info, _ = _member("cat/a.png")
    info.size = rng.choice((2**40, 2**50, 2**62))
    mode, suffix = rng.choice(TAR_KINDS[1:])
    return _packed(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**24), mode), suffix


def large_zip_members(rng: random.Random) -> Made:
    return _every_entry(zipped(good(), rng), 24, 2**32 - 2), ".zip"


def members_over_each_other(rng: random.Random) -> Made:
    return _every_entry(zipped(good(), rng), 42, 0), ".zip"


def _every_entry(data: bytes, place: int, value: int) -> bytes:
    """Return a zip file with ``value`` at a ``place`` of all entries of its directory."""
    changed = bytearray(data)
    at = changed.find(CENTRAL)
    while at >= 0:
        struct.pack_into("<I", changed, at + place, value)
        at = changed.find(CENTRAL, at + 1)
    return bytes(changed)


def small_zip_member(_: random.Random) -> Made:
    """Say that a member is small, which it is not."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/a.png", bytes(2**25))
    data = bytearray(buffer.getvalue())
    struct.pack_into("<I", data, data.find(CENTRAL) + 24, 100)
    struct.pack_into("<I", data, data.find(LOCAL) + 22, 100)
    return bytes(data), ".zip"


def many_members(rng: random.Random) -> Made:
    mode, suffix = rng.choice(TAR_KINDS[1:])
    heads = b"".join(_member(f"{i % 7}/{i}")[0].tobuf() for i in range(3000))
    return _packed(heads + bytes(1024), mode), suffix


def archive_in_archive(rng: random.Random) -> Made:
    inner = zipped(good(), rng)
    for _ in range(8):
        inner = zipped({"cat/a.zip": inner}, rng)
    return inner, ".zip"


def endless_note(rng: random.Random) -> Made:
    """Announce a name, or a word about members, of gigabytes."""
    info, _ = _member("././@LongLink")
    info.type, info.size = rng.choice((b"L", b"K", b"x", b"g")), rng.choice((2**26, 2**33, 2**62))
    mode, suffix = rng.choice(TAR_KINDS)
    return _packed(info.tobuf(tarfile.GNU_FORMAT) + b"a" * 2**20, mode), suffix


BOMBS: tuple[Callable[[random.Random], Made], ...] = (
    *(endless_member, endless_note, many_members, large_zip_members, small_zip_member),
    *(members_over_each_other, archive_in_archive),
)


def bombs(rng: random.Random) -> Made:
    """Unpack to far more than anybody has, or in far more pieces, or say so."""
    return rng.choice(BOMBS)(rng)


def _packed(data: bytes, mode: str) -> bytes:
    if not mode:
        return data
    buffer = io.BytesIO()
    module = __import__({"gz": "gzip", "bz2": "bz2", "xz": "lzma"}[mode])
    options = {"preset": 0} if mode == "xz" else {"compresslevel": 1}
    opener: Callable[..., IO[bytes]] = module.open
    with opener(buffer, "wb", **options) as file:
        file.write(data)
    return buffer.getvalue()


def other_names(rng: random.Random) -> Made:
    """Call an archive what it is not, or give something else its name."""
    data, _ = good_archive(rng)
    others = (b"", b"PK", b"PK\x05\x06" + bytes(18), b"Rar!\x1a\x07\0", b"7z\xbc\xaf\x27\x1c", b"<html>", bytes(10240))
    return rng.choice((data, data, *others)), rng.choice((".zip", ".ZIP", *(suffix for _, suffix in TAR_KINDS)))


KINDS: Mapping[str, Callable[[random.Random], Made]] = {
    "nothing": good_archive,
    "bytes": damaged,
    "headers of tar, sums repaired": damaged_tar_heads,
    "bytes of the zip directory": damaged_directory,
    "a lie in a field of zip": lying_zip,
    "names": odd_names,
    "links and devices": links_and_devices,
    "bombs": bombs,
    "another name, another file": other_names,
}


@contextlib.contextmanager
def opened() -> Iterator[Attack]:
    """Yield the attack."""
    warnings.simplefilter("ignore")  # of names that are there twice, which is on purpose
    yield attack


def attack(rng: random.Random, folder: Path) -> Outcome:
    """Make an archive and read its images; then nothing but the archive may be there."""
    kind = rng.choice(list(KINDS))
    data, suffix = KINDS[kind](rng)
    os.environ["DVC_ROOT"] = str(folder)
    place = folder / ".cache/unpacked"
    place.mkdir(parents=True)
    file = folder / f"images{suffix}"
    file.write_bytes(data)
    peak = peak_from_here()
    verdict, fault = "harmless", ""
    try:
        with opened_folder(file) as root:
            fault = _wrong(root, is_good=kind == "nothing")
    except UserError as error:
        verdict = "held"
        fault = "" if str(error).isprintable() and str(file) in str(error) else f"no line that names it: {error!r}"
        if kind == "nothing":
            fault = f"a good archive is refused: {error}"
    except Exception:  # noqa: BLE001  (any other is what is looked for)
        fault = traceback.format_exc()[-2000:]
    left = sorted(path for path in folder.rglob("*") if path not in {file, place, place.parent, place / ".lock"})
    if not fault and (left or Path(OUTSIDE).exists() or file.read_bytes() != data):
        fault = f"left behind: {[str(path) for path in left]}"
    if not fault and (grown := peak.grown()) > LARGEST:
        fault = f"the process grew by {grown} MiB"
    return Outcome(kind, "broke" if fault else verdict, f"{suffix}: {fault}" if fault else "")  # type: ignore[arg-type]


def _wrong(root: Path, *, is_good: bool) -> str:
    """Return what is wrong with the unpacked folder ``root``, empty if nothing is; its images are read."""
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        if not (stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and not mode & 0o7111)):
            return f"{path.name!r} has mode {mode:o}"
    files = read_tree(root).files()
    images = list(read_images([file.name for file in files], files, Fit((4, 4))))
    found = {str(file.relative_to(root)): file.read_bytes() for file in files}
    if is_good and (found != good() or any(isinstance(image, UserError) for image in images)):
        return f"a good archive is read as {list(found)}"
    return ""
