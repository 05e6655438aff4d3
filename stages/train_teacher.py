"""Train the teacher, or take the one that is given."""

import logging
from pathlib import Path

import click

from pipeline.core.distributed import is_main
from pipeline.core.files import Json, write_json
from pipeline.core.records import ProbedInputs, read_record
from pipeline.core.settings import Base
from pipeline.core.torch_setup import derive_seed, set_up_torch
from pipeline.networks.complexity import count_macs
from pipeline.networks.weights import save_network
from pipeline.preflight.code import stage_digest
from pipeline.tasks.data import open_data
from pipeline.training.diagnosis import given_weights_warnings, training_warnings
from pipeline.training.launch import run_in_processes
from pipeline.training.loop import Row, write_empty_history
from pipeline.training.objective import Supervised
from pipeline.training.run import training_run
from pipeline.training.settings import ExecutionSettings
from pipeline.training.teacher import build_teacher, given_teacher, teacher_spec
from pipeline.training.teacher_settings import TrainTeacher
from stages.common import exit_codes, stage_options
from stages.declared import load_declared

logger = logging.getLogger(__name__)

NAME = "train_teacher"
NOT_NEEDED = {"status": "not needed", "reason": "distill_student.method learns without a teacher"}


@click.command()
@stage_options(NAME)
@exit_codes
def main(params_path: Path, environment: Path, data: Path, out: Path, metrics: Path, history: Path) -> None:
    """Write the teacher, trained here or read from given weights, and its scores on the test split."""
    base = load_declared(NAME, params_path, "base", Base)
    execution = load_declared(NAME, params_path, "execution", ExecutionSettings)
    settings = load_declared(NAME, params_path, NAME, TrainTeacher)
    is_needed = read_record(environment, ProbedInputs)["inputs"]["teacher"] == "needed"
    trains = is_needed and not settings.is_given
    if trains and run_in_processes(f"stages.{NAME}", execution.num_processes):
        return
    device = set_up_torch(NAME, base)
    prepared = open_data(data)
    task = prepared.training
    supervision = task.supervision(prepared.info, **settings.training.supervision_settings())
    params = {"base": base.model_dump(mode="json"), NAME: settings.model_dump(mode="json")}
    precision, inputs = settings.training.precision, [data / "data.json"]
    report: Json = NOT_NEEDED
    rows: list[Row] = []
    with training_run(
        NAME, out, device, execution, precision=precision, params=params, inputs=inputs, code=stage_digest(NAME)
    ) as run:
        if not trains and is_main():
            write_empty_history(history, supervision, prepared.task.primary)
        if is_needed:
            image_size = prepared.info.image_size
            if trains:
                spec = teacher_spec(settings, prepared.info, task)
                teacher = build_teacher(task, spec, image_size)
                objective = Supervised(teacher, supervision=supervision)
                seed = derive_seed(base.seed, NAME)
                rows = run.train(objective, data, task, settings.training, seed=seed, history=history)
            else:
                teacher, spec, doubts = given_teacher(settings, prepared, device)
            about = save_network(run.folder, teacher, spec, about={})
            report = {"execution": run.execution.describe()} if trains else {}
            found = supervision.validate(teacher, prepared.split("test"), device)
            report |= {f"test_{name}": value for name, value in found.scores.items()}
            report[f"test_{prepared.task.primary_error}"] = found.standard_error
            macs = count_macs(teacher, image_size, device) or None  # PyTorch sees nothing of other runtimes
            report |= {"macs": macs, "num_parameters": about["num_parameters"]}
            report["warnings"] = (
                training_warnings(rows, found, supervision, what="the teacher", key=run.key)
                if trains
                else [*doubts, *given_weights_warnings(found)]
            )
        else:
            write_json(run.folder / "note.json", NOT_NEEDED)
        if is_main():
            write_json(metrics, report)
            for warning in report.get("warnings", []):
                logger.warning("%s", warning)


if __name__ == "__main__":
    main()
