"""An extension is one new file and one entry: one of each kind goes through the chain in a copy of the sources.

The new files are those in ``tests/extensions``. An entry is put at the end of its table, and nothing else is changed.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
from ruamel.yaml import YAML

from pipeline.preflight import code
from pipeline.preflight.stage_table import PROBE, STAGES, command_line
from tests.helpers import ROOT
from workbench.project import write_params

pytestmark = pytest.mark.slow

SOURCES = ("models", "pipeline", "stages", "presets")
Command = list[str]
"""A module and its arguments."""


class Extension(NamedTuple):
    """A choice that is added."""

    files: Mapping[str, str]
    """From each new file to the one in ``tests/extensions`` whose content it gets."""
    table: str
    """The file whose table gets the entry."""
    entry: str


def loaded(module: str, name: str) -> str:
    """Return an expression for ``name`` of ``module``, which needs no other line of the table's file."""
    return f'__import__("{module}", fromlist=["{name}"]).{name}'


EXTENSIONS = {
    "criterion": Extension(
        {"pipeline/distillation/power.py": "criterion.py"},
        "pipeline/distillation/criteria.py",
        f"""CriterionEntry(
            name="power",
            description="mean power of the difference",
            load=lambda: {loaded("pipeline.distillation.power", "power_loss")},
            applies_to=(LOGITS, FEATURES),
            settings={loaded("pipeline.distillation.power", "PowerSettings")},
        )""",
    ),
    "meta-encoder": Extension(
        {"models/encoder_bodies/bounded.py": "meta_encoder.py"},
        "models/meta_encoders.py",
        f"""MetaEncoderEntry(
            name="bounded",
            description="velocities between -1 and 1",
            load=lambda: {loaded("models.encoder_bodies.bounded", "bounded_body")},
        )""",
    ),
    "schedule": Extension(
        {"models/flow_paths/circle.py": "schedule.py"},
        "models/schedules.py",
        f"""ScheduleEntry(
            name="circle",
            description="a quarter of a circle",
            load=lambda: {loaded("models.flow_paths.circle", "QuarterCircle")}(),
        )""",
    ),
    "method": Extension(
        {"pipeline/distillation/twofold.py": "method.py"},
        "pipeline/distillation/methods.py",
        f"""MethodEntry(
            name="twofold",
            description="control: the criterion alone, with twice its weight",
            load=lambda: {loaded("pipeline.distillation.twofold", "TwofoldCriterion")}(),
            needs_feature_map=False,
        )""",
    ),
    "backbone source": Extension(
        {"models/backbones/two_stages.py": "backbone.py"},
        "models/backbones/sources.py",
        f"""BackboneSourceEntry(
            name="tiny",
            description="a network of two stages",
            load=lambda: {loaded("models.backbones.two_stages", "build_two_stages")},
            names=lambda: ["two_stages"],
            imports_pytorch=False,
        )""",
    ),
    "data source": Extension(
        {"pipeline/data/sources/squares.py": "data_source.py"},
        "pipeline/data/sources/table.py",
        f"""SourceEntry(
            name="squares",
            description="coloured squares, embedded",
            load=lambda: {loaded("pipeline.data.sources.squares", "open_squares")},
        )""",
    ),
    "precision": Extension(
        {"pipeline/export/onnx/rounded.py": "precision.py"},
        "pipeline/export/precisions.py",
        f"""PrecisionEntry(
            name="bf16-weights",
            description="float32 with weights as bfloat16 has them",
            load=lambda: {loaded("pipeline.export.onnx.rounded", "round_weights")},
            gate=Gate(max_difference=0.5, min_agreement=0.5, max_drop=0.5),
        )""",
    ),
    "runtime": Extension(
        {"pipeline/evaluation/onnx_plain.py": "onnx_plain.py"},
        "pipeline/evaluation/runtimes.py",
        f"""RuntimeEntry(
            name="onnx_plain",
            description="ONNX Runtime without rewriting",
            load=lambda: {loaded("pipeline.evaluation.onnx_plain", "open_plain")},
            artifact="artifacts/onnx",
        )""",
    ),
    "task": Extension(
        {f"pipeline/tasks/hits/{name}.py": f"task/{name}.py" for name in ("__init__", "task", "training")},
        "pipeline/tasks/table.py",
        f"""TaskEntry(
            name="hits",
            description="which of several things an image shows",
            load=lambda: {loaded("pipeline.tasks.hits.task", "Hits")}(),
        )""",
    ),
}
SQUARES_OF_HITS = f"""SourceEntry(
        name="hit_squares",
        description="coloured squares for the task hits",
        load=lambda: {loaded("pipeline.data.sources.squares", "open_squares")},
        task="hits",
    )"""

