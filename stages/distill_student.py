"""Distil the teacher into the student."""

from pathlib import Path

import click

from pipeline.core.distributed import is_main
from pipeline.core.files import write_json
from pipeline.core.torch_setup import derive_seed, set_up_torch
from pipeline.data.dataset import read_info
from pipeline.distillation.build import build_objective, load_teacher
from pipeline.distillation.network_specs import build_student, adapter_spec, student_spec, taught
from pipeline.networks.saved import ADAPTER, build_network
from pipeline.networks.weights import DESCRIPTION, WEIGHTS, save_network
from pipeline.params.loading import load_params
from pipeline.training.launch import run_in_processes
from pipeline.training.run import training_run
from stages.common import exit_codes, params_option, path_option


@click.command()
@params_option
@path_option("--data", "Prepared data.")
@path_option("--teacher", "Folder of the teacher.")
@path_option("--out", "Folder to write: weights and description of the student, and of what helped in training.")
@path_option("--metrics", "JSON report to write.")
@path_option("--history", "CSV of the epochs to write.")
@exit_codes
def main(params_path: Path, data: Path, teacher: Path, out: Path, metrics: Path, history: Path) -> None:
    """Train the student by the chosen method and write what deploys."""
    params = load_params(params_path)
    base, engine, distill = params.base.model_dump(), params.engine.model_dump(), params.distill_student
    if run_in_processes("stages.distill_student", params.execution.num_processes):
        return
    settings = distill.model_dump()
    device = set_up_torch("distill_student", **base)
    info = read_info(data)
    recipe = student_spec(settings, info)
    student = build_student(recipe, info.image_size)
    source = load_teacher(teacher).to(device) if distill.needs_teacher else None
    adapter_network_spec = adapter_spec(settings, info, student, source)
    adapter = build_network(*adapter_network_spec) if adapter_network_spec else None
    loop = settings["training"]
    objective = build_objective(settings, student, adapter, source, label_smoothing=loop.pop("label_smoothing"))
    run_facts = {"precision": loop.pop("precision"), "engine": engine, "params": base | distill.model_dump()}
    inputs = [data / "data.json", *([teacher / DESCRIPTION, teacher / WEIGHTS] if source else [])]
    with training_run("distill_student", out, device, **run_facts, inputs=inputs) as run:
        rows = run.train(objective, data, seed=derive_seed(base["seed"], "distill_student"), history=history, **loop)
        about = {"method": distill.method, "loss": distill.loss, "backbone": distill.backbone, **taught(settings)}
        about = save_network(run.folder, student, *recipe, about=about)
        if adapter is not None and adapter_network_spec is not None:
            save_network(run.folder / ADAPTER, adapter, *adapter_network_spec, about={})
        report = {"val_accuracy": rows[-1]["val_accuracy"], "num_parameters": about["num_parameters"]}
        if is_main():
            write_json(metrics, report | {"engine": run.engine.describe()})


if __name__ == "__main__":
    main()
