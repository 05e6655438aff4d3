"""The whole chain as users run it: real DVC, real processes, a project of its own with small parameters."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline.core.durable import FINISHED
from pipeline.data.decoding import central_square, decode_image
from pipeline.preflight.code import NOT_COUNTED, PACKAGES, CodeReader
from pipeline.preflight.stage_table import PROBE, STAGES
from tests.helpers import ROOT, fill_folder, image_bytes
from workbench.project import TINY, copy_project, write_params

pytestmark = pytest.mark.slow

ALL_STAGES = ["probe_environment", "prepare_data", "train_teacher", "distill_student", "calibrate_steps"]
EVALUATIONS = ["evaluate@torch", "evaluate@onnx", "evaluate@tensorrt"]
ALL_STAGES += ["trace_flow", "export_onnx", "measure_tradeoff", "export_tensorrt", *EVALUATIONS, "report", "package"]


def environment() -> dict[str, str]:
    """Return the variables of a session in which the environment is active, with a name for git.

    It names no shell, as in a container, so that DVC takes /bin/sh.
    """
    names = {f"GIT_{role}_{key}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name not in {"DVC_ROOT", "SHELL"}}
    return {**kept, **names, "PATH": path}


class Project:
    """A copy of this repository in a folder of its own, with the default parameters made small."""

    def __init__(self, root: Path) -> None:
        self.root = root
        copy_project(root, TINY)
        self.call("git", "init", "--quiet")
        self.commit("start")

    def call(self, *command: str, expect: int = 0) -> str:
        """Return standard output and error of a command run in the project, which must end with ``expect``."""
        options: dict[str, Any] = {"capture_output": True, "text": True}
        result = subprocess.run(command, cwd=self.root, env=environment(), check=False, **options)
        assert result.returncode == expect, result.stdout + result.stderr
        return result.stdout + result.stderr

    def commit(self, message: str) -> None:
        self.call("git", "add", "--all")
        self.call("git", "commit", "--quiet", "--message", message)

    def tracked(self) -> dict[Path, bytes]:
        """Return the content of each file that git tracks."""
        return {self.root / name: (self.root / name).read_bytes() for name in self.call("git", "ls-files").splitlines()}

    def restore(self, before: dict[Path, bytes]) -> None:
        """Bring tracked files back to their content ``before``, and DVC's outputs to what dvc.lock says then."""
        changed = {path for path, content in before.items() if not path.exists() or path.read_bytes() != content}
        for path in changed:
            path.write_bytes(before[path])
        if self.root / "dvc.lock" in changed:  # something has run
            self.call("git", "reset", "--quiet")  # experiments leave their results in the index
            self.call("dvc", "checkout", "--quiet")

    def change(self, changes: dict[str, Any]) -> None:
        write_params(self.root / "params.yaml", changes, base=self.root / "params.yaml")

    def edit(self, name: str, text: str) -> None:
        """Append ``text`` to the file ``name``, before what runs it as a program."""
        path = self.root / name
        head, program, tail = path.read_text().partition('\nif __name__ == "__main__":')
        path.write_text(f"{head}{text}{program}{tail}")

    def stages_that_run(self, *names: str) -> set[str]:
        """Return the stages, as DVC calls them, whose code includes one of the files ``names``."""
        code = CodeReader(self.root)
        found = {stage.name for stage in STAGES.values() if set(names) & set(code.stage_files(stage))} - {PROBE}
        return found - {"evaluate"} | ({*EVALUATIONS} if "evaluate" in found else set())

    def repro(self, *arguments: str) -> list[str]:
        """Run ``dvc repro`` and return the stages that ran."""
        return re.findall(r"Running stage '(.*?)'", self.call("dvc", "repro", *arguments))

    def json(self, name: str) -> Any:
        return json.loads((self.root / name).read_text())

    def files(self, name: str) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in sorted((self.root / name).rglob("*.*"))}


NOTES_FILES = """
import atexit, os, pathlib, sys

def note():
    files = {str(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    pathlib.Path(__file__).with_name(os.environ["DVC_STAGE"]).write_text("\\n".join(sorted(files)))

if "DVC_STAGE" in os.environ:
    atexit.register(note)
"""
"""A ``sitecustomize`` that notes beside itself which files each stage has loaded when it ends."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project in which the chain has run once."""
    folder = tmp_path_factory.mktemp("chain")
    project = Project(folder / "project")
    (folder / "loaded").mkdir()
    (folder / "loaded/sitecustomize.py").write_text(NOTES_FILES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "loaded"))
        assert project.repro() == ALL_STAGES
    project.commit("first run")
    return project


