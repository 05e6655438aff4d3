"""Write parameters as a commented file, and explain single keys."""

import difflib
import functools
import io
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from pipeline.core.errors import UserError
from pipeline.params.reference import Parameter, parameters
from pipeline.params.schema import Params

HEADER = (
    "Every key is required and no other is allowed; what stands without a value is null.",
    "fmkt params --explain KEY says what a key means; (rare) marks what is rarely changed.",
    "Whatever changes here reruns exactly the stages that read it.",
)
RARE = "(rare) "
INDENT = "  "
COLUMN = 32
"""Where the comments at the ends of lines begin."""
WIDTH = 120
"""The longest line; what does not fit of a comment stands below, in the same column."""
LEAST = 50
"""Characters of a comment that a line has room for, however long what stands before it."""
PLAIN_FLOATS_FROM = 1e-3
"""Smaller values are written with an exponent."""


def render(params: Params, title: str) -> str:
    """Return the text of a complete parameters file that holds ``params``; ``title`` is its first comment.

    It is as ``dvc exp run --set-param`` writes it, so that this changes the lines of its keys alone: null is nothing,
    lists and sections are blocks, and no comment or empty line follows a list, with which DVC would drop it.
    """
    values = params.model_dump(mode="json")
    lines = [f"# {line}" for line in (title, *HEADER)]
    for name, section in parameters().children.items():
        if not lines[-1].lstrip().startswith("- "):
            lines.append("")
        lines += _block(section, values[name], depth=0)
    return "\n".join(lines) + "\n"


def _block(parameter: Parameter, value: Any, *, depth: int) -> Iterator[str]:
    """Yield the lines of a key or section; in a section its keys stand above its sections, knobs above the rest."""
    if not parameter.children:
        yield from _commented(_key_lines(parameter.name, value, depth), _comment(parameter))
        return
    yield from _commented([f"{depth * INDENT}{parameter.name}:"], _comment(parameter))
    for child in sorted(parameter.children.values(), key=lambda child: (bool(child.children), child.is_rare)):
        yield from _block(child, value[child.name], depth=depth + 1)


def _comment(parameter: Parameter) -> str:
    """Return the description with the names that the key takes, where it lacks them."""
    parts = [parameter.description]
    if not set(parameter.choices) <= set(re.findall(r"[\w-]+", parameter.description)):
        parts.append(("any of " if parameter.is_list else "one of ") + ", ".join(parameter.choices))
    return (RARE if parameter.is_rare else "") + "; ".join(parts)


def _commented(lines: Sequence[str], comment: str) -> Iterator[str]:
    """Yield ``lines`` with ``comment`` behind the key, or behind the value where that takes several lines."""
    at = 0 if lines[0].endswith(":") else len(lines) - 1
    column = max(COLUMN, len(lines[at]) + 2)
    first, *more = textwrap.wrap(comment, max(LEAST, WIDTH - column - 2))
    yield from lines[:at]
    yield f"{lines[at]:{column}}# {first}"
    yield from (f"{'':{column}}# {text}" for text in more)
    yield from lines[at + 1 :]


def _key_lines(name: str, value: Any, depth: int) -> list[str]:
    """Return the lines of a key at ``depth`` as DVC's YAML writes them."""
    return [*_lines_of(name, json.dumps(value), depth)]


@functools.cache
def _lines_of(name: str, value: str, depth: int) -> tuple[str, ...]:
    """Return the lines of a key whose ``value`` is given as JSON; most are the same in all presets."""
    content: Any = {name: _scalar(json.loads(value))}
    for _ in range(depth):
        content = {"section": content}
    return tuple(_dumped(content).splitlines()[depth:])


def _scalar(value: Any) -> Any:
    """Return ``value``, or each of its items, as a type that is dumped in a form of its own."""
    if isinstance(value, list):
        return [_scalar(item) for item in value]
    if isinstance(value, float):
        return YAML().load(_float_text(value))
    if isinstance(value, str) and not value.isprintable():
        return DoubleQuotedScalarString(value)
    return value


def _dumped(content: Any, **settings: Any) -> str:
    yaml = YAML()
    yaml.default_flow_style = False
    for name, setting in settings.items():
        setattr(yaml, name, setting)
    buffer = io.StringIO()
    yaml.dump(content, buffer)
    return buffer.getvalue()


def _text(value: Any) -> str:
    """Return ``value`` on one line of YAML 1.2."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, str):  # of a list, without its brackets
        return _dumped([_scalar(value)], default_flow_style=True, width=10**9).strip()[1:-1]
    return json.dumps(value)  # null, true, false or an integer


def _float_text(value: float) -> str:
    """Return ``value`` with a point, and with a signed exponent where it is small: readers of YAML 1.1 need both."""
    text = repr(value)
    if "e" not in text and (value == 0 or abs(value) >= PLAIN_FLOATS_FROM):
        return text
    digits, _, exponent = f"{Decimal(text):e}".partition("e")
    return f"{digits if '.' in digits else digits + '.0'}e{exponent}"


def overview() -> str:
    """Return the sections, a line each."""
    return "\n".join(_listing(parameters()))


def explain(key: str) -> str:
    """Return what the parameter or section ``key`` means, what it takes, and its default.

    Raises:
        UserError: there is no such key; names the nearest ones and those beside it.
    """
    found = _find(key)
    lines = [f"{found.key}: {found.description}"]
    if found.children:
        return "\n".join([*lines, *_listing(found)])
    if found.choices:
        width = max(map(len, found.choices))
        lines.append("  any of" if found.is_list else "  one of")
        lines += [f"    {name:{width}}  {text}".rstrip() for name, text in found.choices.items()]
    else:
        lines.append(f"  takes    {found.values}")
    if found.names_of == "backbones":
        lines += _backbones()
    return "\n".join([*lines, f"  default  {_text(found.default)}"])


def _backbones() -> Iterator[str]:
    """Yield the names of all backbones, with what provides them; imports PyTorch."""
    from models.backbones.sources import BACKBONE_SOURCES

    for source in BACKBONE_SOURCES.values():
        yield f"    {source.name}: {source.description}"
        names = source.how_to_list or ", ".join(source.names() if source.names is not None else ())
        yield from textwrap.wrap(names, WIDTH, initial_indent="      ", subsequent_indent="      ")


def _listing(section: Parameter) -> Iterator[str]:
    """Yield a line for each key of ``section``: name, default, description."""
    shown = {name: "" if child.children else _text(child.default) for name, child in section.children.items()}
    names, values = max(map(len, shown)), max(map(len, shown.values()))
    for name, value in shown.items():
        columns = [f"{name:{names}}", f"{value:{values}}", section.children[name].description]
        yield "  " + "  ".join(column for column in columns if column)


def _find(key: str) -> Parameter:
    found = parameters()
    for part in key.split("."):
        if part not in found.children:
            raise UserError(_unknown(key, found))
        found = found.children[part]
    return found


def _unknown(key: str, above: Parameter) -> str:
    """Return the message about ``key``, of which ``above`` is the part that is known."""
    known = [parameter.key for parameter in parameters().all_below()]
    last = key.rpartition(".")[2]
    near = [other for other in known if other.rpartition(".")[2] == last]
    near = [*near, *(parameter.key for parameter in parameters().all_below() if key in parameter.was)]
    near = near or difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    there = f"{above.key} has" if above.key else "the sections are"
    return f"unknown parameter {key!r}; {hint}{there} {', '.join(above.children) or 'no keys'}"
