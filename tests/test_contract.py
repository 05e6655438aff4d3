"""dvc.yaml and the stages against the table of stages: what a stage is given, reads and writes is what it declares."""

import ast
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from ruamel.yaml import YAML

from pipeline.params.schema import Params
from pipeline.preflight.stage_table import CODE, ENVIRONMENT, PROBE, STAGES, Kind, StageEntry, command_line
from tests.helpers import ROOT

PIPELINE: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())


class Declared(NamedTuple):
    """A stage in dvc.yaml, for one runtime where it runs for several."""

    stage: StageEntry
    runtime: str | None
    content: dict[str, Any]

    def names(self, kind: Kind) -> list[str]:
        """Return the files and folders that dvc.yaml declares as ``kind``, without their options."""
        key = "outs" if kind is Kind.REPORT else kind.value
        items = [next(iter(i.items())) if isinstance(i, dict) else (i, {}) for i in self.content.get(key, [])]
        if key == "outs":
            items = [(name, options) for name, options in items if ("cache" in options) == (kind is Kind.REPORT)]
        assert all(options["cache"] is False for _, options in items if "cache" in options)
        return [name for name, _ in items]

    def keys(self, file: str) -> list[str]:
        """Return the keys of the parameters file ``file`` that it declares."""
        entries = self.content.get("params", [])
        own = [entry for entry in entries if isinstance(entry, str)]
        others = {name: keys for entry in entries if isinstance(entry, dict) for name, keys in entry.items()}
        assert set(others) <= {ENVIRONMENT, CODE}
        return own if file == "params.yaml" else others.get(file, [])


def declared() -> Iterator[tuple[str, Declared]]:
    """Yield the name of each stage, as DVC prints it, with what dvc.yaml says of it."""
    for name, content in PIPELINE["stages"].items():
        if "foreach" not in content:
            yield name, Declared(STAGES[name], None, content)
            continue
        for key, item in content["foreach"].items():
            text = json.dumps(content["do"]).replace("${key}", key).replace("${item}", item)
            yield f"{name}@{key}", Declared(STAGES[name], key, json.loads(text))


DECLARED = dict(declared())
every_stage = pytest.mark.parametrize("name", DECLARED)


def test_the_table_and_dvc_yaml_have_the_same_stages_and_runtimes() -> None:
    assert list(PIPELINE["stages"]) == list(STAGES)
    assert PIPELINE["stages"]["evaluate"]["foreach"] == STAGES["evaluate"].runtimes
    modules = {path.stem for path in Path(ROOT / "stages").glob("*.py")} - {
        "__init__",
        "__main__",
        "common",
        "exit_codes",
        "declared",
        "hosts",
        "output",
    }
    assert modules == set(STAGES)


@every_stage
def test_dvc_runs_the_command_of_the_table(name: str) -> None:
    stage, runtime, content = DECLARED[name]
    words = command_line(stage.name, stage.project_paths(runtime), runtime=runtime)
    assert content["cmd"].split() == ["exec", "python", "-m", *words], "without exec a shell may outlive DVC"
    assert content["desc"] == stage.description


@every_stage
def test_every_path_on_the_command_line_is_declared_as_what_it_is(name: str) -> None:
    entry = DECLARED[name]
    paths = entry.stage.project_paths(entry.runtime)
    for kind in (Kind.INPUT, Kind.OUTPUT, Kind.REPORT, Kind.METRICS):
        options = [option for option in entry.stage.options if option.kind is kind]
        expected = {f"{paths[option.argument]}/{option.part}".rstrip("/") for option in options}
        if entry.stage.name == PROBE and kind is Kind.INPUT:
            expected = {"params.yaml"}  # it checks all of the file
        assert set(entry.names(kind)) == expected
    facts = {paths[option.argument] for option in entry.stage.options if option.kind is Kind.FACTS}
    assert facts <= {ENVIRONMENT}
    assert not facts or entry.stage.facts


@every_stage
def test_the_keys_on_which_a_stage_depends_are_declared(name: str) -> None:
    entry = DECLARED[name]
    assert entry.keys("params.yaml") == list(entry.stage.params)
    assert entry.keys(ENVIRONMENT) == list(entry.stage.facts)
    assert entry.keys(CODE) == ([] if entry.stage.name == PROBE else [entry.stage.name])


def test_every_declared_parameter_exists_and_every_section_is_declared_by_a_stage() -> None:
    keys = {key for stage in STAGES.values() for key in stage.params}
    settings = Params().model_dump()
    for key in keys:
        value: Any = settings
        for part in key.split("."):
            assert part in value, key
            value = value[part]
    assert {key.split(".")[0] for key in keys} == set(Params.model_fields)