@pytest.fixture(autouse=True)
def restored(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo what a test changed in the shared project, and the runs that it made of it."""
    if "project" not in request.fixturenames:
        yield
        return
    project: Project = request.getfixturevalue("project")
    before = project.tracked()
    yield
    project.restore(before)


def test_a_second_run_runs_the_probe_alone(project: Project) -> None:
    assert project.repro() == ["probe_environment"]


@pytest.mark.parametrize("name", ALL_STAGES)
def test_a_stage_loads_no_code_that_its_digest_does_not_cover(project: Project, name: str) -> None:
    loaded = [Path(line) for line in (project.root.parent / "loaded" / name).read_text().splitlines()]
    own = {path.relative_to(project.root).as_posix() for path in loaded if path.is_relative_to(project.root)}
    own = {path for path in own if path.startswith(tuple(f"{package}/" for package in PACKAGES))}
    reader, stage = CodeReader(project.root), STAGES[name.partition("@")[0]]
    assert f"stages/{stage.name}.py" in own
    for uncounted in NOT_COUNTED:
        own -= loaded_with(reader, uncounted)
    assert own - set(reader.stage_files(stage)) == set()


def loaded_with(reader: CodeReader, name: str) -> set[str]:
    """Return the file ``name`` and all that is imported with it at once."""
    waiting, found = {name}, set[str]()
    while waiting:
        found |= waiting
        waiting = {other for one in waiting if one.endswith(".py") for other in reader.imported_at_once(one)} - found
    return found


def test_the_documented_files_are_there(project: Project) -> None:
    calibration = project.json("artifacts/calibration/calibration.json")
    assert calibration["num_steps"] in {1, 2}
    assert set(calibration["plain"]) == {"num_parameters", "macs"}
    scores = {"accuracy", "accuracy_standard_error", "nll", "ece"}
    assert [set(point) for point in calibration["curve"]] == [{"num_steps", *scores, "bound", "macs"}] * 2
    report = project.json("reports/evaluation/onnx.json")
    assert set(report["parity"]) == {"max_abs", "spread", "difference", "agreement", "total", "counted"}
    assert (report["parity"]["total"], report["parity"]["counted"]) == (report["num_images"], "images")
    assert set(report["latency_ms"]["1"]) == {"p50", "p95", "p99"}
    assert report["parity"]["difference"] < 1e-4
    assert report["accuracy"] == project.json("reports/evaluation/torch.json")["accuracy"] > 0.3
    assert project.json("artifacts/environment.json")["inputs"]["teacher"] == "needed"


def test_tensorrt_is_built_or_honestly_skipped(project: Project) -> None:
    status = project.json("artifacts/tensorrt/status.json")
    report = project.json("reports/evaluation/tensorrt.json")
    if project.json("artifacts/environment.json")["tensorrt"]["buildable"]:
        assert (status["status"], report["status"]) == ("built", "evaluated")
    else:
        assert (status["status"], report["status"]) == ("skipped", "skipped")
        assert status["reason"] == report["reason"]


LATE, TABLE, LOSSES = "pipeline/package/model_card.py", "pipeline/export/tensorrt/operators.json", "models/losses.py"
"""Code of the package alone, data that code reads, and code of training."""


def test_comments_and_docstrings_changed_anywhere_rerun_nothing(project: Project) -> None:
    for path in project.tracked():
        if path.suffix == ".py":
            path.write_text(path.read_text().replace('"""', '"""Edited. ', 1) + "\n\n# A comment.\n")
    assert project.repro() == ["probe_environment"]


def test_a_changed_line_reruns_exactly_the_stages_that_run_it(project: Project) -> None:
    assert project.stages_that_run(LATE) == {"package"}
    assert "distill_student" in project.stages_that_run(LOSSES)
    for number, (name, text) in enumerate({LATE: "EDITED = True\n", TABLE: "\n", LOSSES: "EDITED = True\n"}.items()):
        project.edit(name, text)
        project.repro("probe_environment")
        expected = project.stages_that_run(*[LATE, TABLE, LOSSES][: number + 1])
        assert set(project.repro("--dry")) == {"probe_environment"} | expected


EDITS_ITSELF = """
from pathlib import Path as _Path

EDITION = 1
_Path(__file__).write_text(_Path(__file__).read_text().replace("EDITION = 1\\n", "EDITION = 2\\n", 1))
"""


def test_code_that_changes_while_its_stage_runs_is_caught_at_the_next_repro(project: Project) -> None:
    project.edit("stages/package.py", EDITS_ITSELF)
    assert project.repro() == ["probe_environment", "package"]
    assert "EDITION = 2\n" in (project.root / "stages/package.py").read_text()
    assert project.repro() == ["probe_environment", "package"], "the second edition has not run yet"
    assert project.repro() == ["probe_environment"]


def test_a_syntax_error_stops_the_chain_at_the_probe(project: Project) -> None:
    project.edit(LATE, "def broken(:\n")
    output = project.call("dvc", "repro", expect=255)
    assert re.search(rf"^error: {LATE}, line \d+: ", output, re.MULTILINE)
    assert "Traceback" not in output
    assert re.findall(r"Running stage '(.*?)'", output) == ["probe_environment"]


def test_experiments_here_in_a_copy_and_from_the_queue_rerun_the_same(project: Project) -> None:
    """The copy and the queue work in folders of their own, on the code as it is here."""

    def lock(experiment: str) -> str:
        (reference,) = project.call("git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{experiment}").split()
        return project.call("git", "show", f"{reference}:dvc.lock")

    project.edit(LATE, "EDITED = 1\n")
    project.edit("pipeline/core/files.py", "# A comment.\n")
    outputs = [project.call("dvc", "exp", "run", "--temp", "--name", "in-a-copy")]
    project.call("dvc", "exp", "run", "--queue", "--name", "queued")
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # the worker keeps them open
    subprocess.run(["dvc", "queue", "start"], cwd=project.root, env=environment(), check=True, **silent)
    deadline = time.monotonic() + 300
    while not re.search("Success|Failed", status := project.call("dvc", "queue", "status")):
        assert time.monotonic() < deadline, status
        time.sleep(0.5)
    assert "Success" in status, project.call("dvc", "queue", "logs", "queued")
    outputs.append(project.call("dvc", "queue", "logs", "queued"))
    project.call("dvc", "queue", "stop", "--kill")
    outputs.append(project.call("dvc", "exp", "run", "--name", "here"))
    for output in outputs:
        found = re.findall(r"(?:Running stage|Stage) '(.*?)'(?::| is cached)", output)
        assert found == ["probe_environment", "package"]
    locks = {lock(name) for name in ("in-a-copy", "queued", "here")}
    assert project.repro() == ["probe_environment"]
    assert locks == {(project.root / "dvc.lock").read_text()}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {
                "evaluate.latency_iterations": 11,
                "measure_tradeoff.iterations": 11,
                "calibrate_steps.tolerance": 0.5,
            },
            {*EVALUATIONS, "measure_tradeoff", "calibrate_steps"},
        ),
        ({"export_tensorrt.max_batch": 65}, {"export_tensorrt", "package"}),
        ({"distill_student.loss": "kd", "package.description": "Another text."}, {"distill_student", "package"}),
        ({"train_teacher.training.epochs": 7}, {"train_teacher"}),
        ({"base.seed": 1}, set(ALL_STAGES) - {"probe_environment", "export_tensorrt", "report", "package"}),
    ],
)
def test_changed_parameters_rerun_what_depends_on_them(
    project: Project, changes: dict[str, Any], expected: set[str]
) -> None:
    """A dry run lists the stages whose own dependencies changed; what they write decides about those after them."""
    project.change(changes)
    assert set(project.repro("--dry")) == {"probe_environment"} | expected


WIDTH = 132
"""Columns of a terminal."""
GALLERIES = "artifacts/report/galleries"


def test_metrics_params_and_plots_show(project: Project) -> None:
    metrics = json.loads(project.call("dvc", "metrics", "show", "--json"))[""]["data"]
    assert list(metrics) == ["reports/metrics.json"]
    assert metrics["reports/metrics.json"]["data"]["accuracy"] > 0.3
    assert max(map(len, project.call("dvc", "metrics", "show").splitlines())) <= WIDTH
    project.change({"distill_student.loss_weight": 0.5})
    diff = json.loads(project.call("dvc", "params", "diff", "--json"))
    assert diff["params.yaml"]["distill_student.loss_weight"] == {"old": 1.0, "new": 0.5, "diff": -0.5}


def test_dvc_plots_what_is_declared_and_nothing_else(project: Project) -> None:
    declared = YAML(typ="safe").load((project.root / "dvc.yaml").read_text())["plots"]
    names = {plot if isinstance(plot, str) else next(iter(plot)) for plot in declared}
    shown = json.loads(project.call("dvc", "plots", "show", "--json", "--out", "plots"))
    assert shown.get("errors", []) == []
    drawn = {name for name, plot in shown["data"].items() if plot}
    galleries = {str(path.relative_to(project.root)) for path in (project.root / GALLERIES).iterdir()}
    assert len(galleries) == 2
    assert drawn == names - {GALLERIES} | galleries, "of a folder each picture is a plot"
    project.call("dvc", "plots", "show", "--out", "plots")
    page = (project.root / "plots/index.html").read_text()
    assert all(plot["title"] in page for item in declared if isinstance(item, dict) for plot in item.values())
    shutil.rmtree(project.root / "plots")


def test_the_columns_that_are_plotted_are_in_the_files(project: Project) -> None:
    """DVC leaves out a line whose column there is not, without a word."""
    plots: dict[str, Any] = {}
    for plot in YAML(typ="safe").load((project.root / "dvc.yaml").read_text())["plots"]:
        plots |= plot if isinstance(plot, dict) else {}
    assert plots
    for name, plot in plots.items():
        for file, columns in plot["y"].items():
            with (project.root / file).open(newline="") as stream:
                header = next(csv.reader(stream))
            assert {plot["x"], *([columns] if isinstance(columns, str) else columns)} <= set(header), (name, file)


def test_an_experiment_changes_a_parameter_and_keeps_the_teacher(project: Project) -> None:
    changes = ("-S", "distill_student.method=metric", "-S", "distill_student.loss=kd")
    output = project.call("dvc", "exp", "run", *changes, "--name", "classical", "calibrate_steps")
    assert "Running stage 'distill_student'" in output
    assert "Running stage 'train_teacher'" not in output
    assert project.json("artifacts/calibration/calibration.json")["num_steps"] is None
    assert project.json("artifacts/student/network.json")["method"] == "metric"
    assert "classical" in project.call("dvc", "exp", "show", "--csv")
    assert "backbone resnet8" in project.call("python", "-m", "stages", "summary")


def test_a_student_without_a_teacher_trains_none(project: Project) -> None:
    before = project.tracked()
    project.change({"distill_student.method": "none"})
    assert project.repro("distill_student") == ["probe_environment", "train_teacher", "distill_student"]
    assert project.json("reports/teacher.json")["status"] == "not needed"
    assert project.json("artifacts/student/network.json")["method"] == "none"
    project.restore(before)
    assert project.repro() == ["probe_environment"], "the earlier results come back from DVC's cache"
    assert project.json("artifacts/student/network.json")["method"] == "fm_kt"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"distill_student.training.epochs": "many"}, "distill_student.training.epochs: got the text 'many'"),
        ({"prepare_data.source": "imagefolder", "prepare_data.root": "nowhere"}, "package.name: got null"),
        (
            {"prepare_data.source": "imagefolder", "prepare_data.root": "nowhere", "package.name": "pets"},
            "prepare_data.root: no such",
        ),
    ],
)
def test_a_wrong_parameter_stops_before_anything_is_touched(
    project: Project, changes: dict[str, Any], line: str
) -> None:
    before = project.files("artifacts")
    project.change(changes)
    output = project.call("dvc", "repro", expect=255)
    assert sum(text.startswith("error: ") for text in output.splitlines()) == 1
    assert line in output
    assert "Traceback" not in output
    assert project.files("artifacts") == before


def test_a_failed_gate_stops_the_chain_and_the_earlier_output_can_be_restored(project: Project) -> None:
    before = project.files("artifacts")
    project.change({"export_onnx.gates.fp32.max_difference": 1e-30})
    output = project.call("dvc", "repro", "export_onnx", expect=255)
    assert re.search(r"error: model.onnx, test split, \d+ images: outputs differ by", output)
    assert "Traceback" not in output
    project.call("dvc", "checkout")
    assert project.files("artifacts") == before


def test_a_stage_killed_in_the_middle_leaves_its_earlier_output(project: Project) -> None:
    before = project.files("artifacts/student")
    params = write_params(
        project.root / "long.yaml", {"distill_student.training.epochs": 500}, base=project.root / "params.yaml"
    )
    history = project.root / "killed.csv"
    command = f"-m stages.distill_student --params {params} --data artifacts/data --teacher artifacts/teacher"
    command += f" --out artifacts/student --metrics killed.json --history {history}"
    process = subprocess.Popen([sys.executable, *command.split()], cwd=project.root, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not history.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert project.files("artifacts/student") == before
    assert len(list(csv.DictReader(history.open()))) >= 1
    assert not (project.root / "killed.json").exists()
    assert project.repro() == ["probe_environment"]


def test_the_package_is_whole_and_its_card_works_as_written(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.root / "artifacts/package", tmp_path / "package")
    picture = image_bytes(size=(30, 10))
    (tmp_path / "package/image.png").write_bytes(picture)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "package/README.md").read_text(), re.DOTALL)
    code += 'np.save("pixels.npy", pixels)'
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "package", capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() in project.json("artifacts/package/labels.json")["labels"]
    trained_on = central_square(decode_image("image.png", picture), 8).transpose(2, 0, 1)
    np.testing.assert_allclose(np.load(tmp_path / "package/pixels.npy")[0] * 255, trained_on, atol=1e-4)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "package", check=True)
    listed = {line.split()[1] for line in (tmp_path / "package/SHA256SUMS").read_text().splitlines()}
    package = project.root / "artifacts/package"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert listed == files - {"SHA256SUMS"}


def test_the_package_knows_its_commit_and_is_made_once(project: Project) -> None:
    """A commit alone makes nothing again; what a run writes itself is no change of its clone."""
    stated = project.json("artifacts/package/manifest.json")["about"]
    start = project.call("git", "rev-list", "--max-parents=0", "HEAD").strip()
    assert (stated["commit"], stated["changed_files"]) == (start, [])
    assert project.repro() == ["probe_environment"], "although the commit is another"
    project.change({"package.version": "0.2.0", "package.licence": "Apache-2.0"})
    assert project.repro() == ["probe_environment", "package"]
    stated = project.json("artifacts/package/manifest.json")["about"]
    assert stated["changed_files"] == ["params.yaml"]
    assert stated["commit"] == project.call("git", "rev-parse", "HEAD").strip()
    shown = project.call("python", "-m", "stages", "about")
    assert "Apache-2.0" in shown
    assert f"{stated['commit']}, with changes in params.yaml" in shown


def test_the_package_can_be_fetched_by_its_tag(project: Project, tmp_path: Path) -> None:
    project.call("gto", "register", "fmkt-student", "--version", "v1.0.0")
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "consumer")], check=True)
    target = tmp_path / "consumer/model"
    project.call("dvc", "artifacts", "get", str(project.root), "fmkt-student", "--out", str(target))
    assert (target / "model.onnx").read_bytes() == (project.root / "artifacts/package/model.onnx").read_bytes()


def trainers(root: Path) -> list[str]:
    """Return the command lines of processes that train in ``root``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_text().split("\0")
            if (process / "cwd").resolve() == root and any(word.startswith("stages.") for word in words):
                found.append(" ".join(words))
    return found


def kill_dvc_in(twin: Project, stage: str) -> None:
    """Run ``dvc repro`` up to ``stage`` and end DVC by SIGKILL while it trains, so that it leaves a state.

    No trainer outlives DVC. A stage that ends before the signal reaches it is forgotten and run again.
    """
    options: dict[str, Any] = {"env": environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    states = f".checkpoints/{stage}/*/epoch-*"
    for _ in range(5):
        process = subprocess.Popen(["dvc", "repro", stage], cwd=twin.root, **options)
        while not list(twin.root.glob(states)) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while (left := trainers(twin.root)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, "a trainer outlives DVC"
        if list(twin.root.glob(states)) and not list(twin.root.glob(f".checkpoints/{stage}/*/{FINISHED}")):
            return
        for folder in (".checkpoints", f"artifacts/{stage.rpartition('_')[2]}", ".dvc/cache"):
            shutil.rmtree(twin.root / folder, ignore_errors=True)
    pytest.fail(f"{stage} left no state")


def test_the_same_inputs_give_the_same_bytes_in_another_clone_that_is_killed_twice(
    project: Project, tmp_path: Path
) -> None:
    """All that a package is made of but measured latency: data, networks, ONNX files, their reports and scores.

    Code that training does not run may change before it goes on.
    """
    clone = tmp_path / "a/clone/elsewhere"
    clone.parent.mkdir(parents=True)
    project.call("git", "clone", "--quiet", str(project.root), str(clone))
    twin = Project.__new__(Project)
    twin.root = clone
    for stage in ("train_teacher", "distill_student"):
        kill_dvc_in(twin, stage)
    twin.edit("pipeline/training/loop.py", "# A comment.\n")
    twin.edit(LATE, "EDITED = True\n")
    output = twin.call("dvc", "repro", "evaluate@onnx")
    assert "an earlier run was interrupted; going on after its epoch" in output
    assert {"distill_student", "export_onnx"} <= set(re.findall(r"Running stage '(.*?)'", output))
    assert not list(twin.root.glob(".checkpoints/*/*/epoch-*"))
    records = [f"reports/{name}{kind}" for name in ("teacher", "student") for kind in (".json", "_history.csv")]
    for name in (*records, "artifacts/evaluation/onnx.json"):
        assert (twin.root / name).read_bytes() == (project.root / name).read_bytes(), name
    for folder in ("data", "teacher", "student", "calibration", "onnx"):
        assert twin.files(f"artifacts/{folder}") == project.files(f"artifacts/{folder}"), folder


def test_the_summary_shows_every_runtime(project: Project) -> None:
    output = project.call("python", "-m", "stages", "summary")
    assert all(word in output for word in ("teacher", "student, torch", "student, onnx", "top-1 accuracy", "batch 32"))
    path = project.root / "artifacts/onnx/manifest.json"
    manifest = project.json("artifacts/onnx/manifest.json")
    assert manifest.pop("task") == "classification"
    path.unlink()
    path.write_text(json.dumps(manifest))
    assert project.call("python", "-m", "stages", "summary") == output, "as in a run of a version without tasks"
    project.call("dvc", "checkout", "--force", "artifacts/onnx")


def test_the_example_that_compares_runs_has_those_of_git_and_of_the_workspace(project: Project, tmp_path: Path) -> None:
    compare, out = str(ROOT / "examples/compare_runs.py"), tmp_path / "runs.svg"
    project.change({"distill_student.loss": "kd"})
    printed = project.call("python", compare, "HEAD", "workspace", "--out", str(out))
    assert printed.splitlines() == ["distill_student.loss  HEAD: dist  workspace: kd"]
    assert out.read_text().count("kB of the fp32 file") == 1
    output = project.call("python", compare, "HEAD~1", expect=1)
    assert re.fullmatch(r"error: HEAD~1: no result of dvc repro \(.*'reports/metrics.json'\); give .*\n", output)
    assert project.call("python", compare, "none", expect=1).startswith("error: none: no result of dvc repro (unknown")
    headline = project.json("reports/metrics.json")
    other = {key.replace("accuracy", "ap"): value for key, value in headline.items()}
    (project.root / "reports/metrics.json").write_text(json.dumps(other))
    refused = project.call("python", compare, "HEAD", "workspace", expect=1)
    assert refused.endswith("error: the runs have different scores (accuracy, ap); compare runs of one task\n")


def test_own_images_are_known_by_their_content(tmp_path: Path) -> None:
    project = Project(tmp_path / "own")
    images = fill_folder(project.root / "data/images", {"train/cat": 20, "train/dog": 30, "val/cat": 5, "val/dog": 5})
    own = {"prepare_data.source": "imagefolder", "prepare_data.root": "data/images", "package.name": "pets"}
    project.change(own)
    assert project.repro("prepare_data") == ["probe_environment", "prepare_data"]
    assert project.json("artifacts/data/data.json")["classes"] == ["cat", "dog"]
    assert project.repro("prepare_data") == ["probe_environment"]
    (images / "train/cat/more.png").write_bytes(image_bytes(seed=99))
    assert project.repro("prepare_data") == ["probe_environment", "prepare_data"]
