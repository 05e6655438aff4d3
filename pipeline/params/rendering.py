"""Write parameters as a commented file, and explain single keys."""

import difflib
import io
import json
import re
import textwrap
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from pipeline.core.errors import UserError
from pipeline.params.reference import Parameter, parameters
from pipeline.params.schema import Params

HEADER = (
    "Every key is required and no other is allowed; fmkt params --explain KEY says what one means.",
    "Whatever changes here reruns exactly the stages that read it.",
)
RARE = "# rarely changed"
COLUMN = 32
"""Where the comments at the ends of lines begin."""
WIDTH = 120
"""The longest line; a comment that does not fit stands above its key."""
INLINE_KEYS = 4
INLINE_WIDTH = 100
"""A section of so many plain keys, at most, stands on one line of no more characters."""
PLAIN_FLOATS_FROM = 1e-3
"""Smaller values are written with an exponent."""


def render(params: Params, title: str) -> str:
    """Return the text of a complete parameters file that holds ``params``; ``title`` is its first comment."""
    values = params.model_dump(mode="json")
    lines = [f"# {line}" for line in (title, *HEADER)]
    for name, section in parameters().children.items():
        lines += ["", *_block(section, values[name], indent="")]
    return "\n".join(lines) + "\n"


def _block(parameter: Parameter, value: Any, *, indent: str) -> Iterator[str]:
    """Yield the lines of a key or section."""
    head = f"{indent}{parameter.name}:"
    if not parameter.children or _is_inline(parameter, value, indent):
        yield from _commented(f"{head} {_text(value)}", _comment(parameter), indent)
        return
    yield from _commented(head, parameter.description, indent)
    inner = f"{indent}  "
    knobs = [child for child in parameter.children.values() if not child.is_rare]
    rest = [child for child in parameter.children.values() if child.is_rare]
    for child in knobs:
        yield from _block(child, value[child.name], indent=inner)
    if rest:
        yield f"{inner}{RARE}"
    for child in rest:
        yield from _block(child, value[child.name], indent=inner)


def _is_inline(parameter: Parameter, value: Any, indent: str) -> bool:
    """Return whether a section stands on one line: a small one within another, without sections of its own."""
    is_leaf = not any(child.children for child in parameter.children.values())
    is_small = len(parameter.children) <= INLINE_KEYS
    return bool(indent) and is_leaf and is_small and len(f"{indent}{parameter.name}: {_text(value)}") <= INLINE_WIDTH


def _comment(parameter: Parameter) -> str:
    """Return the description with the names that the key takes, or keys of a section on one line, if it lacks them."""
    parts = [parameter.description]
    if not set(parameter.choices) <= set(re.findall(r"[\w-]+", parameter.description)):
        parts.append(("any of " if parameter.is_list else "one of ") + ", ".join(parameter.choices))
    parts += [f"{name}: {', '.join(child.choices)}" for name, child in parameter.children.items() if child.choices]
    return "; ".join(parts)


def _commented(line: str, comment: str, indent: str) -> Iterator[str]:
    """Yield ``line`` with ``comment`` at its end, or below the comment where that would be too long."""
    whole = f"{line:{COLUMN - 2}}  # {comment}"
    if len(whole) <= WIDTH:
        yield whole
        return
    yield from textwrap.wrap(comment, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    yield line


def _text(value: Any) -> str:
    """Return ``value`` on one line of YAML 1.2."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, str):
        return _string_text(value)
    return json.dumps(value)  # null, true, false or an integer


def _float_text(value: float) -> str:
    """Return ``value`` with a point, and with a signed exponent where it is small: readers of YAML 1.1 need both."""
    text = repr(value)
    if "e" not in text and (value == 0 or abs(value) >= PLAIN_FLOATS_FROM):
        return text
    digits, _, exponent = f"{Decimal(text):e}".partition("e")
    return f"{digits if '.' in digits else digits + '.0'}e{exponent}"


def _string_text(value: str) -> str:
    yaml = YAML()
    yaml.default_flow_style = True
    yaml.width = 10**9
    yaml.allow_unicode = True
    buffer = io.StringIO()
    yaml.dump([value if value.isprintable() else DoubleQuotedScalarString(value)], buffer)
    return buffer.getvalue().strip()[1:-1]  # without the brackets of the list


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
    return "\n".join([*lines, f"  default  {_text(found.default)}"])


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
