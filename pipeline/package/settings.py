"""Settings of the package: what a consumer reads of it first."""

from typing import Annotated

from pydantic import Field

from pipeline.core.settings import PathText, Section, knob, rare


class PackageSettings(Section):
    """What a consumer downloads."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")] = knob(
        "fmkt-student",
        "of the package: lower-case letters, digits and hyphens",
        takes="lower-case letters, digits and, between them, hyphens",
    )
    description: str = knob("A compact image classifier.", "one sentence about the model, for its card")
    signing_key: PathText | None = rare(
        None,
        "SSH key that signs its sums: a private key without a passphrase, or a public one whose private one is in "
        "ssh-agent; null: not signed",
    )
