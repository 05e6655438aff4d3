"""The classes of given weights, in their order: read from the user's file, and found among those of the data."""

import difflib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable

KEY = "train_teacher.classes"
LARGEST = 2**24
"""Bytes that a list of names may have."""
TABLES = ("id2label", "label2id", "class_to_idx", "idx_to_class", "classes", "class_names", "labels", "categories")
"""Keys under which JSON files of other programs, and data.json, have the classes."""
WORDNET = re.compile(r"(n\d{8})\s+(.+)")
"""A line of ImageNet's lists: the name of a folder, and what people call it."""
Names = tuple[str, ...]
"""What one class is called."""


def read_classes(path: Path) -> list[Names]:
    """Return the names of each class, in the order of the outputs.

    A text has a name on each line. JSON is a list, from index to name, or from name to index, whole or under a usual
    key; where a class has several names (a list, ImageNet's ``n01440764 tench``) any of them stands for it.

    Raises:
        UserError: the file is missing, is no such list, or has a name twice.
    """
    with readable_file(path):
        if path.stat().st_size > LARGEST:
            raise _fault(path, f"has more than {LARGEST} bytes, which no list of classes needs")
        content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _fault(path, f"is no text in UTF-8 ({error})") from error
    is_json = text.lstrip()[:1] in ("{", "[")
    classes = _from_json(path, text) if is_json else [_aliases(line) for line in text.splitlines() if line.strip()]
    if len(classes) < 2:
        raise _fault(path, f"names {len(classes)} classes; a classifier has two at least")
    (name, count), *_ = Counter(names[0] for names in classes).most_common(1)
    if count > 1:
        raise _fault(path, f"names {printable(name)!r} more than once")
    return classes


def find_classes(wanted: Sequence[str], classes: Sequence[Names], path: Path) -> list[int]:
    """Return for each of the ``wanted`` classes of the data the output of the teacher whose ``classes`` were read.

    Names are compared as they are; where that finds none, without regard to case, blanks, ``_`` and ``-``, or by
    another name of the class, if that is one's alone.

    Raises:
        UserError: a class is not among them, or two are the same one.
    """
    exact = {unicodedata.normalize("NFC", names[0]): i for i, names in enumerate(classes)}
    loose: dict[str, set[int]] = {}
    for i, names in enumerate(classes):
        for name in names:
            loose.setdefault(_folded(name), set()).add(i)
    found = []
    for name in wanted:
        candidates = loose.get(_folded(name), set())
        position = exact.get(
            unicodedata.normalize("NFC", name), next(iter(candidates)) if len(candidates) == 1 else None
        )
        if position is None:
            raise _missing(path, name, classes, is_ambiguous=len(candidates) > 1)
        found.append(position)
    if len(set(found)) < len(found):
        position = next(position for position in found if found.count(position) > 1)
        both = [printable(name) for name, place in zip(wanted, found, strict=True) if place == position]
        raise _fault(
            path, f"{' and '.join(both)} of the data are the same class of it, {printable(classes[position][0])}"
        )
    return found


def _from_json(path: Path, text: str) -> list[Names]:
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _fault(path, f"is not valid JSON ({error})") from error
    if isinstance(content, Mapping):
        content = next((content[key] for key in TABLES if isinstance(content.get(key), list | dict)), content)
    if isinstance(content, Mapping):
        content = _by_index(path, content)
    classes = [_names(item) for item in content]
    odd = [i for i, names in enumerate(classes) if not names]
    if odd:
        raise _fault(path, f"class {odd[0]} is {printable(content[odd[0]])!r:.60}, which is no name")
    return classes


def _by_index(path: Path, content: Mapping[str, object]) -> list[object]:
    """Return the names in the order of their indices."""
    values = list(content.values())
    if values and all(type(value) is int for value in values):
        pairs: list[tuple[object, object]] = [(value, key) for key, value in content.items()]
    else:
        pairs = [(int(key) if key.isdecimal() else key, value) for key, value in content.items()]
    names = dict(pairs)
    if set(names) != set(range(len(values))) or len(names) < len(values):
        raise _fault(path, "does not have each index from 0 on once; give a list, or from index to name")
    return [names[i] for i in range(len(values))]


def _names(item: object) -> Names:
    items = item if isinstance(item, list | tuple) else [item]
    if not items or not all(
        isinstance(one, str | int) and not isinstance(one, bool) and str(one).strip() for one in items
    ):
        return ()
    return tuple(alias for one in items for alias in _aliases(str(one)))


def _aliases(line: str) -> Names:
    """Return the names in a line: all of it, then what ImageNet's lists put beside each other."""
    whole = line.strip()
    found = WORDNET.fullmatch(whole)
    parts = [found[1], found[2]] if found else []
    parts += [part.strip() for part in (parts[-1] if parts else whole).split(",")]
    return tuple(dict.fromkeys([whole, *filter(None, parts)]))


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def _missing(path: Path, name: str, classes: Sequence[Names], *, is_ambiguous: bool) -> UserError:
    if is_ambiguous:
        return _fault(path, f"more than one of its classes may be {printable(name)!r} of the data; spell it alike")
    known = [one[0] for one in classes]
    near = difflib.get_close_matches(name, known, n=2) or known[:3]
    shown = ", ".join(map(printable, near))
    return _fault(
        path, f"has no class {printable(name)!r}, which the data have; of its {len(known)} the nearest: {shown}"
    )


def _fault(path: Path, what: str) -> UserError:
    return UserError(f"{KEY}: {printable(path)}: {what}")
