"""What all settings share: their strictness, and the types of their fields.

Settings stand in the room that they configure (``settings.py`` there); ``pipeline.params`` puts them together into the
parameters file. Every field has a default and a description, from which the file is written.
"""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from models.table import Table

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Counts = Annotated[tuple[Annotated[Count, Strict()], ...], Strict(strict=False), Field(min_length=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Strict(), Field(gt=0, le=1)]
NumThreads = Annotated[int, Field(ge=1, le=1024)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Mean = Annotated[tuple[Finite, Finite, Finite], Strict(strict=False)]
Std = Annotated[tuple[Positive, Positive, Positive], Strict(strict=False)]


def _expanded(path: str) -> str:
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"got {path!r}, whose home directory is not known ({error})") from error


PathText = Annotated[str, Field(min_length=1), AfterValidator(_expanded)]


class Section(BaseModel):
    """A group of settings: no unknown key, and each value of its type exactly."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def entry_of(table: Table) -> AfterValidator:
    """Return what makes a text the name of an entry of ``table``."""

    def check(name: str) -> str:
        return table[name].name

    return AfterValidator(check)
