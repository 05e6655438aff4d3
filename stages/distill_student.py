"""Transfer the teacher into the student."""

import logging
from pathlib import Path

import click

from pipeline.core.distributed import is_main
from pipeline.core.files import Json, write_json
from pipeline.core.settings import Base
from pipeline.core.torch_setup import derive_seed, set_up_torch
from pipeline.distillation.building import Distillation, build_distillation
from pipeline.distillation.frozen_teacher import load_teacher
from pipeline.distillation.settings import DistillStudent
from pipeline.distillation.stored_teacher import store_logits
from pipeline.networks.saved import ADAPTER
from pipeline.networks.spec import DESCRIPTION, WEIGHTS
from pipeline.networks.weights import save_network
from pipeline.preflight.code import stage_digest
from pipeline.tasks.data import TaskData, open_data
from pipeline.tasks.training import Validation
from pipeline.training.diagnosis import given_weights_warnings, training_warnings, weak_teacher
from pipeline.training.loop import Row, write_empty_history
from pipeline.training.run import TrainingRun, training_run
from pipeline.training.settings import ExecutionSettings
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes
from stages.hosts import run_on_hosts

logger = logging.getLogger(__name__)

NAME = "distill_student"


@click.command()
@stage_options(NAME)
@exit_codes
def main(params_path: Path, data: Path, teacher: Path, out: Path, metrics: Path, history: Path) -> None:
    """Train the student by the chosen method, or take it as it is given, and write what deploys."""
    base = load_declared(NAME, params_path, "base", Base)
    execution = load_declared(NAME, params_path, "execution", ExecutionSettings)
    settings = load_declared(NAME, params_path, NAME, DistillStudent)
    if settings.training.epochs and run_on_hosts(NAME, params_path, execution, {"data": data, "teacher": teacher}):
        return
    device = set_up_torch(NAME, base)
    prepared, training = open_data(data), settings.training
    built = build_distillation(settings, prepared, lambda: load_teacher(teacher).to(device))
    params: Json = {"base": base.model_dump(mode="json"), NAME: settings.model_dump(mode="json")}
    params["network"] = built.spec.own_code()
    inputs = [data / "data.json", *built.start.files]
    inputs += [teacher / DESCRIPTION, teacher / WEIGHTS] if built.teacher else []
    with training_run(
        NAME, out, device, execution,
        precision=training.precision, network=built.objective.network,
        params=params, inputs=inputs, code=stage_digest(NAME),
    ) as run:  # fmt: skip
        facts = {"base": params["base"], "execution": run.execution.describe()}
        store_logits(built.objective.teacher, prepared.info, training, facts, inputs, code=stage_digest(NAME))
        known = [*settings.warnings(len(prepared.info.class_names)), *built.doubts]
        _log(known)
        rows: list[Row] = []
        if training.epochs:
            seed = derive_seed(base.seed, NAME)
            rows = run.train(built.objective, data, prepared.training, training, seed=seed, history=history)
        else:
            write_empty_history(history, built.objective.supervision, prepared.task.primary)
            built.objective.network.to(device).eval()
        started = built.start.describe()
        about = {"method": settings.method, "loss": settings.loss, "backbone": settings.backbone} | started
        about = save_network(
            run.folder, built.student, built.spec, about=about | {"teacher_stages": built.teacher_stages}
        )
        if built.adapter is not None and built.adapter_spec is not None:
            save_network(run.folder / ADAPTER, built.adapter, built.adapter_spec, about={})
        validation = built.objective.supervision.validate(built.objective.predict, prepared.split("calib"), device)
        found = _warnings(rows, validation, built, prepared, run)
        _log(found)
        if is_main():
            last = rows[-1] if rows else {f"val_{name}": value for name, value in validation.scores.items()}
            report = {name: value for name, value in last.items() if name.startswith("val_")} | started
            report |= {"num_parameters": about["num_parameters"], "execution": run.execution.describe()}
            write_json(metrics, report | {"warnings": [*known, *found]})


def _log(warnings: list[str]) -> None:
    for warning in warnings if is_main() else ():
        logger.warning("%s", warning)


def _warnings(rows: list[Row], student: Validation, built: Distillation, data: TaskData, run: TrainingRun) -> list[str]:
    """Return a line on each reason to doubt the student, of which ``student`` was found, or its teacher."""
    if not rows:
        return given_weights_warnings(student, what="the given student", section=NAME)
    supervision = built.objective.supervision
    teacher = (
        supervision.validate(built.teacher, data.split("calib"), run.execution.device)
        if built.teacher is not None
        else None
    )
    found = training_warnings(rows, student, supervision, what="the student", key=run.key, teacher=teacher)
    if teacher is None:
        return found
    weak = weak_teacher(student, teacher, data.task.primary, in_words=data.task.primary_in_words)
    return [*found, weak] if weak else found


if __name__ == "__main__":
    main()
