"""Distil the teacher into the student."""

import functools
from pathlib import Path

import click

from pipeline.data.store import read_info, read_split
from pipeline.distillation import build_metric, build_objective, build_student, load_teacher, student_recipe
from pipeline.files import replaced_folder, write_json
from pipeline.params_file import load_params
from pipeline.seeding import derive_seed, set_up_torch
from pipeline.training import train, write_history
from pipeline.weights import save_network
from stages.common import exit_codes, params_option, path_option


@click.command()
@params_option
@path_option("--data", "Packed data.")
@path_option("--teacher", "Folder of the teacher.")
@path_option("--out", "Folder to write: weights and description of the student.")
@path_option("--metrics", "JSON report to write.")
@path_option("--history", "CSV of the epochs to write.")
@exit_codes
def main(params_path: Path, data: Path, teacher: Path, out: Path, metrics: Path, history: Path) -> None:
    """Train the student by the chosen method and write what deploys."""
    params = load_params(params_path)
    distill = params.distill_student
    device = set_up_torch("distill_student", **params.base.model_dump())
    info = read_info(data)
    kind, arguments = student_recipe(distill.method, distill.backbone, info, distill.flow.model_dump())
    student = build_student(kind, arguments, info.image_size)
    settings = distill.training.model_dump()
    objective = build_objective(
        distill.method,
        student,
        load_teacher(teacher).to(device) if distill.needs_teacher else None,
        build_metric(distill.loss, distill.losses.model_dump()),
        num_steps=distill.flow.num_steps,
        weight=distill.loss_weight,
        label_smoothing=settings.pop("label_smoothing"),
    )
    write_rows = functools.partial(write_history, history)
    with replaced_folder(out) as folder:
        rows = train(
            objective, read_split(data, "train"), read_split(data, "calib"),
            seed=derive_seed(params.base.seed, "distill_student"), device=device, on_epoch=write_rows, **settings,
        )  # fmt: skip
        about = {"method": distill.method, "loss": distill.loss, "backbone": distill.backbone}
        about = save_network(folder, student, kind, arguments, about=about)
    last = rows[-1]["held_out_accuracy"]
    write_json(metrics, {"held_out_accuracy": last, "num_parameters": about["num_parameters"]})


if __name__ == "__main__":
    main()
