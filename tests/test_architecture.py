"""The house: imports point downwards, optional libraries stay in their rooms, files and functions stay small."""

import ast
from pathlib import Path

import pytest

from tests.import_closure import PACKAGES, ROOT, imported_modules, module_files

FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAY_IMPORT = {
    "models": {"models"},
    "pipeline": {"models", "pipeline"},
    "stages": {"models", "pipeline", "stages"},
}
ROOMS = {
    "tensorrt": {"tensorrt.py"},
    "polygraphy": {"tensorrt.py"},
    "onnxruntime": {"onnx.py", "onnxruntime_quantization.py"},
}
ONLY_IN = {"click": "stages", "dvc": "nowhere"}
MODELS_THIRD_PARTY = {"torch", "torchvision"}
STANDARD = set(__import__("sys").stdlib_module_names)
IDS = [path.relative_to(ROOT).as_posix() for path in FILES]


def top_level(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(path)}


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_point_downwards(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    found = top_level(path)
    assert found & set(PACKAGES) <= MAY_IMPORT[package]
    assert all(package == where for name, where in ONLY_IN.items() if name in found)
    assert all(path.name in files for name, files in ROOMS.items() if name in found)
    if package == "models":
        assert found - STANDARD - {"models"} <= MODELS_THIRD_PARTY


@pytest.mark.parametrize("path", [p for p in FILES if "stages" in p.parts], ids=lambda p: p.name)
def test_stages_never_import_each_other(path: Path) -> None:
    own = {name for name in imported_modules(path) if name.startswith("stages.")}
    allowed = ("stages.common", "stages.commands.") if path.name == "__main__.py" else ("stages.common",)
    assert all(name.startswith(allowed) for name in own)


def test_no_import_cycle() -> None:
    """Also within a package a file imports only files of a lower level."""
    graph = {path: {f for name in imported_modules(path) for f in module_files(name)} - {path} for path in FILES}
    levels: dict[Path, int] = {}
    while graph:
        free = {path for path, needs in graph.items() if not needs & set(graph)}
        assert free, f"import cycle among {sorted(path.name for path in graph)}"
        levels |= dict.fromkeys(free, max(levels.values(), default=0) + 1)
        for path in free:
            del graph[path]
    assert len(levels) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 220
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 55, node.name


@pytest.mark.parametrize("path", [p for p in FILES if "stages" in p.parts], ids=lambda p: p.name)
def test_stages_are_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 75
