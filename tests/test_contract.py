"""dvc.yaml against the code: what a stage imports, reads and writes is what it declares."""

import ast
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pipeline.params import Params
from stages.package import EVALUATED
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
    """Return the keys that the stage's source reads of ``params``; a section whose every key is read counts as one."""
    found: set[str] = set()
    tree = ast.parse((ROOT / f"stages/{name}.py").read_text())
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            chain = attribute_chain(node)
            if chain[0] == "params":
                found.add(known_prefix(chain[1:]))
    for section in Params.model_fields:
        keys = {f"{section}.{key}" for key in section_type(section).model_fields}
        if keys <= found or section in found:
            found = found - {key for key in found if key.startswith(f"{section}.")} | {section}
    return found


def attribute_chain(node: ast.expr) -> list[str]:
    """Return ``["params", "base", "seed"]`` for the expression ``params.base.seed``; [""] for another kind."""
    if isinstance(node, ast.Attribute):
        return [*attribute_chain(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else [""]


def known_prefix(parts: list[str]) -> str:
    """Return section or section.key of an attribute chain, without methods and deeper keys."""
    section = section_type(parts[0])
    return ".".join(parts[:2]) if len(parts) > 1 and parts[1] in section.model_fields else parts[0]


def section_type(name: str) -> type[BaseModel]:
    annotation = Params.model_fields[name].annotation
    assert isinstance(annotation, type)
    assert issubclass(annotation, BaseModel)
    return annotation


@pytest.mark.parametrize("name", STAGES)
def test_code_dependencies_are_the_import_closure(name: str) -> None:
    declared = [dep for dep in STAGES[name]["deps"] if dep.split("/")[0] in PACKAGES]
    assert sorted(declared) == import_closure(f"stages.{name}")
    assert f"python -m stages.{name}" in STAGES[name]["cmd"]


@pytest.mark.parametrize("name", [name for name in STAGES if name != WHOLE_FILE])
def test_every_parameter_read_is_declared_and_every_one_declared_is_read(name: str) -> None:
    assert declared_params(name)[0] == read_params(name)


def test_every_parameter_is_read_by_some_stage() -> None:
    read = set().union(*(read_params(name) for name in STAGES if name != WHOLE_FILE))
    covered = {key.split(".")[0] for key in read}
    assert covered == set(Params.model_fields)
    for section in covered - read:
        keys = {f"{section}.{key}" for key in section_type(section).model_fields}
        assert keys <= read, f"{section}: {keys - read} are read by no stage"


def test_the_probe_depends_on_the_whole_parameters_file() -> None:
    assert "params.yaml" in STAGES[WHOLE_FILE]["deps"]
    assert PIPELINE["stages"][WHOLE_FILE]["always_changed"] is True


def test_the_package_reads_what_it_declares_of_the_evaluation() -> None:
    assert declared_params("package")[1] == {"reports/evaluation/onnx.json": list(EVALUATED)}


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
