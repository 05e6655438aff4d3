"""dvc.yaml against the code: what a stage imports, reads and writes is what it declares."""

import ast
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pipeline.params.schema import Params
from tests.import_closure import PACKAGES, ROOT, import_closure

PIPELINE: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = {name: entry.get("do", entry) for name, entry in PIPELINE["stages"].items()}
WHOLE_FILE = "probe_environment"  # depends on params.yaml itself, since it checks all of it


def declared_params(name: str) -> tuple[set[str], dict[str, list[str]]]:
    """Return (keys of params.yaml, keys of each other file) that the stage declares."""
    own, others = set(), {}
    for entry in STAGES[name].get("params", []):
        if isinstance(entry, str):
            own.add(entry)
        else:
            others |= entry
    return own, others


def read_params(name: str) -> set[str]:
    """Return the keys that the stage's source reads, each down to its last part.

    Followed are chains such as ``params.base.seed`` and names that stand for one (``settings = params.evaluate``);
    ``model_dump()`` reads all below. Any other use of such a name would hide what is read, and fails.
    """
    tree = ast.parse((ROOT / f"stages/{name}.py").read_text())
    names = {"params": ""}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            names |= {target.id: value for target, value in assigned(node) if value is not None}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    aliases = {id(value) for node in ast.walk(tree) if isinstance(node, ast.Assign) for value in values(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load):
            assert id(node) in inner, f"stages/{name}.py: {node.id} is handed on whole in line {node.lineno}"
        if isinstance(node, ast.Attribute) and id(node) not in inner and id(node) not in aliases:
            key = resolve(node, names)
            if key is not None:
                found |= leaves_read(key)
    return found


def values(node: ast.Assign) -> list[ast.expr]:
    """Return the right-hand sides of ``a, b = x, y``, or of ``a = x``, that are attribute chains to a section."""
    sides = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
    return [side for side in sides if (key := resolve(side, {"params": ""})) and leaves(key) != {key}]


def assigned(node: ast.Assign) -> list[tuple[ast.Name, str | None]]:
    """Return (name, key that it stands for) of an assignment."""
    target = node.targets[0]
    names = target.elts if isinstance(target, ast.Tuple) else [target]
    sides = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
    pairs = zip(names, sides, strict=True) if len(names) == len(sides) else []
    return [(n, resolve(side, {"params": ""})) for n, side in pairs if isinstance(n, ast.Name) and side in values(node)]


def resolve(node: ast.expr, names: dict[str, str]) -> str | None:
    """Return the dotted key (with a method's name at its end) of a chain that starts at one of ``names``."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    start = resolve(node.value, names)
    return None if start is None else f"{start}.{node.attr}".lstrip(".")


def leaves_read(key: str) -> set[str]:
    """Return the parameters that a chain reads: all below it at ``model_dump``, none at a property."""
    section, _, last = key.rpartition(".")
    if last == "model_dump":
        return leaves(section)
    return leaves(key) if key in leaves(key) else set()


def leaves(key: str) -> set[str]:
    """Return the keys below ``key`` that hold values; ``key`` itself where it holds one."""
    annotation: Any = Params
    for part in key.split("."):
        if part not in annotation.model_fields:
            return set()
        annotation = annotation.model_fields[part].annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {leaf for part in annotation.model_fields for leaf in leaves(f"{key}.{part}")}
    return {key}


@pytest.mark.parametrize("name", STAGES)
def test_code_dependencies_are_the_import_closure(name: str) -> None:
    declared = [dep for dep in STAGES[name]["deps"] if dep.split("/")[0] in PACKAGES]
    assert sorted(declared) == import_closure(f"stages.{name}")
    assert STAGES[name]["cmd"].startswith(f"exec python -m stages.{name} "), "without exec a shell may outlive DVC"


@pytest.mark.parametrize("name", [name for name in STAGES if name != WHOLE_FILE])
def test_every_parameter_read_is_declared_and_every_one_declared_is_read(name: str) -> None:
    declared = {leaf for key in declared_params(name)[0] for leaf in leaves(key)}
    assert declared == read_params(name)


def test_every_parameter_is_read_by_some_stage() -> None:
    read = set().union(*(read_params(name) for name in STAGES if name != WHOLE_FILE))
    assert read == {leaf for section in Params.model_fields for leaf in leaves(section)}


def test_the_probe_depends_on_the_whole_parameters_file() -> None:
    assert "params.yaml" in STAGES[WHOLE_FILE]["deps"]
    assert PIPELINE["stages"][WHOLE_FILE]["always_changed"] is True


def test_no_report_is_also_a_parameters_file() -> None:
    """``dvc exp show`` puts the values of a file that is both under the wrong columns."""
    reports = {next(iter(m)) for entry in STAGES.values() for kind in ("metrics", "plots") for m in entry.get(kind, [])}
    parameters = {path for name in STAGES for path in declared_params(name)[1]}
    assert parameters == {"artifacts/environment.json"}
    assert not parameters & reports


@pytest.mark.parametrize("name", STAGES)
def test_every_path_on_the_command_line_is_declared(name: str) -> None:
    """A path that a stage is given is a dependency, a parameters file, an output, a metric or a plot."""
    entry = STAGES[name]
    lists = (entry.get(key, []) for key in ("deps", "outs", "metrics", "plots", "params"))
    declared = {next(iter(item)) if isinstance(item, dict) else item for items in lists for item in items}
    words = entry["cmd"].split()
    paths = {word for word in words if word.startswith(("artifacts/", "reports/", "${item}"))}
    assert all(path in declared or f"{path}/data.json" in declared for path in paths), paths - declared


def test_outputs_are_ignored_by_git_and_reports_are_not() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    outs = [next(iter(o)) if isinstance(o, dict) else o for entry in STAGES.values() for o in entry.get("outs", [])]
    assert all(out.startswith("artifacts/") for out in outs)
    assert "/artifacts/" in ignored
    assert not any("reports" in line for line in ignored)


def test_model_artifacts_are_outputs() -> None:
    outs = {out for entry in STAGES.values() for out in entry.get("outs", []) if isinstance(out, str)}
    assert {item["path"] for item in PIPELINE["artifacts"].values()} <= outs


def test_every_stage_module_is_a_stage() -> None:
    modules = {path.stem for path in Path(ROOT / "stages").glob("*.py")} - {"__init__", "__main__", "common"}
    assert modules == set(STAGES)
