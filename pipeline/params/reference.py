"""All parameters with their descriptions, values and defaults, as the settings of every room say them."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.core.settings import NAMES_OF
from pipeline.params.schema import Params
from pipeline.params.wording import Schema, values_in_words, without_null


@dataclass(frozen=True)
class Parameter:
    """A key of the parameters file, or a section of it."""

    key: str
    """Dotted; of the whole file it is empty."""
    description: str
    values: str
    """What it takes, in words; of a section it is empty."""
    choices: dict[str, str]
    """Names that it takes, with what is said about them; none where it takes something else."""
    names_of: str | None
    """What its names are names of, where those are not among the choices."""
    is_list: bool
    """Whether it takes several values."""
    is_rare: bool
    """Whether it is rarely changed."""
    was: tuple[str, ...]
    """Its names in earlier versions."""
    default: Any
    children: dict[str, "Parameter"]
    """The keys of a section by their names."""

    @property
    def name(self) -> str:
        """Return the last part of the key."""
        return self.key.rpartition(".")[2]

    def all_below(self) -> Iterator["Parameter"]:
        """Yield the sections and keys of this section, each before what it holds."""
        for child in self.children.values():
            yield child
            yield from child.all_below()


@functools.cache
def parameters() -> Parameter:
    """Return the whole file; its children are the sections."""
    schema = Params.model_json_schema()
    return _parameter("", schema, schema["$defs"], Params().model_dump(mode="json"))


def _parameter(key: str, node: Schema, definitions: dict[str, Schema], default: Any) -> Parameter:
    merged = definitions[node["$ref"].rpartition("/")[2]] | node if "$ref" in node else node
    plain = without_null(merged)
    item = plain.get("items", plain)
    described = item.get("choices", {})
    children = {
        name: _parameter(f"{key}.{name}" if key else name, child, definitions, default[name])
        for name, child in merged.get("properties", {}).items()
    }
    return Parameter(
        key=key,
        description=merged.get("description", ""),
        values="" if children else values_in_words(merged),
        choices={name: described.get(name, "") for name in item.get("enum", ())},
        names_of=plain.get(NAMES_OF),
        is_list=plain.get("type") == "array",
        is_rare=merged.get("rare", False),
        was=tuple(merged.get("was", ())),
        default=default,
        children=children,
    )
