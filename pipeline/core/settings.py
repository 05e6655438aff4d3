"""What all settings share: their strictness, and the types of their fields.

Settings stand in the room that they configure (``settings.py`` there); ``pipeline.params`` puts them together into the
parameters file. Every field has a default and a description, from which the file is written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    Strict,
    WithJsonSchema,
    create_model,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from models.core.table import Table

LONGEST_NAME = 255
"""Bytes of a file's name, without its folders, that file systems take."""
NAMES_OF = "names_of"
"""In a JSON schema: what the names that a text takes are names of, where listing them takes too long for the schema."""

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _each_once(items: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = [item for item in items if items.count(item) > 1]
    if repeated:
        raise ValueError(f"got {list(items)}, with {repeated[0]} more than once; give each once")
    return items


EachOnce = AfterValidator(_each_once)
"""Of lists: no item may stand there twice."""
Counts = Annotated[tuple[Annotated[Count, Strict()], ...], Strict(strict=False), Field(min_length=1), EachOnce]
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


BackboneName = Annotated[str, WithJsonSchema({"type": "string", NAMES_OF: "backbones"})]


def _usable(path: str) -> str:
    if any(len(part.encode(errors="replace")) > LONGEST_NAME for part in Path(path).parts):
        raise ValueError(f"got {len(path)} characters, {path[:40]!r} ...; no file has a name as long as that")
    return path


PathText = Annotated[str, Field(min_length=1), AfterValidator(_usable), AfterValidator(_expanded)]


class Section(BaseModel):
    """A group of settings: no unknown key, and each value of its type exactly."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def knob(default: Any, description: str, *, was: str | tuple[str, ...] = (), takes: str | None = None) -> Any:
    """Return a field that people turn first; in the parameters file it stands above the others of its section.

    Args:
        was: its name in earlier versions, or those of keys whose place it takes; who still writes one is told this.
        takes: what its values may be, in words, where its type does not say it well.
    """
    return _field(default, description, was, takes, is_rare=False)


def rare(default: Any, description: str, *, was: str | tuple[str, ...] = (), takes: str | None = None) -> Any:
    """Return a field that is rarely changed; in the parameters file it is marked, and stands below the knobs.

    Args:
        was, takes: as of ``knob``.
    """
    return _field(default, description, was, takes, is_rare=True)


def _field(default: Any, description: str, was: str | tuple[str, ...], takes: str | None, *, is_rare: bool) -> Any:
    about: dict[str, Any] = {"rare": is_rare, "was": [was] if isinstance(was, str) else [*was]}
    return Field(default, description=description, json_schema_extra=about | ({"takes": takes} if takes else {}))


def settings_faults(settings: object) -> Iterator[str]:
    """Yield what is wrong with ``settings`` of an entry, which should be a ``Section`` that has all defaults."""
    if not isinstance(settings, type) or not issubclass(settings, Section):
        yield f"has the settings {settings!r}; give a class derived from Section"
        return
    without = [name for name, field in settings.model_fields.items() if field.is_required()]
    if without:
        yield f"has settings without a default: {', '.join(without)}"


def section_of(name: str, base: type[Section], sections: Mapping[str, tuple[Section, str]]) -> Any:
    """Return a class ``name`` derived from ``base`` with a section for each entry of a table.

    Args:
        sections: from an entry's name to its default settings and their description.
    """
    fields: dict[str, Any] = {key: (type(default), knob(default, text)) for key, (default, text) in sections.items()}
    return create_model(name, __base__=base, __module__=base.__module__, __doc__=base.__doc__, **fields)


@dataclass(frozen=True, eq=False)
class EntryOf:
    """Accepts the names of the entries of ``table`` and nothing else."""

    table: Table[Any]

    def _check(self, name: object) -> str:
        if not isinstance(name, str):
            known = ", ".join(self.table)
            raise ValueError(f"got {name!r}; give the name of a {self.table.kind}: {known}")  # noqa: TRY004  (pydantic's)
        return str(self.table[name].name)

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Return how pydantic checks a value."""
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the known names, with their descriptions."""
        choices = {name: entry.description for name, entry in self.table.items()}
        return {"type": "string", "enum": list(choices), "choices": choices}


def entry_of(table: Table[Any]) -> EntryOf:
    """Return what, in ``Annotated[str, ...]``, accepts the names of the entries of ``table`` alone."""
    return EntryOf(table)


class Base(Section):
    """What all stages share."""

    seed: Annotated[int, Field(ge=0)] = knob(0, "of everything random: weights, splits, order, augmentation")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = knob(
        "auto",
        "where networks run: auto (CUDA where there is one), cpu, cuda, or one GPU as cuda:1",
        takes="auto, cpu, cuda, or cuda:N with the number of a GPU",
    )
    num_threads: NumThreads | None = knob(
        2, "CPU threads of training (null: all cores); another count changes the last bits"
    )
    deterministic: bool = rare(default=True, description="same seed on the same machine: same bits")
