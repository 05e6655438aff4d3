"""What of the parameters means nothing to a task, or cannot be done for it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True, kw_only=True)
class Restriction:
    """Values of a key that a task refuses."""

    key: str
    """Dotted, in the parameters file; a key, or a section whose keys must have their defaults."""
    reason: str
    """Why, after "but"."""
    shown_as: str = ""
    """The key in the message, where the value is a property that follows from it."""
    refused: Collection[Any] | None = None
    """None: all but the default."""
    advice: str = ""
    """What to do; empty: to set the default."""
    matters_with: Mapping[str, Collection[Any]] = field(default_factory=dict)
    """Other keys with values; the key is ignored, and free, where one of them has none of its values."""

    def faults(self, params: BaseModel) -> Iterator[str]:
        """Yield a line on each key of ``params`` that has a refused value."""
        if not all(_at(params, key)[0] in values for key, values in self.matters_with.items()):
            return
        for key, value, default in _leaves(self.key, *_at(params, self.key)):
            if value in self.refused if self.refused is not None else value != default:
                shown = self.shown_as or key
                advice = self.advice or f"set it to {_in_words(default)}"
                yield f"{shown}: got {_in_words(_at(params, shown)[0])}, but {self.reason}; {advice}"


def _leaves(key: str, value: Any, default: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each key at or below ``key`` that is no section, with its value and its default."""
    if not isinstance(value, BaseModel):
        yield key, value, default
        return
    for name in type(value).model_fields:
        yield from _leaves(f"{key}.{name}", getattr(value, name), getattr(default, name))


def _at(params: BaseModel, key: str) -> tuple[Any, Any]:
    """Return the value that ``params`` have at the dotted ``key``, and the default there."""
    first, *others = key.split(".")
    value, default = getattr(params, first), type(params).model_fields[first].default
    for name in others:
        value, default = getattr(value, name), getattr(default, name)
    return value, default


def _in_words(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)
