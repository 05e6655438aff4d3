"""A folder in which tests run stages one by one, on little data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click import Command
from click.testing import CliRunner, Result

from stages import (
    calibrate_steps,
    distill_student,
    evaluate,
    export_onnx,
    measure_tradeoff,
    package,
    prepare_data,
    trace_flow,
    train_teacher,
)
from tests.helpers import TINY, write_params

WriteParams = Callable[[dict[str, Any]], Path]
SMALL = {
    **TINY,
    "train_teacher.training.epochs": 1,
    "distill_student.training.epochs": 1,
    "prepare_data.max_train_images": 100,
    "export_onnx.precisions": ["fp32"],
    "export_tensorrt.precisions": ["fp32"],
}


PACKAGE = {
    "onnx": "onnx",
    "calibration": "calibration",
    "data": "data",
    "evaluation": "onnx_scores.json",
    "teacher": "teacher.json",
    "student": "student.json",
    "tradeoff": "tradeoff",
    "out": "package",
}
"""From each option of the stage package to its path on a bench."""


class Bench:
    """A folder in which stages are run one by one."""

    def __init__(self, folder: Path, write: WriteParams) -> None:
        self.folder = folder
        self.write = write
        (folder / "environment.json").write_text(json.dumps({"inputs": {"teacher": "needed"}}))

    def words(self, changes: dict[str, Any], **paths: str) -> list[str]:
        """Return the options of a stage; paths are relative to the bench's folder."""
        options = {"params": str(self.write({**SMALL, **changes}))}
        options |= {name: str(self.folder / path) for name, path in paths.items()}
        return [text for name, value in options.items() for text in (f"--{name}", value)]

    def run(self, command: Command, changes: dict[str, Any], *words: str, **paths: str) -> Result:
        runner = CliRunner(env={"DVC_ROOT": str(self.folder)})
        return runner.invoke(command, [*words, *self.words(changes, **paths)])

    def prepare(self) -> None:
        assert self.run(prepare_data.main, {}, out="data").exit_code == 0

    def teach(self, changes: dict[str, Any]) -> Result:
        paths = {"environment": "environment.json", "data": "data", "out": "teacher"}
        return self.run(train_teacher.main, changes, **paths, metrics="teacher.json", history="teacher.csv")

    def distill(self, changes: dict[str, Any]) -> Result:
        paths = {"data": "data", "teacher": "teacher", "out": "student", "metrics": "student.json"}
        return self.run(distill_student.main, changes, **paths, history="student.csv")

    def calibrate(self, changes: dict[str, Any]) -> Result:
        paths = {"data": "data", "student": "student", "out": "calibration", "curve": "curve.csv"}
        return self.run(calibrate_steps.main, changes, **paths)

    def trace(self, changes: dict[str, Any]) -> Result:
        paths = {"data": "data", "teacher": "teacher", "student": "student"}
        return self.run(trace_flow.main, changes, **paths, steps="steps.csv", walks="flow_by_num_steps.csv")

    def export(self, changes: dict[str, Any]) -> Result:
        paths = {"data": "data", "student": "student", "calibration": "calibration", "out": "onnx"}
        return self.run(export_onnx.main, changes, **paths)

    def measure(self, changes: dict[str, Any]) -> Result:
        paths = {"data": "data", "student": "student", "calibration": "calibration", "out": "tradeoff"}
        return self.run(measure_tradeoff.main, changes, **paths)

    def evaluate(self, runtime: str, artifact: str, changes: dict[str, Any]) -> Result:
        paths = {"data": "data", "student": "student", "calibration": "calibration", "artifact": artifact}
        outs = {"out": f"{runtime}.json", "scores": f"{runtime}_scores.json", "confusion": f"{runtime}.csv"}
        return self.run(evaluate.main, changes, runtime, **paths, **outs)

    def package(self, changes: dict[str, Any]) -> Result:
        return self.run(package.main, changes, **PACKAGE)

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


def taught_bench(folder: Path) -> Bench:
    """Return a bench in ``folder`` with prepared data and a teacher."""
    bench = Bench(folder, lambda changes: write_params(folder / "params.yaml", changes))
    bench.prepare()
    assert bench.teach({}).exit_code == 0
    return bench
