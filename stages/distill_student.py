"""Transfer the teacher into the student."""

import logging
from pathlib import Path

import click

from pipeline.core.distributed import is_main
from pipeline.core.files import write_json
from pipeline.core.settings import Base
from pipeline.core.torch_setup import derive_seed, set_up_torch
from pipeline.distillation.method import Networks, build_student, teacher_stages
from pipeline.distillation.methods import METHODS
from pipeline.distillation.settings import DistillStudent
from pipeline.distillation.teacher_loss import load_teacher
from pipeline.networks.saved import ADAPTER, build_network
from pipeline.networks.weights import DESCRIPTION, WEIGHTS, save_network
from pipeline.preflight.code import stage_digest
from pipeline.tasks.data import open_data
from pipeline.training.launch import run_in_processes
from pipeline.training.run import training_run
from pipeline.training.settings import ExecutionSettings
from stages.common import exit_codes, stage_options
from stages.declared import load_declared

logger = logging.getLogger(__name__)

NAME = "distill_student"


@click.command()
@stage_options(NAME)
@exit_codes
def main(params_path: Path, data: Path, teacher: Path, out: Path, metrics: Path, history: Path) -> None:
    """Train the student by the chosen method and write what deploys."""
    base = load_declared(NAME, params_path, "base", Base)
    execution = load_declared(NAME, params_path, "execution", ExecutionSettings)
    settings = load_declared(NAME, params_path, NAME, DistillStudent)
    if run_in_processes(f"stages.{NAME}", execution.num_processes):
        return
    device = set_up_torch(NAME, base)
    prepared, method = open_data(data), METHODS[settings.method].load()
    info, task, training = prepared.info, prepared.training, settings.training
    for warning in settings.warnings(len(info.class_names)):
        logger.warning(warning)
    spec = method.student(settings, info, task)
    student = build_student(spec, info.image_size)
    source = load_teacher(teacher).to(device) if settings.needs_teacher else None
    adapter_spec = method.adapter(settings, info, task, student, source)
    adapter = build_network(adapter_spec) if adapter_spec else None
    supervision = task.supervision(label_smoothing=training.label_smoothing)
    objective = method.objective(settings, Networks(student, adapter, source), supervision)
    params = {"base": base.model_dump(mode="json"), NAME: settings.model_dump(mode="json")}
    inputs = [data / "data.json", *([teacher / DESCRIPTION, teacher / WEIGHTS] if source else [])]
    with training_run(
        NAME, out, device, execution,
        precision=training.precision, params=params, inputs=inputs, code=stage_digest(NAME),
    ) as run:  # fmt: skip
        rows = run.train(objective, data, task, training, seed=derive_seed(base.seed, NAME), history=history)
        about = {"method": settings.method, "loss": settings.loss, "backbone": settings.backbone}
        about = save_network(run.folder, student, spec, about=about | {"teacher_stages": teacher_stages(settings)})
        if adapter is not None and adapter_spec is not None:
            save_network(run.folder / ADAPTER, adapter, adapter_spec, about={})
        if is_main():
            val = {name: value for name, value in rows[-1].items() if name.startswith("val_")}
            report = {"num_parameters": about["num_parameters"], "execution": run.execution.describe()}
            write_json(metrics, val | report)


if __name__ == "__main__":
    main()
