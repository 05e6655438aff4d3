"""The rooms of the house: which file lies in which, and what they import of each other, read from the syntax trees."""

import ast
import functools
from collections.abc import Mapping
from pathlib import PurePosixPath

from pipeline.preflight.code import PACKAGES, PROJECT, Source, read_source

ROOMS = (
    "models",
    "pipeline/core",
    "pipeline/data",
    "pipeline/networks",
    "pipeline/runtimes",
    "pipeline/tasks",
    "pipeline/training",
    "pipeline/hosts",
    "pipeline/export",
    "pipeline/export/tensorrt",
    "pipeline/export/onnx",
    "pipeline/distillation",
    "pipeline/package",
    "pipeline/evaluation",
    "pipeline/report",
    "pipeline/params",
    "pipeline/preflight",
    "pipeline/comparison",
    "pipeline/serving",
    "stages",
    "deploy",
    "tests",
)
"""From the ground upwards: a file imports files of its own room and of rooms below."""


def _files_below(package: str) -> list[str]:
    return sorted(path.relative_to(PROJECT).as_posix() for path in (PROJECT / package).rglob("*.py"))


FILES = [name for package in (*PACKAGES, "deploy", "tests") for name in _files_below(package)]
"""All code that is in a room, relative to the project."""
_KNOWN = frozenset(FILES)


@functools.cache
def _source(name: str) -> Source:
    return read_source((PROJECT / name).read_bytes(), name)


def imports(name: str) -> frozenset[str]:
    """Return the modules that the file ``name`` imports anywhere."""
    return _source(name).imports


def imports_at_once(name: str) -> frozenset[str]:
    """Return those that it imports when it is imported itself; loaders of tables import when called."""
    return _source(name).imports_at_once


def room(name: str) -> str:
    """Return the room of the file ``name``: the longest of ``ROOMS`` that it lies in; empty where it is in none."""
    return max((place for place in ROOMS if name.startswith(f"{place}/")), key=len, default="")


def folder(name: str) -> str:
    """Return the folder of the file ``name``; a program's entry point lies above the folder that it is in."""
    path = PurePosixPath(name)
    return name if path.name == "__main__.py" else str(path.parent)


def named_files(name: str, modules: frozenset[str]) -> set[str]:
    """Return the files that ``modules``, imported by the file ``name``, name; packages above these do not count."""
    places = [module.replace(".", "/") for module in modules]
    return ({f"{place}.py" for place in places} | {f"{place}/__init__.py" for place in places}) & _KNOWN - {name}


def purpose(place: str) -> str:
    """Return what the package in the folder ``place`` is for: its docstring as far as the first full stop.

    Raises:
        ValueError: it has no docstring.
    """
    text = ast.get_docstring(ast.parse((PROJECT / place / "__init__.py").read_bytes()))
    if not text:
        raise ValueError(f"{place}/__init__.py has no docstring that says what the folder is for")
    return " ".join(text.split()).replace("``", "").partition(". ")[0].rstrip(".")


def reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return the nodes to which edges lead from ``start``, and itself."""
    found, waiting = set[str](), {start}
    while waiting:
        node = waiting.pop()
        found.add(node)
        waiting |= graph.get(node, set()) - found
    return found
