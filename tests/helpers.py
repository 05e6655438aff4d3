"""Small builders for the tests."""

import io
import os
import pty
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from stages.__main__ import main

ROOT = Path(__file__).parent.parent

SPLIT_LAYOUT = {"train/cat": 12, "train/dog": 14, "test/cat": 3, "test/dog": 4}


def image_bytes(*, size: tuple[int, int] = (8, 6), mode: str = "RGB", kind: str = "PNG", seed: int = 0) -> bytes:
    """Return an encoded image of random pixels; ``size`` is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def fill_folder(root: Path, layout: dict[str, int], **options: Any) -> Path:
    """Write ``count`` images into each folder of ``layout`` (relative name to count)."""
    for number, (name, count) in enumerate(layout.items()):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (folder / f"{i:03}.png").write_bytes(image_bytes(seed=1000 * number + i, **options))
    return root


def refused(result: Result, *words: str) -> None:
    """Assert one error line with ``words`` and exit code 2."""
    assert result.exit_code == 2, result.output
    errors = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert all(word in errors[0] for word in words), errors[0]


def said_on_a_terminal(monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    """Return the little that the command ``words`` prints where standard output is a terminal."""
    ours, theirs = pty.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        os.fdopen(theirs, "w") as output,
        monkeypatch.context() as patch,
    ):
        patch.setattr("sys.stdout", output)
        patch.setenv("NO_COLOR", "1")
        main.main(list(map(str, words)), standalone_mode=False)
        print(end="\0", file=output, flush=True)
        said = b""
        while not said.endswith(b"\0"):  # a terminal gives what is written in pieces
            said += terminal.read(4096)
        return said[:-1].decode().replace("\r\n", "\n")


def make_archive(images: Path, kind: str) -> Path:
    path = images.parent / f"images.{kind}"
    if kind.lower() == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(images.rglob("*"), reverse=True):
                archive.write(file, file.relative_to(images))
    else:
        mode: Any = f"w:{kind.lower().rpartition('.')[2]}" if "." in kind else "w"
        with tarfile.open(path, mode) as archive:
            archive.add(images, "some/where" if kind.startswith("nested") else ".")
    return path


def make_certificate(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    """Return a certificate for this host that signs itself, and its key; ``options`` are those of the key."""
    openssl = shutil.which("openssl") or pytest.skip("openssl is not here")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", *(options or ("-nodes",)), "-subj", "/CN=localhost"]
    command += [
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-days",
        "2",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
