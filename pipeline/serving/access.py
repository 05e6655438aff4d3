"""Who may use a server: a token that requests carry, and the certificate by which the server is known."""

import hmac
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from pipeline.core.errors import UserError, readable_file

VARIABLE = "FMKT_TOKEN"
"""Variable of the environment that may hold the token."""
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")
"""What a token is made of, so that it fits into a header of HTTP and is not guessed."""
SCHEME = b"bearer "
UNKNOWN = "this server asks for a token: Authorization: Bearer TOKEN"


class Access:
    """A token, or none, in which case everybody may."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    @property
    def is_open(self) -> bool:
        """Whether no token is asked for."""
        return self._token is None

    def why_not(self, authorization: bytes) -> str:
        """Return what is wrong with an ``authorization`` that is not allowed, and nothing of what it says."""
        return "not the token" if authorization else "no token"

    def allows(self, authorization: bytes) -> bool:
        """Return whether the field ``authorization`` of a request carries the token; all wrong ones take as long."""
        if self._token is None:
            return True
        is_bearer = authorization[: len(SCHEME)].lower() == SCHEME
        return is_bearer and hmac.compare_digest(authorization[len(SCHEME) :].strip(), self._token)


def read_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the token in ``file`` or in the environment, None where neither is given.

    Raises:
        UserError: both are given, the file cannot be read, or what is there is no token.
    """
    given = environment.get(VARIABLE)
    if file is None:
        if given is None:
            return None
        where, text = VARIABLE, given
    elif given is not None:
        raise UserError(f"--token-file and the variable {VARIABLE} are both given; give one of them")
    else:
        where = f"--token-file {file}"
        with readable_file(file), file.open("rb") as stream:
            text = stream.read(4096).decode("latin-1")
    token = text.strip()
    if not TOKEN.fullmatch(token):
        raise UserError(
            f"{where}: no token; expected are 16 to 512 letters, digits and . _ ~ + / = -; see openssl rand -hex 32"
        )
    return token


class Certificate(NamedTuple):
    """A certificate with its key, checked."""

    chain: bytes
    key: bytes
    """Both as PEM."""
    context: ssl.SSLContext


def load_certificate(certificate: Path | None, key: Path | None) -> Certificate | None:
    """Return what the two options give, None where they give nothing.

    Raises:
        UserError: one is missing, cannot be read, or the two do not fit together.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing = "--tls-certificate" if certificate is None else "--tls-key"
        raise UserError(f"{missing}: not given; a certificate and its key go together")
    with readable_file(certificate):
        chain = certificate.read_bytes()
    with readable_file(key):
        content = key.read_bytes()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if b"-----BEGIN CERTIFICATE-----" not in chain:
        raise UserError(f"--tls-certificate {certificate}: no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except _EncryptedKeyError as error:
        raise UserError(
            f"--tls-key {key}: asks for a password; give one without, readable for the server alone"
        ) from error
    except ssl.SSLError as error:
        why = (
            "is not that of the certificate"
            if error.reason == "KEY_VALUES_MISMATCH"
            else f"cannot be used ({error.reason or error})"
        )
        raise UserError(f"--tls-key {key}: {why}; expected are a certificate chain and its key, both as PEM") from error
    return Certificate(chain, content, context)


class _EncryptedKeyError(Exception):
    """The key cannot be read without a password."""


def _refuse_password() -> NoReturn:
    raise _EncryptedKeyError
