"""Read params.yaml; say of every wrong key what was found there and what is allowed."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.core.errors import UserError
from pipeline.params.schema import Params


def load_params(path: Path) -> Params:
    """Return the parameters in the YAML 1.2 file ``path``.

    Raises:
        UserError: the file is missing or not YAML, or a key is unknown, missing or ill-typed; one line for each.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no sections; expected {', '.join(Params.model_fields)}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in describe(error.errors()))) from error


def read_yaml(path: Path) -> object:
    """Return what the YAML 1.2 file ``path`` holds.

    Raises:
        UserError: the file is missing or not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a YAML file, e.g. params.yaml") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {_one_line(error)}") from error


def describe(errors: Iterable[Any]) -> list[str]:
    """Return one line for each of pydantic's ``errors``: section.key, what was got, what is allowed.

    A misspelt key is one mistake, so the correctly spelt key is not reported missing beside it.
    """
    found = list(errors)
    meant = {(*_parent(error), _suggestion(error)) for error in found if error["type"] == "extra_forbidden"}
    return [_describe_one(error) for error in found if error["type"] != "missing" or error["loc"] not in meant]


def _describe_one(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{key}: missing; see presets/ for a complete file with this key"
    if error["type"] == "extra_forbidden":
        suggestion = _suggestion(error)
        hint = f"did you mean {suggestion}? " if suggestion else ""
        got = "" if isinstance(error["input"], dict) else f"got {error['input']!r}, but "
        return f"{key}: {got}the key is unknown; {hint}allowed here: {', '.join(_siblings(error))}"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}" if key else str(error["ctx"]["error"])
    return f"{key}: got {error['input']!r}; {_lower_first(error['msg'])}"


def _parent(error: Any) -> tuple[Any, ...]:
    return tuple(error["loc"][:-1])


def _suggestion(error: Any) -> str | None:
    return next(iter(difflib.get_close_matches(str(error["loc"][-1]), _siblings(error), n=1)), None)


def _siblings(error: Any) -> list[str]:
    """Return the keys that are allowed where the error's key stands."""
    section: type[BaseModel] = Params
    for part in _parent(error):
        annotation = _keys(section)[part]
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        section = annotation
    return list(_keys(section))


def _keys(section: type[BaseModel]) -> dict[str, Any]:
    """Return the type of each key of ``section``, by the name that stands in the file."""
    return {field.alias or name: field.annotation for name, field in section.model_fields.items()}


def _lower_first(message: str) -> str:
    return message[:1].lower() + message[1:]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
