"""The house: imports point downwards, between files and between rooms, and optional libraries stay in their rooms."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest

from pipeline.preflight.code import PACKAGES, PROJECT, CodeReader, read_source
from workbench.rooms import AT_ONCE, FILES, IMPORTS, ROOMS, folder, named_files, purpose, reached, room

LIBRARIES = {
    "tensorrt": ("tensorrt",),
    "polygraphy": ("polygraphy", "tensorrt"),
    "onnxruntime": ("onnx", "onnxruntime"),
    "timm": ("timm",),
}
"""Optional libraries: imported only in folders and files whose names begin so."""
ONLY_IN = {"click": "stages", "dvc": "nowhere"}
MODELS_THIRD_PARTY = {"torch", "torchvision", "timm"}


BESIDE: Mapping[str, set[str]] = {"workbench": set(), "attacks": {"workbench"}, "benchmarks": {"attacks", "workbench"}}
"""What stands between the chain and its tests: which of each other it imports."""
READER = CodeReader(PROJECT)
CODE = [name for name in FILES if PurePosixPath(name).parts[0] in PACKAGES]
"""What a user runs: neither tests nor what deploys."""


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Return each edge of ``graph`` that is part of a circle."""
    return sorted(f"{one} -> {other}" for one in graph for other in graph[one] if one in reached(graph, other))


@pytest.mark.parametrize("name", FILES)
def test_imports_point_downwards(name: str) -> None:
    """A table's loader may also load from the folders inside the table's room."""
    own = room(name)
    if own:
        at_once, loaded = (named_files(name, imports[name]) for imports in (AT_ONCE, IMPORTS))
        loaded = {file for file in loaded if not file.startswith(f"{own}/")}
        assert [file for file in at_once | loaded if room(file) and ROOMS.index(room(file)) > ROOMS.index(own)] == []


@pytest.mark.parametrize("package", [*PACKAGES, "deploy", *BESIDE])
def test_what_stands_beside_the_chain_imports_downwards_too(package: str) -> None:
    """No attack and no benchmark needs the tests, and nothing that ships needs either: ``workbench`` serves them."""
    above = {*BESIDE, "tests"} - {package} - BESIDE.get(package, set())
    for path in (PROJECT / package).rglob("*.py"):
        name = path.relative_to(PROJECT).as_posix()
        imports = {module.split(".")[0] for module in read_source(path.read_bytes(), name).imports}
        assert imports & above == set(), name


@pytest.mark.parametrize("name", CODE)
def test_a_package_imports_only_what_is_meant_for_it(name: str) -> None:
    package, found = PurePosixPath(name).parts[0], {module.split(".")[0] for module in IMPORTS[name]}
    assert all(package == where for library, where in ONLY_IN.items() if library in found)
    if package == "models":
        assert found - set(sys.stdlib_module_names) - {"models"} <= MODELS_THIRD_PARTY


@pytest.mark.parametrize("name", CODE)
def test_optional_libraries_stay_in_rooms_of_their_names(name: str) -> None:
    found = {module.split(".")[0] for module in IMPORTS[name]}
    parts = PurePosixPath(name).with_suffix("").parts
    for library, names in LIBRARIES.items():
        assert library not in found or any(part.startswith(names) for part in parts)


@pytest.mark.parametrize("name", [name for name in CODE if name.startswith("stages/")])
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


@pytest.mark.parametrize("name", [name for name in CODE if name.startswith("stages/")])
def test_what_is_printed_has_its_control_characters_escaped(name: str) -> None:
    text = Path(__file__).parents[1].joinpath(name).read_text()
    assert name == "stages/output.py" or not re.search(r"\b(click\.s?echo\w*|print)\(", text), (
        "stages.output.say prints"
    )


def test_no_circle_between_files() -> None:
    runs = {name: {file for module in AT_ONCE[name] for file in READER.module_files(module)} for name in CODE}
    assert circles({name: files - {name} for name, files in runs.items()}) == []


def test_no_circle_between_folders() -> None:
    """A folder inside a room is one of its own: ``data`` and ``data/sources`` must not import each other."""
    graph: dict[str, set[str]] = {}
    for name in CODE:
        others = {folder(file) for file in named_files(name, AT_ONCE[name])} - {folder(name)}
        graph[folder(name)] = graph.get(folder(name), set()) | others
    assert circles(graph) == []


def test_every_folder_is_a_package_in_a_room_and_says_what_it_is_for() -> None:
    for place in sorted({str(PurePosixPath(name).parent) for name in CODE}):
        init = f"{place}/__init__.py"
        assert init in READER.files
        assert room(init) or place == "pipeline"
        assert purpose(place)
