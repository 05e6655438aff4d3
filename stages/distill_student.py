"""Distil the teacher into the student."""

import functools
from pathlib import Path

import click

from pipeline.artifacts import HELPER, build_network
from pipeline.data.store import read_info, read_split
from pipeline.distillation import build_objective, load_teacher
from pipeline.files import replaced_folder, write_json
from pipeline.params_file import load_params
from pipeline.recipes import build_student, helper_recipe, student_recipe, taught
from pipeline.seeding import derive_seed, set_up_torch
from pipeline.training import train, write_history
from pipeline.weights import save_network
from stages.common import exit_codes, params_option, path_option


@click.command()
@params_option
@path_option("--data", "Packed data.")
@path_option("--teacher", "Folder of the teacher.")
@path_option("--out", "Folder to write: weights and description of the student, and of what helped in training.")
@path_option("--metrics", "JSON report to write.")
@path_option("--history", "CSV of the epochs to write.")
@exit_codes
def main(params_path: Path, data: Path, teacher: Path, out: Path, metrics: Path, history: Path) -> None:
    """Train the student by the chosen method and write what deploys."""
    params = load_params(params_path)
    distill = params.distill_student
    settings = distill.model_dump()
    loop = settings.pop("training")
    device = set_up_torch("distill_student", **params.base.model_dump())
    info = read_info(data)
    recipe = student_recipe(settings, info)
    student = build_student(recipe, info.image_size)
    source = load_teacher(teacher).to(device) if distill.needs_teacher else None
    helping = helper_recipe(settings, info, student, source)
    helper = build_network(*helping) if helping else None
    objective = build_objective(settings, student, helper, source, label_smoothing=loop.pop("label_smoothing"))
    with replaced_folder(out) as folder:
        rows = train(
            objective,
            read_split(data, "train"),
            read_split(data, "calib"),
            seed=derive_seed(params.base.seed, "distill_student"),
            device=device,
            on_epoch=functools.partial(write_history, history),
            **loop,
        )
        about = {"method": distill.method, "loss": distill.loss, "backbone": distill.backbone, **taught(settings)}
        about = save_network(folder, student, *recipe, about=about)
        if helper is not None and helping is not None:
            save_network(folder / HELPER, helper, *helping, about={})
    last = rows[-1]["held_out_accuracy"]
    write_json(metrics, {"held_out_accuracy": last, "num_parameters": about["num_parameters"]})


if __name__ == "__main__":
    main()