def loaded_sections(stage: str) -> set[str]:
    """Return the sections that the stage's source loads by name."""
    tree = ast.parse((ROOT / f"stages/{stage}.py").read_text())
    constants = {
        ast.unparse(node.targets[0]): node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not any(ast.unparse(call.func) == "load_params" for call in calls), "it would depend on all sections"
    names = [call.args[2] for call in calls if ast.unparse(call.func) == "load_declared"]
    return {name.value if isinstance(name, ast.Constant) else constants[ast.unparse(name)] for name in names}


@pytest.mark.parametrize("name", [name for name in STAGES if name != PROBE])
def test_a_stage_loads_the_sections_that_it_declares_and_no_other(name: str) -> None:
    """DVC would take its output for up to date when an undeclared parameter changes."""
    loaded, keys = loaded_sections(name), set(STAGES[name].params)
    assert [one for one in loaded if not any(within(one, key) or within(key, one) for key in keys)] == []
    assert [key for key in keys if not any(within(key, one) for one in loaded)] == []


def within(key: str, section: str) -> bool:
    """Return whether ``key`` is ``section`` or lies in it."""
    return f"{key}.".startswith(f"{section}.")


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_takes_the_options_of_the_table(name: str) -> None:
    command = importlib.import_module(STAGES[name].module).main
    options = {parameter.opts[0]: parameter for parameter in command.params if isinstance(parameter, click.Option)}
    assert options["--params"].default == Path("params.yaml")
    for option in STAGES[name].options:
        assert (options[option.name].help, options[option.name].required) == (option.help, True)
    own = set(options) - {"--params"} - {option.name for option in STAGES[name].options}
    assert not any(options[extra].required for extra in own), "dvc.yaml and the comparison would not give it"
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    choices = [name for argument in arguments for name in argument.type.choices]
    assert sorted(choices) == sorted(STAGES[name].runtimes)


def test_the_probe_runs_always_and_keeps_its_files_when_a_check_fails() -> None:
    content = PIPELINE["stages"][PROBE]
    assert content["always_changed"] is True
    assert content["outs"] == [{ENVIRONMENT: {"persist": True}}, {CODE: {"persist": True}}]


def is_ignored(path: str) -> bool:
    return subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False).returncode == 0


def test_reports_stay_in_git_and_outputs_do_not() -> None:
    """``dvc exp show`` puts the values of a file that is both report and parameters file under the wrong columns."""
    for entry in DECLARED.values():
        assert all(is_ignored(path) for path in entry.names(Kind.OUTPUT))
        for kind in (Kind.METRICS, Kind.REPORT):
            assert not any(is_ignored(path) for path in entry.names(kind))
            assert all(path.startswith("reports/") for path in entry.names(kind))
    headline = [path for entry in DECLARED.values() for path in entry.names(Kind.METRICS)]
    assert headline == ["reports/metrics.json"], "each figure of it is a column of dvc exp show"


def test_a_stage_whose_work_is_long_can_be_restored_from_the_cache_of_runs() -> None:
    """DVC keeps no run of a stage that has an output outside its cache."""
    assert [name for name, entry in DECLARED.items() if entry.names(Kind.REPORT)] == ["report"]


def test_plots_and_model_artifacts_are_what_stages_write_and_no_plot_is_drawn_unasked() -> None:
    assert not any("plots" in entry.content for entry in DECLARED.values())
    outputs = {path for entry in DECLARED.values() for kind in (Kind.OUTPUT, Kind.REPORT) for path in entry.names(kind)}
    plots = [plot if isinstance(plot, str) else next(iter(plot.values())) for plot in PIPELINE["plots"]]
    assert 6 <= len(plots) <= 9
    for plot in plots:
        for path in [plot] if isinstance(plot, str) else plot["y"]:
            assert any(path == out or path.startswith(f"{out}/") for out in outputs), path
        assert isinstance(plot, str) or {"title", "x_label", "y_label"} <= set(plot)
    assert {item["path"] for item in PIPELINE["artifacts"].values()} <= outputs


def test_a_command_line_has_every_path_and_no_other() -> None:
    assert command_line("prepare_data", {"out": "o"}, "p.yaml") == [
        *("stages.prepare_data", "--params", "p.yaml", "--out", "o"),
    ]
    evaluate, runtimes = STAGES["evaluate"].project_paths("onnx"), STAGES["evaluate"].runtimes
    assert {"torch", "onnx", "tensorrt"} <= set(runtimes)
    needed = f"needed is one of {', '.join(runtimes)}"
    assert command_line("evaluate", evaluate, runtime="onnx")[:2] == ["stages.evaluate", "onnx"]
    for arguments, message in (
        (("prepare_dat", {}), "unknown stage 'prepare_dat'; did you mean prepare_data"),
        (("prepare_data", {}), "prepare_data: got paths for nothing; needed are out"),
        (("prepare_data", {"out": "o", "data": "d"}), "prepare_data: got paths for data, out; needed are out"),
        (("prepare_data", {"out": "o"}, None, "onnx"), "prepare_data: got the runtime 'onnx'; needed is none"),
        (("evaluate", evaluate), f"evaluate: got the runtime None; {needed}"),
        (("evaluate", evaluate, None, "onxx"), f"evaluate: got the runtime 'onxx'; {needed}"),
    ):
        with pytest.raises(ValueError, match=message):
            command_line(*arguments)  # type: ignore[arg-type]


def test_a_first_experiment_has_no_warnings(tmp_path: Path) -> None:
    """DVC looks for the outputs before it runs an experiment, and warns of each that dvc.lock does not have."""
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".dvc/config", ".dvcignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    dvc = [sys.executable, "-m", "dvc"]
    done = subprocess.run(
        [*dvc, "checkout", "--allow-missing"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr, "run dvc repro with the preset digits, and commit dvc.lock"