TINY = {
    "base.num_threads": 1,
    "prepare_data.source": "squares",
    "train_teacher.backbone": "resnet8_x0_25",
    "distill_student.allow_larger": True,
    "calibrate_steps.candidates": [1, 2],
    "evaluate.latency_iterations": 10,
    "evaluate.latency_batch_sizes": [1],
    "measure_tradeoff.precisions": ["fp32"],
    "measure_tradeoff.iterations": 10,
    "export_onnx.precisions": ["fp32"],
    "export_tensorrt.precisions": ["fp32"],
}
for stage in ("train_teacher", "distill_student"):
    TINY |= {f"{stage}.training.epochs": 1, f"{stage}.training.batch_size": 16}
    TINY |= {f"{stage}.training.schedule.warmup_epochs": 0}
EXTENDED = {
    "distill_student.backbone": "two_stages",
    "distill_student.loss": "power",
    "distill_student.losses.power.exponent": 2.5,
    "distill_student.flow.meta_encoder": "bounded",
    "distill_student.flow.num_steps": [2],
    "calibrate_steps.candidates": [2],
    "export_onnx.precisions": ["fp32", "bf16-weights"],
}
OTHERS = {
    "twofold": {"distill_student.method": "twofold"},
    "circle": {"distill_student.flow.schedule": "circle", "distill_student.flow.num_steps": [2]},
}
"""Further students, whose changes lie in other extensions."""
OF_HITS = {
    "prepare_data.source": "hit_squares",
    "distill_student.backbone": "resnet8_x0_25",
    "distill_student.training.epochs": 4,
}


