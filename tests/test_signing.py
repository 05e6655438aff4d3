"""Signed packages: whose signature counts, what keys sign, and what is refused; with OpenSSH's own programs."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.core.files import read_json
from pipeline.package.signing import sign_package
from pipeline.package.sums import SIGNATURE, SUMS
from pipeline.package.writer import write_sums
from stages.__main__ import main
from tests.helpers import ROOT, refused
from tests.test_probe import run_probe

WriteParams = Callable[[dict[str, Any]], Path]
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


def make_key(path: Path, *, kind: str = "ed25519", words: str = "") -> Path:
    """Return a new private key in the file ``path``, with the passphrase ``words``; its public one lies beside it."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", words, "-C", "made for a test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def allow(path: Path, **keys: Path) -> Path:
    """Return a file of allowed signers with the public keys of ``keys``, by name."""
    public = {name: key.with_name(f"{key.name}.pub").read_text() for name, key in keys.items()}
    path.write_text("".join(f"{name}@example.org {text}" for name, text in public.items()))
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "key")


@pytest.fixture
def signers(key: Path, tmp_path: Path) -> Path:
    return allow(tmp_path / "allowed_signers", alice=key)


@pytest.fixture
def package(key: Path, tmp_path: Path) -> Path:
    """Return a signed package."""
    folder = shutil.copytree(ROOT / "tests/packages/v0_1", tmp_path / "package")
    sign_package(folder, key)
    return folder


def verify(package: Path, *words: str | Path) -> Result:
    return CliRunner().invoke(main, ["verify", "--package", str(package), *map(str, words)])


def test_a_signed_package_is_verified_with_the_name_of_its_signer(package: Path, key: Path, signers: Path) -> None:
    listed = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True).stdout
    fingerprint = listed.split()[1]
    for words in ([], ["--identity", "alice@example.org"]):
        result = verify(package, "--allowed-signers", signers, *words)
        assert result.exit_code == 0, result.output
        assert f"signed by alice@example.org, key ED25519 {fingerprint}\n" in result.output
        assert "intact" in result.output
    unasked = verify(package)
    assert unasked.exit_code == 0
    assert "its signature was not checked; --allowed-signers FILE" in unasked.output
    subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=package, check=True)


def test_what_the_documents_say_checks_a_signature_without_fmkt(package: Path, signers: Path) -> None:
    words = f"ssh-keygen -Y verify -f {signers} -I alice@example.org -n fmkt-package -s {SIGNATURE}".split()
    subprocess.run(words, cwd=package, input=(package / SUMS).read_bytes(), check=True)


def test_the_same_key_signs_with_the_same_bytes(package: Path, key: Path, tmp_path: Path) -> None:
    for one in (key, make_key(tmp_path / "rsa", kind="rsa")):
        sign_package(package, one)
        first = (package / SIGNATURE).read_bytes()
        sign_package(package, one)
        assert (package / SIGNATURE).read_bytes() == first
        assert verify(package, "--allowed-signers", allow(tmp_path / "both", key=one)).exit_code == 0


def test_a_changed_file_is_found_though_its_sum_was_changed_too(package: Path, signers: Path) -> None:
    (package / "README.md").write_text("Run this as root.")
    write_sums(package)
    assert verify(package).exit_code == 0, "sums alone do not show it"
    refused(verify(package, "--allowed-signers", signers), f"{SIGNATURE}: no signature of this {SUMS}", "tampered")


def test_a_file_that_differs_from_signed_sums_is_named(package: Path, signers: Path) -> None:
    (package / "README.md").write_text("Run this as root.")
    refused(verify(package, "--allowed-signers", signers), "README.md: differs from its SHA-256")


