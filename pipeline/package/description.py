"""The JSON files in which a package says what it is, read back."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.core.errors import UserError, readable_file
from pipeline.core.files import Json
from pipeline.package.sums import AGAIN, damaged_files, say_again
from pipeline.tasks.base import Classes

CLASS_NAMES_FILE = "labels.json"
CLASS_NAMES_KEY = "labels"
CATEGORY_IDS_KEY = "category_ids"
PREPROCESSING_FILE = "preprocessing.json"


def read_description(folder: Path, name: str, sums: Mapping[str, str]) -> Json:
    """Return the JSON object in the file ``name``, which must be as its sum says.

    Raises:
        UserError: it is not; a line names each damaged file of the package.
    """
    path = folder / name
    with readable_file(path):
        data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != sums.get(name):
        raise UserError("\n".join(say_again(damaged_files(folder, {*sums, name}, sums))))
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); {AGAIN}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a JSON {type(content).__name__}, expected an object; {AGAIN}")
    return content


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turn what wrong content of the file ``path`` leads to into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not as a package has it ({error!r}); {AGAIN}") from error


def read_classes(content: Json) -> Classes:
    """Return what labels.json says; raises KeyError, TypeError or ValueError where that makes no sense."""
    names = read_texts(content[CLASS_NAMES_KEY])
    if CATEGORY_IDS_KEY not in content:
        return Classes(names)
    ids = content[CATEGORY_IDS_KEY]
    if not isinstance(ids, list) or not all(type(number) is int for number in ids):
        raise TypeError(f"{CATEGORY_IDS_KEY}: a list of whole numbers is needed, got {ids!r}")
    if len(ids) != len(names) or len(set(ids)) < len(ids):
        raise ValueError(f"{CATEGORY_IDS_KEY}: one of its own is needed for each of {len(names)} names, got {ids!r}")
    return Classes(names, tuple(ids))


def read_texts(names: object) -> tuple[str, ...]:
    """Return a list of texts; raises TypeError where ``names`` is none."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"a list of names is needed, got {names!r}")
    return tuple(names)
