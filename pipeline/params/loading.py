"""Read a parameters file, whole or one section; say of every wrong key what was found there and what is allowed.

Nothing here knows a section: who reads one says which settings it holds.
"""

import copy
import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.core.errors import UserError
from pipeline.core.settings import Section
from pipeline.params.wording import value_fault, yaml_fault

S = TypeVar("S", bound=Section)
Location = tuple[Any, ...]
"""The parts of a key: names of sections and keys, and positions in lists."""


def load_section(path: Path, name: str, model: type[S], *, only: Sequence[str] | None = None) -> S:
    """Return the section ``name``, dotted where it lies in another, of the parameters file ``path``.

    Whatever is wrong elsewhere in the file does not matter.

    Args:
        only: dotted keys and sections of the file; the settings returned have no attribute for any other.

    Raises:
        UserError: the file is missing or not YAML, or a key of the section is unknown, missing or ill-typed; one line
            for each.
    """
    content = read_sections(path)
    location = tuple(name.split("."))
    for depth, part in enumerate(location):
        if not isinstance(content, dict) or part not in content:
            raise UserError(f"{path}: {_missing_line(location[: depth + 1])}")
        content = content[part]
    section = validated(content, model, path, location)
    if only is not None:
        _take_out(section, name, only)
    return section


def _take_out(section: BaseModel, name: str, only: Sequence[str]) -> None:
    """Take out of ``section``, which stands at ``name``, all but the keys and sections ``only``."""
    for field in type(section).model_fields:
        key = f"{name}.{field}"
        if any(f"{key}.".startswith(f"{kept}.") for kept in only):
            continue
        if any(kept.startswith(f"{key}.") for kept in only):
            _take_out(getattr(section, field), key, only)
        else:
            del section.__dict__[field]


def read_sections(path: Path) -> Any:
    """Return what the parameters file ``path`` holds, from each section's name to its content.

    Raises:
        UserError: the file is missing, not YAML, or holds no sections.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no sections; fmkt preset NAME writes a complete file")
    return content


def read_yaml(path: Path) -> object:
    """Return what the YAML 1.2 file ``path`` holds.

    Raises:
        UserError: the file is missing or not YAML.
    """
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        return copy.deepcopy(_parsed(text))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a YAML file, e.g. params.yaml") from error
    except RecursionError as error:
        raise UserError(f"{path}: not valid YAML: nested too deeply") from error
    except (YAMLError, ValueError, LookupError, TypeError) as error:  # all but the first: of values that are none
        raise UserError(f"{path}: not valid YAML: {yaml_fault(error, text)}") from error


@functools.lru_cache(maxsize=16)
def _parsed(text: str) -> object:
    """Return what ``text`` holds; a stage reads the same file once for each of its sections."""
    return YAML(typ="safe", pure=True).load(text)


def validated(content: object, model: type[S], source: Path | str, location: Location = ()) -> S:
    """Return ``content`` as a ``model``; every key must be there, although each has a default.

    Args:
        source: the file that ``content`` is from, for messages.
        location: where it stands in the file.

    Raises:
        UserError: a key is unknown, missing or ill-typed, or breaks a rule; one line for each.
    """
    missing = list(missing_keys(content, model))
    try:
        found, errors = model.model_validate(content), []
    except ValidationError as error:
        found, errors = None, [one for one in error.errors() if not _is_premature(one, missing)]
    lines = fault_lines(errors, model, location)
    # a misspelt key is one mistake: the right one is not reported missing beside it
    meant = [(*_parent(error), _nearest(error, model)) for error in errors if error["type"] == "extra_forbidden"]
    lines += [_missing_line((*location, *key)) for key in missing if key not in meant]
    if lines or found is None:
        raise UserError("\n".join(f"{source}: {line}" for line in lines))
    return found


def missing_keys(content: object, model: type[BaseModel]) -> Iterator[Location]:
    """Yield the location of each key of ``model`` that is not in ``content``; of a missing section, the section's."""
    if not isinstance(content, dict):
        return
    for name in model.model_fields:
        if name not in content:
            yield (name,)
        elif (section := section_at(model, (name,))) is not None:
            yield from ((name, *rest) for rest in missing_keys(content[name], section))


def section_at(model: type[BaseModel], location: Sequence[Any]) -> type[BaseModel] | None:
    """Return the class of the section at ``location`` of ``model``, or None where there is none."""
    section = model
    for part in location:
        field = section.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return None
        section = field.annotation
    return section


def _is_premature(error: Any, missing: Sequence[Location]) -> bool:
    """Return whether ``error`` is of a rule between keys, of which some are missing."""
    location = error["loc"]
    of_rule = error["type"] == "value_error"
    return of_rule and any(len(key) > len(location) and key[: len(location)] == location for key in missing)


def fault_lines(errors: Iterable[Any], model: type[BaseModel], location: Location = ()) -> list[str]:
    """Return a line for each of pydantic's ``errors`` about a ``model`` that stands at ``location`` of its file."""
    lines = (_describe(error, model, location) for error in errors)
    return list(dict.fromkeys(line for line in lines if line is not None))


def _describe(error: Any, model: type[BaseModel], location: Location) -> str | None:
    """Return the line of an error: section.key, what was got, what is allowed; None where others say the same."""
    key = _dotted((*location, *error["loc"]))
    if error["type"] == "extra_forbidden":
        nearest = _nearest(error, model)
        hint = f"did you mean {nearest}? " if nearest else ""
        got = "" if isinstance(error["input"], dict) else f"got {error['input']!r}, but "
        return f"{key}: {got}the key is unknown; {hint}allowed here: {', '.join(_siblings(error, model))}"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}" if key else str(error["ctx"]["error"])
    fault = value_fault(error, model)
    return None if fault is None else f"{_dotted((*location, *fault[0]))}: {fault[1]}"


def _missing_line(location: Location) -> str:
    key = _dotted(location)
    return f"{key}: missing; fmkt params --explain {key} describes it, fmkt preset NAME writes a complete file"


def _nearest(error: Any, model: type[BaseModel]) -> str | None:
    """Return the key that was meant by an unknown one, or None."""
    unknown = str(error["loc"][-1])
    fields = _siblings(error, model)
    renamed = [name for name, field in fields.items() if unknown in (field.json_schema_extra or {}).get("was", ())]
    return next(iter([*renamed, *difflib.get_close_matches(unknown, fields, n=1)]), None)


def _siblings(error: Any, model: type[BaseModel]) -> Mapping[str, Any]:
    """Return the keys that are allowed where the error's key stands, with their fields."""
    section = section_at(model, _parent(error))
    return section.model_fields if section else {}


def _parent(error: Any) -> Location:
    return tuple(error["loc"][:-1])


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))