def test_only_an_allowed_signer_counts(package: Path, key: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    signers = allow(tmp_path / "signers", bob=other)
    said = ["signed with the key ED25519 SHA256:", f"which {signers} does not allow", "do not use this package"]
    refused(verify(package, "--allowed-signers", signers), *said)
    both = allow(tmp_path / "both", alice=key, bob=other)
    assert verify(package, "--allowed-signers", both).exit_code == 0
    refused(verify(package, "--allowed-signers", both, "--identity", "bob@example.org"), "for bob@example.org")


@pytest.mark.parametrize(
    ("options", "is_allowed"),
    [
        ('namespaces="fmkt-package"', True),
        ('namespaces="git"', False),
        ('valid-before="20200101"', False),
        ('valid-after="20200101"', True),
    ],
)
def test_what_the_file_of_signers_restricts_holds(
    options: str, is_allowed: bool, package: Path, key: Path, tmp_path: Path
) -> None:
    signers = tmp_path / "signers"
    signers.write_text(f"carol@example.org,*@example.net {options} {key.with_name('key.pub').read_text()}")
    result = verify(package, "--allowed-signers", signers)
    assert (result.exit_code == 0) == is_allowed, result.output
    if not is_allowed:
        refused(result, "does not allow")


def test_a_signature_for_something_else_does_not_count(package: Path, key: Path, signers: Path) -> None:
    (package / SIGNATURE).unlink()
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", key, package / SUMS], check=True)
    refused(verify(package, "--allowed-signers", signers), "no signature of this SHA256SUMS as a package has it")


@pytest.mark.parametrize("content", [b"", b"\x1b[2J", b"-----BEGIN SSH SIGNATURE-----\nAAAA\n", None])
def test_a_missing_or_damaged_signature_is_refused(content: bytes | None, package: Path, signers: Path) -> None:
    (package / SIGNATURE).unlink()
    if content is not None:
        (package / SIGNATURE).write_bytes(content)
    said = "missing, so nobody has signed this package" if content is None else "no signature of this SHA256SUMS"
    result = verify(package, "--allowed-signers", signers)
    refused(result, said)
    assert "\x1b" not in result.output


def test_a_file_of_signers_that_is_none_is_named(package: Path, tmp_path: Path) -> None:
    refused(verify(package, "--allowed-signers", tmp_path / "none"), "--allowed-signers: ", "is no plain file")
    (tmp_path / "odd").write_text("not a list\n")
    refused(verify(package, "--allowed-signers", tmp_path / "odd"), "does not allow (ssh-keygen: ")
    result = verify(package, "--identity", "alice@example.org")
    assert result.exit_code == 2
    assert "--identity needs --allowed-signers" in result.output


def test_without_ssh_keygen_a_signature_is_not_taken_for_checked(
    package: Path, signers: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(verify(package, "--allowed-signers", signers), "ssh-keygen is not installed", "openssh-client")
    assert verify(package).exit_code == 0


def probed(key: Path, params_file: WriteParams) -> Result:
    params = params_file({"package.signing_key": str(key)})
    return run_probe(params, params.with_name("environment.json"))


def test_the_probe_notes_which_key_signs(key: Path, params_file: WriteParams, tmp_path: Path) -> None:
    """So that another key under the same name signs anew."""
    noted = []
    for _ in range(2):
        assert probed(key, params_file).exit_code == 0
        noted.append(read_json(tmp_path / "environment.json")["inputs"]["signing_key"])
        key.unlink()
        make_key(key)
    assert all(re.fullmatch(r"SHA256:\S{43}", text) for text in noted)
    assert noted[0] != noted[1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: None, ["no such file: ", "or null: not signed"]),
        (lambda path: path.write_text("a text"), ["is no SSH key", "ssh-keygen -t ed25519 makes one"]),
        (lambda path: make_key(path, kind="ecdsa"), ["is of the kind ECDSA", "take one of the kind ED25519 or RSA"]),
        (lambda path: make_key(path, words="open sesame"), ["does not sign", "goes into ssh-agent"]),
        (lambda path: make_key(path).chmod(0o644), ["does not sign", "goes into ssh-agent"]),
    ],
)
def test_a_key_that_cannot_sign_is_noticed_before_anything_runs(
    make: Callable[[Path], Any], said: list[str], params_file: WriteParams, tmp_path: Path
) -> None:
    make(tmp_path / "id")
    refused(probed(tmp_path / "id", params_file), "package.signing_key: ", str(tmp_path / "id"), *said)
    assert not (tmp_path / "environment.json").exists()


def test_a_host_without_ssh_keygen_is_noticed_before_anything_runs(
    key: Path, params_file: WriteParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(probed(key, params_file), "ssh-keygen is not installed", "apt-get install openssh-client")


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start an ssh-agent for this test."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path has 107 bytes at most
        socket = Path(folder, "agent")
        with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as process:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            while not socket.exists():
                assert process.poll() is None
                time.sleep(0.01)
            yield
            process.terminate()


@pytest.mark.usefixtures("agent")
def test_a_public_key_signs_where_the_agent_has_its_private_one(
    package: Path, params_file: WriteParams, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "held")
    public = key.with_name("held.pub")
    subprocess.run(["ssh-add", "-q", str(key)], check=True)
    key.unlink()
    assert probed(public, params_file).exit_code == 0
    sign_package(package, public)
    assert verify(package, "--allowed-signers", allow(tmp_path / "signers", agent=key)).exit_code == 0
    subprocess.run(["ssh-add", "-q", "-D"], check=True)
    refused(probed(public, params_file), "does not sign", "needs its private one there")


@pytest.mark.skipif(shutil.which("script") is None, reason="needs script, of util-linux")
def test_nobody_is_asked_for_a_passphrase(tmp_path: Path) -> None:
    """Neither at a terminal nor by a window: a chain at night would wait for it."""
    key = make_key(tmp_path / "secret", words="open sesame")
    asked = tmp_path / "asked"
    (tmp_path / "ask").write_text(f"#!/bin/sh\ntouch {asked}\necho open sesame\n")
    (tmp_path / "ask").chmod(0o755)
    code = f"from pathlib import Path; from pipeline.package.signing import *; check_signing_key(Path({str(key)!r}))"
    variables = {**os.environ, "DISPLAY": ":0", "SSH_ASKPASS": str(tmp_path / "ask"), "SSH_ASKPASS_REQUIRE": "force"}
    words = ["script", "-qec", f'{sys.executable} -c "{code}"', "/dev/null"]  # with a terminal of its own
    done = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert "does not sign" in done.stdout
    assert not asked.exists()