class Copy:
    """A copy of the sources in which extensions are added."""

    explained: str
    """What the command ``params`` says there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in SOURCES:
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copyfile(ROOT / name, root / name)

    def add(self, extension: Extension) -> None:
        for name, content in extension.files.items():
            path = self.root / name
            assert not path.exists()
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / "tests/extensions" / content, path)
        self.add_entry(extension.table, extension.entry)

    def add_entry(self, table: str, entry: str) -> None:
        path = self.root / table
        path.write_text(with_entry(path.read_text(), entry))

    def run(self, commands: Iterable[Command]) -> str:
        """Run ``commands`` one after the other in one process, as the comparison does; return what they print."""
        worker = [sys.executable, "-m", "pipeline.comparison.worker"]
        streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(worker, cwd=self.root, text=True, **streams) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(list(commands)) + "\n")
            process.stdin.flush()  # stays open: the worker ends when it closes
            output = process.stdout.read()
        assert process.returncode == 0, output
        return output

    def params(self, name: str, changes: Mapping[str, Any]) -> Path:
        """Write the rendered parameters with ``changes`` to the file ``name``."""
        return write_params(self.root / name, {**TINY, **changes}, base=self.root / "params.yaml")

    def json(self, name: str) -> Any:
        return json.loads((self.root / name).read_text())

    def code_digests(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        with monkeypatch.context() as patched:
            patched.setattr(code, "PROJECT", self.root)
            code.write_code_digests(self.root / "code.json")
        found: dict[str, str] = self.json("code.json")
        return found


def with_entry(text: str, entry: str) -> str:
    """Return the source ``text`` with ``entry`` at the end of the arguments of its one call of ``Table``."""
    calls = [node.value for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    (table,) = [call for call in calls if isinstance(call, ast.Call) and ast.unparse(call.func) == "Table"]
    lines = text.splitlines(keepends=True)
    assert table.end_lineno is not None
    assert table.end_col_offset is not None
    end = sum(map(len, lines[: table.end_lineno - 1])) + table.end_col_offset - 1
    return f"{text[:end]}    {entry},\n{text[end:]}"


def stage_command(stage: str, folder: str, params: Path, runtime: str | None = None, **paths: str) -> Command:
    """Return the command of ``stage`` with its paths below ``folder``; ``paths`` replace the usual ones there."""
    usual = {name: f"{folder}/{path}" for name, path in STAGES[stage].project_paths(runtime).items()}
    return command_line(stage, usual | {name: f"{folder}/{path}" for name, path in paths.items()}, params, runtime)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Return a copy with one extension of each kind, and the parameters file that is rendered there."""
    copy = Copy(tmp_path_factory.mktemp("extended") / "copy")
    for extension in EXTENSIONS.values():
        copy.add(extension)
    copy.add_entry(EXTENSIONS["data source"].table, SQUARES_OF_HITS)
    keys = ("distill_student.loss", "prepare_data.source")
    explain = [["stages", "params", "--explain", key] for key in keys]
    copy.explained = copy.run([["stages", "preset", "digits"], *explain])
    return copy


@pytest.fixture(scope="module")
def chain(copy: Copy) -> Copy:
    """Return the same after the chain has run with the extensions, and once more for the task."""
    params = copy.params("extended.yaml", EXTENDED)
    until_export = ["prepare_data", "train_teacher", "distill_student", "calibrate_steps", "trace_flow", "export_onnx"]
    commands = [stage_command(stage, "run", params) for stage in [PROBE, *until_export]]
    plain = stage_command("evaluate", "run", params, "onnx", out="onnx_plain.json", scores="scores.json")
    plain[plain.index("onnx")] = "onnx_plain"
    commands += [stage_command("evaluate", "run", params, "onnx"), plain]
    for name, changes in OTHERS.items():
        params = copy.params(f"{name}.yaml", EXTENDED | changes)
        outputs = {"out": name, "metrics": f"{name}.json", "history": f"{name}.csv"}
        commands.append(stage_command("distill_student", "run", params, **outputs))
    params = copy.params("hits.yaml", OF_HITS)
    commands += [stage_command(stage, "hits", params) for stage in [PROBE, *until_export, "measure_tradeoff"]]
    commands += [stage_command("evaluate", "hits", params, runtime) for runtime in ("onnx", "torch")]
    commands += [stage_command(stage, "hits", params) for stage in ("report", "package")]
    commands.append(["stages", "verify", "--package", "hits/artifacts/package"])
    copy.run(commands)
    return copy


def test_choices_are_explained_and_their_settings_rendered(copy: Copy) -> None:
    assert "power  mean power of the difference" in copy.explained
    assert "squares       coloured squares, embedded" in copy.explained
    text = (copy.root / "params.yaml").read_text()
    comments = re.sub(r"\n +# ", " ", text)
    for names in (
        "conv, conv_mobile, convnext, mlp, transformer, transformer_shifted, bounded",
        "fm_kt, fm_kt_theta, ofm_kt, none, metric, metric_meta, twofold",
        "rectified, vp, ve, circle",
    ):
        assert names in comments
    rendered = YAML(typ="safe").load(text)
    assert rendered["distill_student"]["losses"]["power"] == {"exponent": 1.5}
    gate = {"max_difference": 0.5, "min_agreement": 0.5, "max_drop": 0.5}
    assert rendered["export_onnx"]["gates"]["bf16-weights"] == gate


