"""Settings of the package: what a consumer reads of it first."""

import re
from typing import Annotated

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, Field, Strict

from pipeline.core.settings import EachOnce, PathText, Section, entry_of, knob, rare
from pipeline.export.precisions import PRECISIONS

SEMANTIC_VERSION = r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?"
VERSIONS = (
    "a version as Python or Semantic Versioning writes it, e.g. 1.2.0 or 2.0.0-rc.1, in quotes where it is a number"
)
LICENCES = "an SPDX expression, e.g. Apache-2.0 or LicenseRef-Proprietary; or null: not stated"


def _version(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion:
        if re.fullmatch(SEMANTIC_VERSION, text) is None:
            raise ValueError(f"got {text!r}; give {VERSIONS}") from None
    if text != text.strip():
        raise ValueError(f"got {text!r}; leave out the blanks")
    return text


def _licence(text: str) -> str:
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression as error:
        raise ValueError(f"got {text!r}; give {LICENCES}") from error


class PackageSettings(Section):
    """What a consumer downloads."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")] | None = knob(
        None,
        "of the package: lower-case letters, digits and hyphens; null: fmkt-SOURCE, where that is one data set",
        takes="lower-case letters, digits and, between them, hyphens; or null",
    )
    version: Annotated[str, AfterValidator(_version)] = knob("0.1.0", "of the package, e.g. 1.2.0", takes=VERSIONS)
    licence: Annotated[str, AfterValidator(_licence)] | None = knob(
        None, "of the model in SPDX's words, e.g. Apache-2.0; null: not stated", takes=LICENCES
    )
    description: str = knob("A compact image classifier.", "one sentence about the model, for its card")
    precisions: (
        Annotated[tuple[Annotated[str, entry_of(PRECISIONS)], ...], Strict(strict=False), Field(min_length=1), EachOnce]
        | None
    ) = knob(None, "of the exported files those that go along, fp32 always; null: all")
    signing_key: PathText | None = rare(
        None,
        "SSH key that signs its sums: a private key without a passphrase, or a public one whose private one is in "
        "ssh-agent; null: not signed",
    )
