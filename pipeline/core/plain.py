"""Values that are read from JSON: frozen dataclasses, checked without a library, since packages are read without any.

What a file may hold is declared once, by the types of the fields of a dataclass: simple types, ``Any``, ``Literal``,
``X | None``, lists, dictionaries and other such dataclasses. ``Annotated[int, at_least(1)]`` says more of a value.
"""

import functools
import math
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union

from pipeline.core.printable import printable

Value = TypeVar("Value")
Rule = Callable[[Any], str | None]
"""Returns what is expected of a value that is not as it must be."""
NAMES = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    str: "a text",
    type(None): "null",
    list: "a list",
    dict: "an object",
}
"""The types that a field may have, as messages call them."""
SHOWN = reprlib.Repr()
SHOWN.maxstring = SHOWN.maxother = 100


class Part:
    """A dataclass of this kind allows more keys than it has fields: what else a file says is for others."""

    @classmethod
    def check(cls, content: Mapping[str, Any]) -> None:
        """Look at what no type says, once all values have their types; raises ValueError."""


def at_least(least: int) -> Rule:
    """Return the rule that a number is not below ``least``."""
    return lambda value: None if value >= least else f"{least} or more"


def at_most(most: float) -> Rule:
    """Return the rule that a number is not above ``most``."""
    return lambda value: None if value <= most else f"{most:g} or less"


def count_from(least: int, most: int | None = None) -> Rule:
    """Return the rule that there are ``least`` to ``most`` items, or no end to them."""
    words = f"{least} or more items" if most is None else f"{least} items" if most == least else f"{least} to {most}"
    return lambda value: None if least <= len(value) <= (math.inf if most is None else most) else words


def read_plain(kind: type[Value], content: object) -> Value:
    """Return the value of the dataclass ``kind`` with the keys of ``content`` as its fields; the others have defaults.

    Raises:
        ValueError: a key is unknown or missing, or a value has another type or lies outside of what ``kind`` allows.
    """
    return _read(kind, content, "")


def shown(value: object) -> str:
    """Return ``value`` as messages show it: in a line that is not too long."""
    return printable(SHOWN.repr(value))


def _read(kind: type[Value], content: object, place: str) -> Value:
    if not isinstance(content, Mapping):
        raise ValueError(f"{_at(place)}got {shown(content)}, expected an object")  # noqa: TRY004  (one kind of error for all)
    hints = _hints(typing.cast("type", kind))
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if not issubclass(kind, Part):
        unknown = [key for key in content if key not in known]
        if unknown:
            raise ValueError(f"{_under(place, unknown[0])}: no such key; known are {', '.join(known)}")
    values = {name: _checked(_under(place, name), content[name], hints[name]) for name in known if name in content}
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"has no {_under(place, name)}")
    try:
        found = kind(**values)
        if issubclass(kind, Part):
            kind.check(content)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{_at(place)}{error}") from error
    return found


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _under(place: str, key: object) -> str:
    name = shown(key)[1:-1] if isinstance(key, str) else shown(key)
    return f"{place}.{name}" if place else name


def _at(place: str) -> str:
    return f"{place}: " if place else ""


def _checked(place: str, value: Any, hint: Any) -> Any:
    """Return ``value`` as the type ``hint`` has it: a whole number as a float where it says so."""
    origin, given = typing.get_origin(hint), typing.get_args(hint)
    if origin in KINDS:
        return KINDS[origin](place, value, given)
    if is_dataclass(hint):
        return _read(typing.cast("type[Any]", hint), value, place)
    return value if hint is Any else _simple(place, value, hint)


def _annotated(place: str, value: Any, given: tuple[Any, ...]) -> Any:
    found = _checked(place, value, given[0])
    for rule in given[1:]:
        expected = rule(found)
        if expected is not None:
            raise _fault(place, value, expected)
    return found


def _literal(place: str, value: Any, given: tuple[Any, ...]) -> Any:
    if not any(type(value) is type(each) and value == each for each in given):
        raise _fault(place, value, " or ".join(map(repr, given)))
    return value


def _list(place: str, value: Any, given: tuple[Any, ...]) -> Any:
    items = _simple(place, value, list)
    return [_checked(_under(place, number), item, given[0]) for number, item in enumerate(items)]


def _dict(place: str, value: Any, given: tuple[Any, ...]) -> Any:
    items = _simple(place, value, dict)
    return {key: _checked(_under(place, key), item, given[1]) for key, item in items.items()}


def _one_of(place: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """Return ``value`` as one of several types has it; where it is not null, only one may be more than a simple one."""
    if value is None and type(None) in allowed:
        return None
    rich = [each for each in allowed if each not in NAMES]
    if rich:
        return _checked(place, value, rich[0])
    if type(value) is int and int not in allowed and float in allowed:
        return _simple(place, value, float)
    if type(value) not in allowed:
        raise _fault(place, value, " or ".join(NAMES[each] for each in allowed))
    return _simple(place, value, type(value))


def _simple(place: str, value: Any, wanted: type) -> Any:
    if wanted is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise _fault(place, value, "a number that is not so large") from error
    if type(value) is not wanted:
        raise _fault(place, value, NAMES[wanted])
    if isinstance(value, float) and not math.isfinite(value):
        raise _fault(place, value, "a finite number")
    return value


def _fault(place: str, value: object, expected: str) -> ValueError:
    return ValueError(f"{place}: got {shown(value)}, expected {expected}")


KINDS: Mapping[Any, Callable[[str, Any, tuple[Any, ...]], Any]] = {
    Annotated: _annotated,
    Union: _one_of,
    types.UnionType: _one_of,
    Literal: _literal,
    list: _list,
    dict: _dict,
}
"""From each kind of type with arguments to how a value is read as it."""