def test_the_probe_takes_added_names(chain: Copy) -> None:
    inputs = chain.json("run/artifacts/environment.json")["inputs"]
    assert inputs["backbones"] == ["two_stages", "resnet8_x0_25"]
    assert inputs["data"] == "squares"


def test_the_data_source_is_prepared(chain: Copy) -> None:
    data = chain.json("run/artifacts/data/data.json")
    assert (data["task"], data["source"], data["classes"]) == ("classification", "squares", ["warm", "cold"])


def test_criterion_meta_encoder_and_backbone_train_a_student_that_exports(chain: Copy) -> None:
    about = chain.json("run/artifacts/student/network.json")
    assert (about["kind"], about["loss"], about["backbone"]) == ("flow_student", "power", "two_stages")
    assert about["arguments"]["meta_encoder"] == "bounded"
    manifest = chain.json("run/artifacts/onnx/manifest.json")
    assert {entry["form"] for entry in manifest["files"].values()} == {"folded"}, "tanh lies between projections"
    assert "Tanh" in {node.op_type for node in onnx.load(chain.root / "run/artifacts/onnx/model.onnx").graph.node}


def test_the_schedule_trains_a_student(chain: Copy) -> None:
    about = chain.json("run/circle/network.json")
    assert (about["kind"], about["arguments"]["schedule"]) == ("flow_student", "circle")


def test_the_method_trains_a_student(chain: Copy) -> None:
    about = chain.json("run/twofold/network.json")
    assert (about["kind"], about["method"]) == ("classifier", "twofold")
    header, row = (chain.root / "run/twofold.csv").read_text().splitlines()
    found = {name: float(value) for name, value in zip(header.split(","), row.split(","), strict=True)}
    assert found["loss"] == pytest.approx(found["cross_entropy"] + 2 * found["transfer"], rel=1e-4)


def test_the_precision_has_a_file_that_passed_its_own_gate(chain: Copy) -> None:
    manifest = chain.json("run/artifacts/onnx/manifest.json")
    assert manifest["gates"]["bf16-weights"]["max_difference"] == 0.5
    entry = manifest["files"]["model.bf16-weights.onnx"]
    assert 0 < entry["gates"]["deployed"]["test_split"]["difference"] < 0.5
    assert "bf16-weights" in chain.json("run/reports/evaluation/onnx.json")["precisions"]


def test_the_runtime_is_evaluated(chain: Copy) -> None:
    report = chain.json("run/onnx_plain.json")
    assert report["status"] == "evaluated"
    assert report["parity"]["agreement"] == 1.0
    assert report["accuracy"] == chain.json("run/reports/evaluation/onnx.json")["accuracy"]


def test_the_task_goes_through_the_chain_by_its_own_names(chain: Copy) -> None:
    assert chain.json("hits/artifacts/data/data.json")["task"] == "hits"
    assert "test_hit_rate" in chain.json("hits/reports/teacher.json")
    assert "val_hit_rate" in chain.json("hits/reports/student.json")
    assert "hit_rate" in chain.json("hits/artifacts/calibration/calibration.json")["curve"][0]
    assert chain.json("hits/artifacts/onnx/manifest.json")["signature"]["outputs"][0]["name"] == "points"
    assert chain.json("hits/reports/evaluation/onnx.json")["hit_rate"] > 0.5, "more than by chance"
    assert chain.json("hits/artifacts/package/manifest.json")["task"] == "hits"
    assert "share of hits" in (chain.root / "hits/artifacts/package/README.md").read_text()
    assert "hit_rate" in chain.json("hits/reports/metrics.json")
    assert (chain.root / "hits/reports/mistakes.csv").read_text().startswith("file,right,guess,points\n")
    words = [(chain.root / name).read_text() for name in ("hits/reports/student.json", "hits/reports/teacher.json")]
    assert not any("accuracy" in text for text in words)


