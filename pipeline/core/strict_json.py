"""JSON as every reader of it understands it alike: no key twice, no number that JSON has not, texts that are UTF-8."""

import json
from typing import Any, NoReturn


def parse_json(data: bytes) -> dict[str, Any]:
    """Return the object that ``data`` is.

    Raises:
        ValueError: it is no JSON in UTF-8, none that all readers understand alike, or no object.
    """
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
        if b"\\ud" in data.lower():  # half of a character has no bytes, and could not be written anywhere
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("not valid JSON (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"holds a JSON {type(content).__name__}, expected an object")  # noqa: TRY004  (one kind)
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {twice[:100]!r} stands there twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
