"""Kill training at random moments, start it again, and compare what comes out with an uninterrupted run, bit for bit.

    make soak            # twenty kills, about ten minutes on two CPU cores

Each trial ends the process of ``train_teacher`` or ``distill_student`` by SIGKILL somewhere between its start and its
end, runs the same command again, then ``export_onnx``; weights, history and ONNX file must equal those of the first
run, in which nothing was killed.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline.params.presets import render_preset
from pipeline.preflight.stage_table import STAGES, command_line

ROOT = Path(__file__).parent.parent
STAGES_RUN = ("probe_environment", "prepare_data", "train_teacher", "distill_student", "calibrate_steps", "export_onnx")
COMPARED = (
    "artifacts/teacher",
    "reports/teacher_history.csv",
    "artifacts/student",
    "reports/student_history.csv",
    "artifacts/onnx",
)


class Bench:
    """A folder in which stages run as processes."""

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder = folder
        yaml = YAML()
        params = yaml.load(render_preset(ROOT / "presets", "digits"))
        params["train_teacher"]["backbone"] = "resnet8"
        params["train_teacher"]["training"]["epochs"] = epochs
        params["distill_student"]["training"]["epochs"] = epochs
        params["distill_student"]["allow_larger"] = True
        yaml.dump(params, folder / "params.yaml")

    def start(self, stage: str) -> "subprocess.Popen[str]":
        """Start ``stage``; its output is kept."""
        return subprocess.Popen(
            [sys.executable, "-m", *command_line(stage, STAGES[stage].project_paths())],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, stage: str) -> tuple[str, float]:
        """Run ``stage`` to its end; return its output and seconds."""
        started = time.perf_counter()
        process = self.start(stage)
        output, _ = process.communicate()
        if process.returncode:
            raise click.ClickException(f"{stage} ended with {process.returncode}:\n{output}")
        return output, time.perf_counter() - started

    def digest(self) -> dict[str, str]:
        """Return the digest of each file that is compared."""
        tops = [self.folder / name for name in COMPARED]
        files = [file for top in tops for file in ([top] if top.is_file() else sorted(top.rglob("*")))]
        contents = {str(f.relative_to(self.folder)): f.read_bytes() for f in files if f.is_file()}
        return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}

    def forget(self, names: tuple[str, ...]) -> None:
        """Remove outputs of an earlier trial."""
        for path in (self.folder / name for name in names):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def was_killed(self, stage: str, seconds: float) -> bool:
        """Start ``stage`` and kill it after ``seconds``; return whether it had not ended by itself."""
        process = self.start(stage)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return process.returncode == -signal.SIGKILL


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--epochs", default=10, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(kills: int, epochs: int, seed: int) -> None:
    """Report every trial; end with 1 at the first difference."""
    moments = random.Random(seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), epochs)
        seconds = {stage: bench.run(stage)[1] for stage in STAGES_RUN}
        expected = bench.digest()
        models = {
            f"artifacts/{name}"
            for name in ("teacher/model.safetensors", "student/model.safetensors", "onnx/model.onnx")
        }
        assert models <= set(expected)
        for trial in range(1, kills + 1):
            stage = moments.choice(["train_teacher", "distill_student"])
            bench.forget(COMPARED if stage == "train_teacher" else COMPARED[2:])
            moment = moments.uniform(0.4, 1.0) * seconds[stage]
            while not bench.was_killed(stage, moment):
                moment *= 0.9
            later = STAGES_RUN[STAGES_RUN.index(stage) :]
            output = "".join(bench.run(name)[0] for name in later)
            resumed = next((line for line in output.splitlines() if "interrupted" in line), "it started anew")
            found = bench.digest()
            different = [name for name in expected if found.get(name) != expected[name]]
            verdict = f"DIFFERENT: {', '.join(different)}" if different else "same bits"
            click.echo(f"{trial:2}/{kills} {stage} killed after {moment:.1f} s; {resumed}: {verdict}")
            if different:
                sys.exit(1)


if __name__ == "__main__":
    main()
