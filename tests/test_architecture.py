"""The house: imports point downwards, between files and between rooms, and optional libraries stay in their rooms."""

import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest

from pipeline.preflight.code import PROJECT, CodeReader, read_source

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
)
"""From the ground upwards: a file imports files of its own room and of rooms below."""
LIBRARIES = {
    "tensorrt": ("tensorrt",),
    "polygraphy": ("polygraphy", "tensorrt"),
    "onnxruntime": ("onnx", "onnxruntime"),
    "timm": ("timm",),
}
"""Optional libraries: imported only in folders and files whose names begin so."""
ONLY_IN = {"click": "stages", "dvc": "nowhere"}
MODELS_THIRD_PARTY = {"torch", "torchvision", "timm"}


class WithoutFunctions(ast.NodeTransformer):
    """Leaves of a file what runs when it is imported."""

    def visit_FunctionDef(self, _: ast.FunctionDef) -> ast.AST:
        return ast.Pass()

    def visit_AsyncFunctionDef(self, _: ast.AsyncFunctionDef) -> ast.AST:
        return ast.Pass()


def imports_at_once(name: str) -> frozenset[str]:
    """Return what the file ``name`` imports when it is imported itself; loaders of tables import when called."""
    tree = WithoutFunctions().visit(ast.parse((PROJECT / name).read_bytes()))
    return read_source(ast.unparse(tree).encode(), name).imports


READER = CodeReader(PROJECT)
FILES = sorted(name for name in READER.files if name.endswith(".py"))
IMPORTS = {name: read_source((PROJECT / name).read_bytes(), name).imports for name in FILES}
AT_ONCE = {name: imports_at_once(name) for name in FILES}


def folder(name: str) -> str:
    """Return the folder of the file ``name``; a program's entry point lies above the folder that it is in."""
    path = PurePosixPath(name)
    return name if path.name == "__main__.py" else str(path.parent)


def room(name: str) -> str:
    """Return the room of the file ``name``: the longest of ``ROOMS`` that it lies in; empty where it is in none."""
    return max((place for place in ROOMS if name.startswith(f"{place}/")), key=len, default="")


def named_files(name: str, imports: frozenset[str]) -> set[str]:
    """Return the files that ``imports`` of the file ``name`` name; packages above these do not count."""
    places = [module.replace(".", "/") for module in imports]
    return ({f"{place}.py" for place in places} | {f"{place}/__init__.py" for place in places}) & READER.files - {name}


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Return each edge of ``graph`` that is part of a circle."""
    return sorted(f"{one} -> {other}" for one in graph for other in graph[one] if one in reached(graph, other))


def reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return the nodes to which edges lead from ``start``."""
    found, waiting = set[str](), {start}
    while waiting:
        node = waiting.pop()
        found.add(node)
        waiting |= graph.get(node, set()) - found
    return found


@pytest.mark.parametrize("name", FILES)
def test_imports_point_downwards(name: str) -> None:
    """A table's loader may also load from the folders inside the table's room."""
    own = room(name)
    if own:
        at_once, loaded = (named_files(name, imports[name]) for imports in (AT_ONCE, IMPORTS))
        loaded = {file for file in loaded if not file.startswith(f"{own}/")}
        assert [file for file in at_once | loaded if room(file) and ROOMS.index(room(file)) > ROOMS.index(own)] == []
    package, found = PurePosixPath(name).parts[0], {module.split(".")[0] for module in IMPORTS[name]}
    assert all(package == where for library, where in ONLY_IN.items() if library in found)
    if package == "models":
        assert found - set(sys.stdlib_module_names) - {"models"} <= MODELS_THIRD_PARTY


@pytest.mark.parametrize("name", FILES)
def test_optional_libraries_stay_in_rooms_of_their_names(name: str) -> None:
    found = {module.split(".")[0] for module in IMPORTS[name]}
    parts = PurePosixPath(name).with_suffix("").parts
    for library, names in LIBRARIES.items():
        assert library not in found or any(part.startswith(names) for part in parts)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("stages/")])
def test_stages_never_import_each_other(name: str) -> None:
    own = {file for file in named_files(name, IMPORTS[name]) if file.startswith("stages/")}
    if name in {"stages/__main__.py", "stages/commands/consumer.py"}:
        own = {file for file in own if not file.startswith("stages/commands/")}
    assert own <= {
        "stages/__init__.py",
        "stages/common.py",
        "stages/declared.py",
        "stages/exit_codes.py",
        "stages/hosts.py",
        "stages/output.py",
        "stages/commands/__init__.py",
        "stages/commands/options.py",
    }


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("stages/")])
def test_what_is_printed_has_its_control_characters_escaped(name: str) -> None:
    text = Path(__file__).parents[1].joinpath(name).read_text()
    assert name == "stages/output.py" or not re.search(r"\b(click\.s?echo\w*|print)\(", text), (
        "stages.output.say prints"
    )


def test_no_circle_between_files() -> None:
    runs = {name: {file for module in AT_ONCE[name] for file in READER.module_files(module)} for name in FILES}
    assert circles({name: files - {name} for name, files in runs.items()}) == []


def test_no_circle_between_folders() -> None:
    """A folder inside a room is one of its own: ``data`` and ``data/sources`` must not import each other."""
    graph: dict[str, set[str]] = {}
    for name in FILES:
        others = {folder(file) for file in named_files(name, AT_ONCE[name])} - {folder(name)}
        graph[folder(name)] = graph.get(folder(name), set()) | others
    assert circles(graph) == []


def test_every_folder_is_a_package_in_a_room_and_says_what_it_is_for() -> None:
    for place in sorted({str(PurePosixPath(name).parent) for name in FILES}):
        init = f"{place}/__init__.py"
        assert init in READER.files
        assert room(init) or place == "pipeline"
        assert ast.get_docstring(ast.parse((PROJECT / init).read_bytes())), init