EARLY = ["prepare_data", "train_teacher"]
AFTER_TRAINING = [
    "calibrate_steps",
    "export_onnx",
    "measure_tradeoff",
    "export_tensorrt",
    "evaluate",
    "report",
    "package",
]
KEPT = {
    "criterion": [*EARLY, *AFTER_TRAINING],
    "meta-encoder": [*EARLY, "export_tensorrt", "report", "package"],
    "schedule": [*EARLY, "export_tensorrt", "report", "package"],
    "method": [*EARLY, *AFTER_TRAINING],
    "backbone source": ["prepare_data", "export_tensorrt", "report", "package"],
    "data source": ["train_teacher", "distill_student", "trace_flow", *AFTER_TRAINING],
    "precision": [*EARLY, "distill_student"],
    "runtime": [*EARLY, "distill_student", "trace_flow", *(name for name in AFTER_TRAINING if name != "evaluate")],
    "task": [],
}
"""The stages that an extension of each kind does not run again."""
RERUN = {
    "criterion": "distill_student",
    "meta-encoder": "distill_student",
    "schedule": "distill_student",
    "method": "distill_student",
    "backbone source": "train_teacher",
    "data source": "prepare_data",
    "precision": "export_onnx",
    "runtime": "evaluate",
    "task": "prepare_data",
}
"""A stage that it does."""


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_an_extension_reruns_no_stage_that_cannot_run_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Copy(tmp_path / "copy")
    before = copy.code_digests(monkeypatch)
    copy.add(EXTENSIONS[kind])
    after = copy.code_digests(monkeypatch)
    changed = [stage for stage in STAGES if stage in before and before[stage] != after[stage]]
    assert RERUN[kind] in changed
    assert [stage for stage in KEPT[kind] if stage in changed] == []


IMPORT_ALL = """
import importlib, json, pathlib, sys
found = []
for table, text in json.load(sys.stdin):
    path = pathlib.Path(table)
    right = path.read_text()
    path.write_text(text)
    try:
        importlib.import_module(table.removesuffix(".py").replace("/", "."))
        found.append("imported")
    except ValueError as error:
        found.append(str(error))
    path.write_text(right)
    for name in [name for name in sys.modules if name.startswith(("models", "pipeline"))]:
        del sys.modules[name]
print(json.dumps(found))
"""


def test_an_entry_with_a_fault_is_refused_when_its_table_is_imported(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy")
    cases: list[tuple[str, str, str]] = []
    for kind, extension in EXTENSIONS.items():
        text = (copy.root / extension.table).read_text()
        without_loader = ast.parse(extension.entry, mode="eval")
        assert isinstance(without_loader.body, ast.Call)
        (name,) = [item.value.value for item in without_loader.body.keywords if item.arg == "name"]  # type: ignore[attr-defined]
        for keyword in without_loader.body.keywords:
            if keyword.arg in {"load", "settings"}:
                keyword.value = ast.Constant(None)
        entry = f"entry {name!r} of the {kind} table: "
        missing = f"{entry}has no loader (got None); give a function that imports it and returns it"
        cases.append((extension.table, with_entry(text, ast.unparse(without_loader)), missing))
        known = ast.unparse(without_loader).replace("load=None", "load=print")
        twice = with_entry(with_entry(text, known), known)
        cases.append((extension.table, twice, f"{entry}stands twice in the table"))
        if kind == "criterion":
            unknown = known.replace("LOGITS, FEATURES", "'boxes',")
            fault = f"{entry}applies to ('boxes',); give a tuple of logits, features"
            cases.append((extension.table, with_entry(text, unknown), fault))
    command = [sys.executable, "-B", "-c", IMPORT_ALL]
    given = json.dumps([case[:2] for case in cases])
    options: dict[str, Any] = {"cwd": copy.root, "text": True, "capture_output": True, "input": given}
    run = subprocess.run(command, check=False, **options)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [message for _, _, message in cases]
