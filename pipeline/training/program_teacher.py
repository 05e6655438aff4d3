"""A teacher that is a program: read from its file, and checked against the images before anything learns from it."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from pipeline.core.errors import UserError
from pipeline.core.files import Json
from pipeline.core.printable import printable
from pipeline.data.packed_batches import ordered_batches
from pipeline.networks.program import Program, are_probabilities, check_program
from pipeline.networks.programs import KEY, ProgramFile
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.data import TaskData
from pipeline.training.teacher_classes import known_classes
from pipeline.training.teacher_settings import TrainTeacher

IMAGES = 64
"""So many held-out images show whether outputs are probabilities."""
PROBABILITIES = (
    "the teacher returns probabilities, not logits: their logarithms are taken, which teach the same but for what the "
    "softmax has rounded to 0 (much, in float16); export it without its softmax"
)


class ReadProgram(NamedTuple):
    """A program that can teach."""

    network: nn.Module
    spec: NetworkSpec
    warnings: tuple[str, ...] = ()
    """What was found of it that is hardly meant."""


def read_program(file: ProgramFile, settings: TrainTeacher, data: TaskData, device: torch.device) -> ReadProgram:
    """Return the program in ``file`` on ``device``.

    Raises:
        UserError: it cannot be read or run, or takes or returns something else than the images need.
    """
    content = file.read()
    taught, chosen = data, None
    if settings.classes is not None:
        info, chosen = known_classes(Path(settings.classes), data.info)
        taught = dataclasses.replace(data, info=info)
    (output,) = taught.signature().outputs
    arguments: Json = {"num_bytes": len(content), "output": output.name, "num_outputs": output.shape[-1]}
    arguments["chosen"] = chosen
    arguments |= {"mean": settings.mean and list(settings.mean), "std": settings.std and list(settings.std)}
    network = _built(file, NetworkSpec(file.entry.kind, arguments), content, device)
    try:
        check_program(network, data.info.image_size, normalized=settings.mean is not None)
        found = _returns_probabilities(network, data, device)
    except UserError as error:
        raise UserError(f"{KEY}: {printable(file.path)}: {error}") from error
    if not found:
        return ReadProgram(network, NetworkSpec(file.entry.kind, arguments))
    spec = NetworkSpec(file.entry.kind, arguments | {"returns_probabilities": True})
    return ReadProgram(_built(file, spec, content, device), spec, (PROBABILITIES,))


def _built(file: ProgramFile, spec: NetworkSpec, content: bytes, device: torch.device) -> Program:
    network = file.entry.load()(**spec.arguments)
    network.file.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    return network.to(device).eval()


@torch.inference_mode()
def _returns_probabilities(network: Program, data: TaskData, device: torch.device) -> bool:
    batches = ordered_batches(data.split("calib").spread(IMAGES), IMAGES, device)
    return all(are_probabilities(network.all_outputs(batch.images)) for batch in batches)
