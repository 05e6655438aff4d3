"""A folder in which tests run stages one by one, on little data."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from pipeline.preflight.stage_table import STAGES, command_line
from workbench.project import TINY, write_params

WriteParams = Callable[[dict[str, Any]], Path]
SMALL = {
    **TINY,
    "train_teacher.training.epochs": 1,
    "distill_student.training.epochs": 1,
    "prepare_data.max_train_images": 100,
    "export_onnx.precisions": ["fp32"],
    "export_tensorrt.precisions": ["fp32"],
}
ENVIRONMENT = {
    "inputs": {
        "teacher": "needed",
        "package": {
            "name": "fmkt-student",
            "data": {"name": "digits", "newest_file": None, "carried_by": "scikit-learn 1.0"},
        },
    },
    "tensorrt": {
        "buildable": False,
        "reason": "no NVIDIA GPU on this bench",
        "gpu": None,
        "compute_capability": None,
        "tensorrt": None,
        "tensorrt_major": None,
        "polygraphy": None,
    },
}
PATHS = {
    "prepare_data": {"out": "data"},
    "train_teacher": {
        "environment": "environment.json",
        "data": "data",
        "out": "teacher",
        "metrics": "teacher.json",
        "history": "teacher.csv",
    },
    "distill_student": {
        "data": "data",
        "teacher": "teacher",
        "out": "student",
        "metrics": "student.json",
        "history": "student.csv",
    },
    "calibrate_steps": {
        "data": "data",
        "teacher": "teacher",
        "student": "student",
        "out": "calibration",
        "curve": "curve.csv",
    },
    "trace_flow": {
        "data": "data",
        "teacher": "teacher",
        "student": "student",
        "steps": "steps.csv",
        "by_num_steps": "flow_by_num_steps.csv",
        "likelihood": "likelihood.csv",
        "ensemble": "ensemble.csv",
    },
    "export_onnx": {"data": "data", "student": "student", "calibration": "calibration", "out": "onnx"},
    "measure_tradeoff": {"data": "data", "student": "student", "onnx": "onnx", "out": "tradeoff"},
    "export_tensorrt": {"onnx": "onnx", "environment": "environment.json", "out": "tensorrt"},
    "evaluate": {"data": "data", "student": "student", "calibration": "calibration"},
    "report": {
        "data": "data",
        "predictions": "onnx.csv",
        "evaluation": "onnx.json",
        "trained": "torch_scores.json",
        "onnx": "onnx",
        "calibration": "calibration",
        "tradeoff": "tradeoff",
        "teacher": "teacher.json",
        "student": "student.json",
        "teacher_history": "teacher.csv",
        "student_history": "student.csv",
        "flow_steps": "steps.csv",
        "flow_by_num_steps": "flow_by_num_steps.csv",
        "likelihood": "likelihood.csv",
        "out": "report",
        "metrics": "metrics.json",
        "mistakes": "mistakes.csv",
        "classes": "per_class.csv",
        "confusion": "confusion.csv",
        "precision_recall": "precision_recall.csv",
        "score_by_epoch": "score_by_epoch.csv",
        "score_by_steps": "score_by_steps.csv",
        "likelihood_by_steps": "likelihood_by_steps.csv",
    },
    "package": {
        "onnx": "onnx",
        "calibration": "calibration",
        "data": "data",
        "tradeoff": "tradeoff",
        "report": "report",
        "evaluation": "onnx_scores.json",
        "teacher": "teacher.json",
        "student": "student.json",
        "environment": "environment.json",
        "out": "package",
    },
}
"""From each stage to where its paths lie on a bench, by argument name."""


class Bench:
    """A folder in which stages are run one by one."""

    def __init__(self, folder: Path, write: WriteParams) -> None:
        self.folder = folder
        self.write = write
        (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))

    def command(self, stage: str, changes: dict[str, Any], runtime: str | None = None, **paths: str) -> list[str]:
        """Return the stage's module and arguments; ``paths`` are relative to the bench and replace the usual ones."""
        params = self.write({**SMALL, **changes})
        places = {name: self.folder / path for name, path in (PATHS[stage] | paths).items()}
        return command_line(stage, places, params, runtime)

    def run(self, stage: str, changes: dict[str, Any], runtime: str | None = None, **paths: str) -> Result:
        """Run the stage in this process."""
        words = self.command(stage, changes, runtime, **paths)[1:]
        runner = CliRunner(env={"DVC_ROOT": str(self.folder)})
        return runner.invoke(importlib.import_module(STAGES[stage].module).main, words)

    def prepare(self) -> None:
        result = self.run("prepare_data", {})
        assert result.exit_code == 0, result.output

    def teach(self, changes: dict[str, Any]) -> Result:
        return self.run("train_teacher", changes)

    def distill(self, changes: dict[str, Any]) -> Result:
        return self.run("distill_student", changes)

    def calibrate(self, changes: dict[str, Any]) -> Result:
        return self.run("calibrate_steps", changes)

    def trace(self, changes: dict[str, Any]) -> Result:
        return self.run("trace_flow", changes)

    def export(self, changes: dict[str, Any]) -> Result:
        return self.run("export_onnx", changes)

    def measure(self, changes: dict[str, Any]) -> Result:
        return self.run("measure_tradeoff", changes)

    def evaluate(self, runtime: str, artifact: str, changes: dict[str, Any]) -> Result:
        outs = {"out": f"{runtime}.json", "scores": f"{runtime}_scores.json", "predictions": f"{runtime}.csv"}
        return self.run("evaluate", changes, runtime, artifact=artifact, **outs)

    def engines(self, changes: dict[str, Any]) -> Result:
        return self.run("export_tensorrt", changes)

    def report(self, changes: dict[str, Any]) -> Result:
        return self.run("report", changes)

    def package(self, changes: dict[str, Any]) -> Result:
        return self.run("package", changes)

    def to_package(self, changes: dict[str, Any]) -> None:
        """Evaluate, report and package what has been exported and measured."""
        for runtime, artifact in (("onnx", "onnx"), ("torch", "student")):
            result = self.evaluate(runtime, artifact, changes)
            assert result.exit_code == 0, result.output
        for step in (self.report, self.package):
            result = step(changes)
            assert result.exit_code == 0, result.output

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


def taught_bench(folder: Path) -> Bench:
    """Return a bench in ``folder`` with prepared data and a teacher."""
    bench = Bench(folder, lambda changes: write_params(folder / "params.yaml", changes))
    bench.prepare()
    result = bench.teach({})
    assert result.exit_code == 0, result.output
    return bench
