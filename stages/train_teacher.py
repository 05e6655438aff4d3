"""Train the teacher, from scratch or from given weights, or take it as it is given."""

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
from pipeline.training.diagnosis import training_warnings
from pipeline.training.given_teacher import given_teacher_report
from pipeline.training.loop import Row, write_empty_history
from pipeline.training.run import training_run
from pipeline.training.settings import ExecutionSettings
from pipeline.training.teacher import open_teacher
from pipeline.training.teacher_settings import TrainTeacher
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes
from stages.hosts import run_on_hosts

logger = logging.getLogger(__name__)

NAME = "train_teacher"
NOT_NEEDED = {"status": "not needed", "reason": "distill_student.method learns without a teacher"}


@click.command()
@stage_options(NAME)
@exit_codes
def main(params_path: Path, environment: Path, data: Path, out: Path, metrics: Path, history: Path) -> None:
    """Write the teacher, trained here or taken from given weights, and its scores on the test split."""
    base = load_declared(NAME, params_path, "base", Base)
    execution = load_declared(NAME, params_path, "execution", ExecutionSettings)
    settings = load_declared(NAME, params_path, NAME, TrainTeacher)
    is_needed = read_record(environment, ProbedInputs)["inputs"]["teacher"] == "needed"
    trains = is_needed and settings.training.epochs > 0
    if trains and run_on_hosts(NAME, params_path, execution, {"environment": environment, "data": data}):
        return
    device = set_up_torch(NAME, base)
    prepared = open_data(data)
    task = prepared.training
    teacher = open_teacher(settings, prepared, device) if is_needed else None
    supervision = task.supervision(prepared.info, **settings.training.supervision_settings())
    params: Json = {"base": base.model_dump(mode="json"), NAME: settings.model_dump(mode="json")}
    params["network"] = teacher.spec.own_code() if teacher else None
    inputs = [data / "data.json", *(teacher.start.files if teacher else [])]
    inputs += [Path(settings.classes)] if settings.classes is not None else []
    report: Json = NOT_NEEDED
    rows: list[Row] = []
    with training_run(
        NAME, out, device, execution,
        precision=settings.training.precision, network=teacher.network if teacher else None,
        params=params, inputs=inputs, code=stage_digest(NAME),
    ) as run:  # fmt: skip
        if not trains and is_main():
            write_empty_history(history, supervision, prepared.task.primary)
        if teacher is not None:
            if trains:
                objective = teacher.objective(settings, task, supervision)
                seed = derive_seed(base.seed, NAME)
                rows = run.train(objective, data, task, settings.training, seed=seed, history=history)
            network, started = teacher.network.to(device).eval(), teacher.start.describe()
            about = save_network(run.folder, network, teacher.spec, about=started)
            report = started | ({"execution": run.execution.describe()} if trains else {})
            found = supervision.validate(network, prepared.split("test"), device)
            report |= {f"test_{name}": value for name, value in found.scores.items()}
            report[f"test_{prepared.task.primary_error}"] = found.standard_error
            macs = count_macs(network, prepared.info.image_size, device) or None  # of other runtimes none are seen
            report |= {"macs": macs, "num_parameters": about["num_parameters"]}
            report |= (
                {"warnings": training_warnings(rows, found, supervision, what="the teacher", key=run.key)}
                if trains
                else given_teacher_report(teacher, prepared, found, device, classes=settings.classes)
            )
        else:
            write_json(run.folder / "note.json", NOT_NEEDED)
        if is_main():
            write_json(metrics, report)
            for warning in report.get("warnings", []):
                logger.warning("%s", warning)


if __name__ == "__main__":
    main()
