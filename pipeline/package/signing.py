"""The signature of a package: its list of sums, signed and checked by OpenSSH's ssh-keygen.

What is signed is SHA256SUMS, so that the signature holds for every file that is listed there.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes
from pipeline.core.printable import printable
from pipeline.package.sums import AGAIN, SIGNATURE, SUMS, place_of

NAMESPACE = "fmkt-package"
"""What the signature is for; one that was made for a commit or a mail does not count."""
KINDS = ("ED25519", "RSA")
"""Kinds of keys that sign the same bytes with the same bytes, as outputs of a stage must be."""
KEY = "package.signing_key"
PATIENCE = 60
"""Seconds; an agent may ask its user."""


class Signer(NamedTuple):
    """Who signed a package."""

    identity: str
    """The name by which the file of allowed signers knows the key."""
    key: str
    """Kind and fingerprint of the key."""


def check_signing_key(path: Path) -> str:
    """Return the fingerprint of the key in the file ``path``, once it has signed something on trial.

    Raises:
        UserError: there is no such file or no ssh-keygen, or the key cannot sign here without being asked about.
    """
    if not path.is_file():
        raise UserError(f"{KEY}: no such file: {printable(path.absolute())}; give an SSH key, or null: not signed")
    found = _keygen("-l", "-f", str(path))
    words = re.search(r"^\d+ (SHA256:\S+) .*\((\S+)\)$", found.stdout.decode(errors="replace"), re.MULTILINE)
    if words is None:
        raise UserError(f"{KEY}: {printable(path)} is no SSH key ({_reason(found)}); ssh-keygen -t ed25519 makes one")
    fingerprint, kind = words.groups()
    if kind not in KINDS:
        raise UserError(
            f"{KEY}: {printable(path)} is of the kind {kind}, which signs otherwise each time or asks for a touch; "
            f"take one of the kind {' or '.join(KINDS)} (ssh-keygen -t ed25519)"
        )
    _signature_of(b"on trial", path)
    return fingerprint


def sign_package(folder: Path, key: Path) -> None:
    """Sign the list of sums of the package in ``folder`` with the private key of the file ``key``.

    Args:
        key: a private key, or a public one whose private one ssh-agent has.

    Raises:
        UserError: the key does not sign.
    """
    write_bytes(folder / SIGNATURE, _signature_of((folder / SUMS).read_bytes(), key))


def _signature_of(data: bytes, key: Path) -> bytes:
    result = _keygen("-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(key), data=data)
    if result.returncode or not result.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise UserError(
            f"{KEY}: {printable(key)} does not sign ({_reason(result)}); a key with a passphrase goes into ssh-agent "
            "(ssh-add FILE), a public key needs its private one there"
        )
    return result.stdout


def check_signature(folder: Path, data: bytes, signers: Path, identity: str | None) -> Signer:
    """Return who signed the package in ``folder``.

    Args:
        data: its list of sums.
        signers: the keys that are trusted, as ssh-keygen's ALLOWED SIGNERS has them.
        identity: the name there whose key it must be; None: any of them.

    Raises:
        UserError: the package has no signature, it is not of these sums, or by none of the signers.
    """
    signature = folder / SIGNATURE
    if not signers.is_file():
        raise UserError(f"--allowed-signers: {printable(signers)} is no plain file; give one as ssh-keygen reads it")
    if place_of(folder, SIGNATURE) is None:
        raise UserError(
            f"{signature}: missing, so nobody has signed this package; fetch one that is signed, or leave "
            "--allowed-signers out"
        )
    known = ("-n", NAMESPACE, "-s", str(signature))
    found = _keygen("-Y", "check-novalidate", *known, data=data)
    key = re.search(rb"^Good .* signature with (\S+) key (\S+)", found.stdout)
    if found.returncode or key is None:
        raise UserError(
            f"{signature}: no signature of this {SUMS} as a package has it ({_reason(found)}): damaged or tampered "
            f"with; {AGAIN}"
        )
    trusted = ("-f", str(signers))
    listed = _keygen("-Y", "find-principals", "-s", str(signature), *trusted)
    names = [identity] if identity is not None else _identities(listed.stdout.decode(errors="replace"))
    words = b" ".join(key.groups()).decode()
    last = listed
    for name in names:
        last = _keygen("-Y", "verify", *known, *trusted, "-I", name, data=data)
        if last.returncode == 0:
            return Signer(name, words)
    whom = "" if identity is None else f" for {printable(identity)}"
    raise UserError(
        f"{signature}: signed with the key {words}, which {printable(signers)} does not allow{whom} ({_reason(last)}); "
        "do not use this package, unless you know whose key it is: then add its line there"
    )


def _identities(principals: str) -> list[str]:
    """Return the names in what ``find-principals`` prints: a line for each entry, with a list of patterns."""
    return [name for line in principals.splitlines() for name in line.split(",") if name and not name.startswith("!")]


def _keygen(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run ssh-keygen with ``data`` as its input; it can ask nobody for a passphrase."""
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
    try:
        return subprocess.run(  # noqa: S603
            ["ssh-keygen", *arguments],  # noqa: S607
            input=data,
            capture_output=True,
            check=False,
            env=environment,
            start_new_session=True,  # without a terminal to ask on
            timeout=PATIENCE,
        )
    except FileNotFoundError as error:
        raise UserError(
            "ssh-keygen is not installed, which signs packages and checks signatures; apt-get install openssh-client"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"ssh-keygen has not answered in {PATIENCE} s; does ssh-agent wait for somebody?") from error


def _reason(result: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last line of what ssh-keygen complains of, with nothing in it that moves a terminal's cursor."""
    lines = (result.stderr or result.stdout).decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return f"ssh-keygen: {printable(said[-1])[:200]}" if said else f"ssh-keygen ended with {result.returncode}"
