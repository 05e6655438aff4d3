"""Train the teacher, or take the one that is given."""

from pathlib import Path

import click

from pipeline.core.distributed import is_main
from pipeline.core.files import Json, read_json, write_json
from pipeline.core.torch_setup import derive_seed, set_up_torch
from pipeline.data.dataset import read_info, read_split
from pipeline.networks.complexity import count_macs
from pipeline.networks.weights import save_network
from pipeline.params.loading import load_params
from pipeline.training.launch import run_in_processes
from pipeline.training.loop import accuracy, write_history
from pipeline.training.run import training_run
from pipeline.training.teacher import obtain_teacher, teacher_arguments
from stages.common import exit_codes, params_option, path_option

NOT_NEEDED = {"status": "not needed", "reason": "distill_student.method learns without a teacher"}


@click.command()
@params_option
@path_option("--environment", "Facts of the probe: whether a teacher is needed.")
@path_option("--data", "Prepared data.")
@path_option("--out", "Folder to write: weights and description of the teacher.")
@path_option("--metrics", "JSON report to write.")
@path_option("--history", "CSV of the epochs to write.")
@exit_codes
def main(params_path: Path, environment: Path, data: Path, out: Path, metrics: Path, history: Path) -> None:
    """Write the teacher, trained here or read from given weights, and its accuracy on the test split."""
    params = load_params(params_path)
    base, engine, teacher_params = params.base.model_dump(), params.engine.model_dump(), params.train_teacher
    is_needed = read_json(environment)["inputs"]["teacher"] == "needed"
    weights = teacher_params.weights
    trains = is_needed and weights is None
    if trains and run_in_processes("stages.train_teacher", params.execution.num_processes):
        return
    device = set_up_torch("train_teacher", **base)
    info = read_info(data)
    statistics = {"mean": teacher_params.mean, "std": teacher_params.std}
    arguments = teacher_arguments(teacher_params.backbone, info, weights=weights, **statistics)
    loop = teacher_params.training.model_dump() | {"seed": derive_seed(base["seed"], "train_teacher")}
    run_facts = {"precision": loop.pop("precision"), "engine": engine, "params": base | teacher_params.model_dump()}
    report: Json = NOT_NEEDED
    with training_run("train_teacher", out, device, **run_facts, inputs=[data / "data.json"]) as run:
        if not trains and is_main():
            write_history(history, [])
        if is_needed:
            teacher = obtain_teacher(arguments, weights, info.image_size, run, data=data, history=history, **loop)
            about = save_network(run.folder, teacher, "classifier", arguments, about={})
            report = {"engine": run.engine.describe()} if trains else {}
            report |= {"test_accuracy": accuracy(teacher, read_split(data, "test"), device)}
            report |= {"macs": count_macs(teacher, info.image_size, device), "num_parameters": about["num_parameters"]}
        else:
            write_json(run.folder / "note.json", NOT_NEEDED)
        if is_main():
            write_json(metrics, report)


if __name__ == "__main__":
    main()
