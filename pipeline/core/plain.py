"""Values that whoever has a package reads from its JSON: frozen dataclasses, checked without a library."""

import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Value = TypeVar("Value")
NAMES = {bool: "true or false", float: "a number", int: "a whole number", str: "a text", type(None): "null"}
"""The types that a field may have, as messages call them."""


def read_plain(kind: type[Value], content: object) -> Value:
    """Return the value of the dataclass ``kind`` with the keys of ``content`` as its fields; the others have defaults.

    Raises:
        ValueError: a key is unknown or missing, or a value has another type or lies outside of what ``kind`` allows.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"got {content!r}, expected an object")  # noqa: TRY004  (one kind of error for all that is wrong)
    hints = typing.get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [key for key in content if key not in known]
    if unknown:
        raise ValueError(f"{unknown[0]}: no such key; known are {', '.join(known)}")
    values = {name: _checked(name, value, hints[name]) for name, value in content.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(str(error).partition(") ")[2] or str(error)) from error


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Return ``value``, a whole number as a float where ``hint`` says so."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in allowed and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(f"{name}: got a number beyond the largest, expected a smaller one") from error
    if type(value) not in allowed:
        words = " or ".join(NAMES[each] for each in allowed)
        raise ValueError(f"{name}: got {value!r}, expected {words}")
    return value
