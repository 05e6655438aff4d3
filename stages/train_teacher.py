"""Train the teacher, or take the one that is given."""

import functools
from pathlib import Path

import click

from pipeline.data.store import read_info, read_split
from pipeline.files import read_json, replaced_folder, write_json
from pipeline.macs import count_macs
from pipeline.params_file import load_params
from pipeline.seeding import set_up_torch
from pipeline.teacher import obtain_teacher, teacher_arguments
from pipeline.training import accuracy, write_history
from pipeline.weights import save_network
from stages.common import exit_codes, params_option, path_option


@click.command()
@params_option
@path_option("--environment", "Facts of the probe: whether a teacher is needed.")
@path_option("--data", "Packed data.")
@path_option("--out", "Folder to write: weights and description of the teacher.")
@path_option("--metrics", "JSON report to write.")
@path_option("--history", "CSV of the epochs to write.")
@exit_codes
def main(params_path: Path, environment: Path, data: Path, out: Path, metrics: Path, history: Path) -> None:
    """Write the teacher, trained here or read from given weights, and its accuracy on the test split."""
    params = load_params(params_path)
    device = set_up_torch("train_teacher", **params.base.model_dump())
    info = read_info(data)
    teacher_params = params.train_teacher
    arguments = teacher_arguments(
        teacher_params.backbone,
        info,
        weights=teacher_params.weights,
        mean=teacher_params.mean,
        std=teacher_params.std,
    )
    write_history(history, [])
    with replaced_folder(out) as folder:
        if read_json(environment)["inputs"]["teacher"] == "not needed":
            note = {"status": "not needed", "reason": "distill_student.method learns without a teacher"}
            write_json(folder / "note.json", note)
            write_json(metrics, note)
            return
        teacher = obtain_teacher(
            arguments,
            teacher_params.weights,
            lambda name: read_split(data, name),
            image_size=info.image_size,
            seed=params.base.seed,
            device=device,
            on_epoch=functools.partial(write_history, history),
            **teacher_params.training.model_dump(),
        )
        test_accuracy = accuracy(teacher, read_split(data, "test"), device)
        macs = count_macs(teacher, info.image_size, device)
        about = save_network(folder, teacher, "classifier", arguments, about={})
    write_json(metrics, {"test_accuracy": test_accuracy, "macs": macs, "num_parameters": about["num_parameters"]})


if __name__ == "__main__":
    main()
