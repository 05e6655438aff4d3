"""Distil the teacher into the student."""

from pathlib import Path

import click

from pipeline.artifacts import HELPER, build_network
from pipeline.data.store import read_info
from pipeline.distillation import build_objective, load_teacher
from pipeline.distributed import is_main
from pipeline.files import write_json
from pipeline.launching import run_in_processes
from pipeline.params_file import load_params
from pipeline.recipes import build_student, helper_recipe, student_recipe, taught
from pipeline.seeding import derive_seed, set_up_torch
from pipeline.training_run import training_run
from pipeline.weights import DESCRIPTION, WEIGHTS, save_network
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
    if run_in_processes("stages.distill_student", params.engine.num_processes):
        return
    settings = distill.model_dump()
    device = set_up_torch("distill_student", **base)
    info = read_info(data)
    recipe = student_recipe(settings, info)
    student = build_student(recipe, info.image_size)
    source = load_teacher(teacher).to(device) if distill.needs_teacher else None
    helping = helper_recipe(settings, info, student, source)
    helper = build_network(*helping) if helping else None
    loop = settings["training"]
    objective = build_objective(settings, student, helper, source, label_smoothing=loop.pop("label_smoothing"))
    run_facts = {"precision": loop.pop("precision"), "engine": engine, "params": base | distill.model_dump()}
    inputs = [data / "data.json", *([teacher / DESCRIPTION, teacher / WEIGHTS] if source else [])]
    with training_run("distill_student", out, device, **run_facts, inputs=inputs) as run:
        rows = run.train(objective, data, seed=derive_seed(base["seed"], "distill_student"), history=history, **loop)
        about = {"method": distill.method, "loss": distill.loss, "backbone": distill.backbone, **taught(settings)}
        about = save_network(run.folder, student, *recipe, about=about)
        if helper is not None and helping is not None:
            save_network(run.folder / HELPER, helper, *helping, about={})
        report = {"held_out_accuracy": rows[-1]["held_out_accuracy"], "num_parameters": about["num_parameters"]}
        if is_main():
            write_json(metrics, report | {"engine": run.engine.describe()})


if __name__ == "__main__":
    main()
