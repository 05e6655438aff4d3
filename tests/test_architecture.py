"""The house: imports point downwards, between files and between rooms, and optional libraries stay in their rooms."""

import re
import sys
from collections.abc import Mapping
from pathlib import PurePosixPath

import pytest

from pipeline.preflight.code import PACKAGES, PROJECT, CodeReader, read_source
from workbench.rooms import FILES, ROOMS, folder, imports, imports_at_once, named_files, purpose, reached, room

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
STAGES = [name for name in CODE if name.startswith("stages/")]


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Return each edge of ``graph`` that is part of a circle."""
    return sorted(f"{one} -> {other}" for one in graph for other in graph[one] if one in reached(graph, other))


def test_imports_point_downwards() -> None:
    """A table's loader may also load from the folders inside the table's room."""
    upwards = {}
    for name in filter(room, FILES):
        own = room(name)
        at_once, loaded = (named_files(name, modules(name)) for modules in (imports_at_once, imports))
        loaded = {file for file in loaded if not file.startswith(f"{own}/")}
        files = [file for file in at_once | loaded if room(file) and ROOMS.index(room(file)) > ROOMS.index(own)]
        upwards |= {name: files} if files else {}
    assert upwards == {}


@pytest.mark.parametrize("package", [*PACKAGES, "deploy", *BESIDE])
def test_what_stands_beside_the_chain_imports_downwards_too(package: str) -> None:
    """No attack and no benchmark needs the tests, and nothing that ships needs either: ``workbench`` serves them."""
    above = {*BESIDE, "tests"} - {package} - BESIDE.get(package, set())
    for path in (PROJECT / package).rglob("*.py"):
        name = path.relative_to(PROJECT).as_posix()
        found = {module.split(".")[0] for module in read_source(path.read_bytes(), name).imports}
        assert found & above == set(), name


def libraries(name: str) -> set[str]:
    """Return what the file ``name`` imports anywhere, by the first part of its name."""
    return {module.split(".")[0] for module in imports(name)}


def test_a_package_imports_only_what_is_meant_for_it() -> None:
    allowed = set(sys.stdlib_module_names) | {"models"} | MODELS_THIRD_PARTY
    for name in CODE:
        package = PurePosixPath(name).parts[0]
        assert all(package == where for library, where in ONLY_IN.items() if library in libraries(name)), name
        assert package != "models" or libraries(name) <= allowed, name


def test_optional_libraries_stay_in_rooms_of_their_names() -> None:
    for name in CODE:
        parts = PurePosixPath(name).with_suffix("").parts
        for library in LIBRARIES.keys() & libraries(name):
            assert any(part.startswith(LIBRARIES[library]) for part in parts), f"{name}: {library}"


def test_stages_never_import_each_other() -> None:
    shared = {
        "stages/__init__.py",
        "stages/common.py",
        "stages/declared.py",
        "stages/exit_codes.py",
        "stages/hosts.py",
        "stages/output.py",
        "stages/commands/__init__.py",
        "stages/commands/options.py",
    }
    for name in STAGES:
        own = {file for file in named_files(name, imports(name)) if file.startswith("stages/")}
        if name in {"stages/__main__.py", "stages/commands/consumer.py"}:
            own = {file for file in own if not file.startswith("stages/commands/")}
        assert own <= shared, name


def test_what_is_printed_has_its_control_characters_escaped() -> None:
    printing = {name for name in STAGES if re.search(r"\b(click\.s?echo\w*|print)\(", (PROJECT / name).read_text())}
    assert printing == {"stages/output.py"}, "stages.output.say prints"


def test_no_circle_between_files() -> None:
    runs = {name: {file for module in imports_at_once(name) for file in READER.module_files(module)} for name in CODE}
    assert circles({name: files - {name} for name, files in runs.items()}) == []


def test_no_circle_between_folders() -> None:
    """A folder inside a room is one of its own: ``data`` and ``data/sources`` must not import each other."""
    graph: dict[str, set[str]] = {}
    for name in CODE:
        others = {folder(file) for file in named_files(name, imports_at_once(name))} - {folder(name)}
        graph[folder(name)] = graph.get(folder(name), set()) | others
    assert circles(graph) == []


def test_every_folder_is_a_package_in_a_room_and_says_what_it_is_for() -> None:
    for place in sorted({str(PurePosixPath(name).parent) for name in CODE}):
        init = f"{place}/__init__.py"
        assert init in READER.files
        assert room(init) or place == "pipeline"
        assert purpose(place)
