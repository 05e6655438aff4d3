"""What a parameter takes, and what is wrong with a value or with the YAML of a file, in plain words."""

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

Schema = dict[str, Any]
"""A JSON schema."""


def values_in_words(node: Schema) -> str:
    """Return what a value of the JSON schema ``node`` may be, e.g. "an integer >= 1, or null"."""
    if "takes" in node:
        return str(node["takes"])
    plain = without_null(node)
    if plain is not node:
        return f"{values_in_words(plain)}, or null"
    choices = [node["const"]] if "const" in node else node.get("enum")
    if choices:
        return ", ".join(choices) if len(choices) == 1 else "one of " + ", ".join(choices)
    if "properties" in node:
        return "a section with the keys " + ", ".join(node["properties"])
    kind = node.get("type", "value")
    if kind == "array":
        return _list_in_words(node)
    words = {
        "string": "a text",
        "integer": "an integer",
        "number": "a number",
        "boolean": "true or false",
        "object": "keys with their values",
    }
    return " ".join([words.get(kind, f"a {kind}"), " and ".join(_bounds(node))]).strip()


def without_null(node: Schema) -> Schema:
    """Return the schema of the values other than null."""
    return next((one for one in node.get("anyOf", ()) if one.get("type") != "null"), node)


def _list_in_words(node: Schema) -> str:
    if "prefixItems" in node:
        items = node["prefixItems"]
        return f"a list of {len(items)}, each {values_in_words(items[0])}"
    least = node.get("minItems")
    some = "at least one" if least == 1 else f"at least {least}"
    count = "any number" if not least else least if least == node.get("maxItems") else some
    return f"a list of {count}, each {values_in_words(node.get('items', {}))}"


def _bounds(node: Schema) -> Iterator[str]:
    wordings = {
        "minimum": ">= {}",
        "exclusiveMinimum": "> {}",
        "maximum": "<= {}",
        "exclusiveMaximum": "< {}",
        "pattern": "that matches {}",
        "minLength": "that is not empty",
    }
    return (words.format(node[name]) for name, words in wordings.items() if name in node)


def value_fault(error: Any, model: type[BaseModel]) -> tuple[tuple[Any, ...], str] | None:
    """Return where a value of ``model`` is wrong, and the words on one of pydantic's ``error``s about it.

    None where another error says the same: a list whose items are wrong counts as too short.
    """
    location, kind, value = tuple(error["loc"]), error["type"], error["input"]
    if kind == "too_short" and len(value) >= error["ctx"]["min_length"]:
        return None
    if kind == "invalid_key":
        return location[:-1], f"got the key {location[-1]}, which is no text"
    if kind == "missing" and isinstance(location[-1], str):
        return location, f"missing; give {values_in_words(_node_at(model, location))}"
    if kind == "missing":  # an item of a list of fixed length
        location = location[:-1]
    # what follows a key with choices is pydantic's name of the one that it tried
    location = next(
        (location[:i] for i in range(len(location)) if _has_choices(_node_at(model, location[:i]))), location
    )
    node = _node_at(model, location)
    is_text = without_null(node).get("type") == "string"
    got = f"the text {value!r}" if isinstance(value, str) and not is_text else _shown(value)
    finite = ", neither infinite nor nan" if kind == "finite_number" else ""
    return location, f"got {got}; give {values_in_words(node)}{finite}"


def _has_choices(node: Schema) -> bool:
    choices = [one for one in node.get("anyOf", ()) if one.get("type") != "null"]
    return len(choices) > 1


def _shown(value: object) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)


@functools.cache
def _schema_of(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _node_at(model: type[BaseModel], location: Sequence[Any]) -> Schema:
    """Return the JSON schema of what stands at ``location`` of ``model``, or of the nearest thing above it."""
    schema = _schema_of(model)
    definitions: Schema = schema.get("$defs", {})

    def followed(node: Schema) -> Schema:
        return definitions[node["$ref"].rpartition("/")[2]] | node if "$ref" in node else node

    node = schema
    for part in location:
        inside = followed(without_null(node))
        if part in inside.get("properties", {}):
            node = followed(inside["properties"][part])
        elif isinstance(part, str) and isinstance(inside.get("additionalProperties"), dict):
            node = followed(inside["additionalProperties"])
        elif isinstance(part, int) and inside.get("type") == "array":
            items = inside.get("prefixItems", ())
            node = followed(items[part] if part < len(items) else inside.get("items", {}))
        else:
            break
    return node


PROBLEMS = {
    r"found character '\\t'.*": "a tab; indent with spaces",
    r"mapping values are not allowed.*": "a colon where none fits; check the indent, or put the text in quotes",
    r"expected <block end>.*": "it does not fit what stands above; check indents, quotes, and blanks after colons",
    r"found duplicate key \"(.*?)\".*": r"the key \1 stands there twice; keep one",
    r"found unknown escape character.*": "a backslash in double quotes; use single quotes",
    r"found unexpected end of stream": "a quote that is not closed",
    r"expected ',' or '(.)'.*": r"a bracket that is not closed; '\1' is missing",
    r"but found another document": "a second document begins; a file holds one",
}
"""The YAML library's wordings, and what they mean for who has written the file."""


def yaml_fault(error: Exception, text: str) -> str:
    """Return what is wrong with the YAML ``text``, from the ``error`` at reading it: line, column, its text, cause."""
    if isinstance(error, UnicodeDecodeError):
        return f"no text in UTF-8 from byte {error.start + 1} on"
    if isinstance(error, ReaderError):
        return f"line {text.count(chr(10), 0, error.position) + 1}: a character that YAML does not allow"
    mark = (error.problem_mark or error.context_mark) if isinstance(error, MarkedYAMLError) else None
    if not isinstance(error, MarkedYAMLError) or mark is None:
        return " ".join(str(error).split())
    problem = " ".join(str(error.problem or error.context).split())
    for pattern, words in PROBLEMS.items():
        found = re.fullmatch(pattern, problem)
        problem = found.expand(words) if found else problem
    lines = text.splitlines()
    shown = lines[mark.line].partition(" #")[0].strip()[:60] if mark.line < len(lines) else ""
    return f"line {mark.line + 1}, column {mark.column + 1}{f', {shown!r}' if shown else ''}: {problem}"
