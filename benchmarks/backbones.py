"""Every network by name: cut, transferred at logits, exported, compared in ONNX Runtime; one process for each.

    python -m benchmarks.backbones                     # goes on where it stopped; about an hour on two cores
    python -m benchmarks.backbones timm:resnet10t      # these alone, anew
    make tables                                        # writes docs/backbones.md from what was found

Weights are random, four classes, four random images of 96 x 96 pixels or, where a network takes no such small ones, of
its own size. As a student a network takes one step of FM-KT (N = 2, DIST) from a resnet8, must have finite gradients
for all its weights, and is exported in its folded form for K = 1 in float32. As a teacher it gives the logits for one
step of a resnet8, and is exported as it is. The difference is the largest of a logit as a share of the spread of its
image's logits (pipeline/tasks/parity.py).
"""

import copy
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.networks import exported
from models.backbones.sources import find_backbone
from models.backbones.torchvision_models import torchvision_names
from models.classifier import Classifier
from models.deploy import with_num_steps
from models.factory import build_classifier, check_image_size, count_parameters
from models.step_sampler import StepSampler
from models.students import FlowStudent, build_flow_student
from pipeline.core.files import read_json, write_json
from pipeline.core.printable import first_line
from pipeline.data.batch import Batch
from pipeline.distillation.criteria import DistSettings
from pipeline.distillation.criterion import Criterion
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.logit_objectives import FlowMatching
from pipeline.distillation.teacher_loss import TeacherLoss
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.training import CrossEntropy
from pipeline.tasks.parity import compare_values, output_scale

RESULTS = Path(__file__).parent / "results" / "backbones.json"
NAMES = Path(__file__).with_suffix(".txt")
CLASSES, IMAGES, SMALL = 4, 4, 96
MAX_DIFFERENCE = 1e-4
"""The gate of ``export_onnx`` for float32."""
GIBIBYTES, SECONDS = 10, 600
"""The memory and the time that one network may take."""
STATISTICS: dict[str, Any] = {"num_classes": CLASSES, "mean": [0.5] * 3, "std": [0.25] * 3}
FLOW: dict[str, Any] = {"schedule": "rectified", "meta_encoder": "conv_mobile", "time_scale": 1.0}


def all_names() -> list[str]:
    """Return what is tried, in order."""
    lines = NAMES.read_text(encoding="utf-8").splitlines()
    return [*" ".join(line for line in lines if not line.startswith("#")).split(), *sorted(torchvision_names())]


def image_size(name: str) -> tuple[int, int]:
    """Return the size of the images on which the network ``name`` is tried."""
    source, own = find_backbone(name)
    size, fixed = (224, 224), own.startswith("vit_") or own == "maxvit_t"
    if source.name == "timm":
        import timm

        about = timm.models.get_pretrained_cfg(own)
        assert about is not None, "networks of timm's have settings"
        _, height, width = about.input_size
        size, fixed = (height, width), about.fixed_input_size
    if not fixed:
        try:
            network = build_classifier(backbone=name, image_size=(SMALL, SMALL), **STATISTICS)
            check_image_size(network, (SMALL, SMALL))
        except ValueError:
            return size
        return SMALL, SMALL
    return size


def examine(name: str) -> dict[str, Any]:
    """Return what is found of the network ``name``."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size = image_size(name)
    plain = build_classifier(backbone=name, image_size=size, **STATISTICS)
    found: dict[str, Any] = {"image_size": list(size), "num_parameters": count_parameters(plain)}
    found |= {"stages": list(plain.backbone.widths), "why_uncut": plain.backbone.why_uncut}
    found["as_student"] = attempt(lambda: as_student(name, size))
    if not plain.backbone.widths:
        found["as_teacher"] = attempt(lambda: as_teacher(plain, size))
    return found


def attempt(work: Any) -> dict[str, Any]:
    """Return what ``work`` finds, or the first line of its error."""
    try:
        return dict(work())
    except Exception as error:  # noqa: BLE001  (whatever stands in the way is what is wanted)
        return {"error": f"{type(error).__name__}: {first_line(error)[:200] or 'no more is said'}"}


def as_student(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return loss and difference of the network as a student that learns from a resnet8."""
    student = build_flow_student(backbone=name, image_size=size, **STATISTICS, **FLOW)
    loss = step(student, build_classifier(backbone="resnet8", **STATISTICS), size)
    network = with_num_steps(student.eval(), 1)
    forms = network.smaller_forms(size, collapse=False)
    form = forms["folded"]() if "folded" in forms else network.general_form()
    about = {"stages": list(student.backbone.widths), "loss": loss, "form": "folded" if forms else "general"}
    return about | compare(network, form, size)


def as_teacher(teacher: Classifier, size: tuple[int, int]) -> dict[str, Any]:
    """Return the loss of a resnet8 that learns from the network, and its own difference."""
    student = build_flow_student(backbone="resnet8", **STATISTICS, **FLOW)
    loss = step(student, teacher, size)
    return {"loss": loss, **compare(teacher.eval(), teacher, size)}


def step(student: FlowStudent, teacher: Classifier, size: tuple[int, int]) -> float:
    """Take one step of FM-KT; return its loss."""
    for module in student.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001
            module.momentum = 1.0  # the statistics of this batch, without which deep random networks overflow
    transfer = TeacherLoss(FrozenTeacher(teacher, []), Criterion("dist", DistSettings()))
    supervision = CrossEntropy([str(number) for number in range(CLASSES)], 0.0)
    objective = FlowMatching(student, transfer, steps=StepSampler([2]), weight=1.0, supervision=supervision)
    objective.train()
    batch = Batch(torch.rand(IMAGES, 3, *size), ClassTargets(torch.arange(IMAGES) % CLASSES))
    loss = objective(batch).total
    loss.backward()
    odd = [name for name, p in student.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    if odd or not bool(loss.isfinite()):
        raise ValueError(f"{len(odd)} parameters have no finite gradient, as {', '.join(odd[:2])}; the loss is {loss}")
    torch.optim.SGD(student.parameters(), lr=1e-4).step()
    return float(loss.detach())


def compare(trained: nn.Module, form: nn.Module, size: tuple[int, int]) -> dict[str, float]:
    """Return the largest difference of a logit in ONNX Runtime, as a share of the spread.

    Where it is above the gate, also what rounding makes of it: how far PyTorch's float32 is from its own float64.
    """
    images = torch.rand(3, 3, *size)
    with torch.no_grad():
        reference = trained(images).numpy()
    with tempfile.TemporaryDirectory() as folder:
        logits = exported(form, Path(folder, "model.onnx"), size=size).infer(images.numpy())["logits"]
    if not np.isfinite(reference).all():
        raise ValueError("the network's logits are not finite")
    found = {"difference": share(logits, reference)}
    if found["difference"] > MAX_DIFFERENCE:
        with torch.no_grad():
            exact = copy.deepcopy(trained).double()(images.double()).numpy()
        found["rounding"] = share(reference, exact)
    return found


def share(found: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the largest difference of ``found`` from ``reference``, as a share of the spread."""
    difference = compare_values(found, reference, output_scale(reference), same=np.ones(len(found), bool)).difference
    assert difference is not None, "logits are compared value by value"
    return difference


def process(name: str, path: str) -> None:
    """Examine ``name`` in a process of its own, and write what is found."""
    resource.setrlimit(resource.RLIMIT_DATA, (GIBIBYTES * 2**30,) * 2)
    Path(path).write_text(json.dumps(attempt(lambda: examine(name))), encoding="utf-8")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS, help="What is known, too.")
def main(names: tuple[str, ...], output: Path) -> None:
    """Examine the networks NAMES, or all that have not been yet."""
    found = read_json(output) if output.exists() else {}
    todo = list(names) or [name for name in all_names() if name not in found]
    context = multiprocessing.get_context("forkserver")  # autograd's threads, if this process has some, bear no fork
    context.set_forkserver_preload(["benchmarks.networks"])  # what takes seconds to import is imported once
    for number, name in enumerate(todo, start=1):
        started = time.perf_counter()
        with tempfile.NamedTemporaryFile("r") as file:
            worker = context.Process(target=process, args=(name, file.name))
            worker.start()
            worker.join(SECONDS)
            if worker.is_alive():
                worker.kill()
                worker.join()
            text = file.read()
        over = {"error": f"took more than {SECONDS} seconds or {GIBIBYTES} GiB of memory"}
        found[name] = json.loads(text) if text else over
        write_json(output, found)
        print(f"{number}/{len(todo)} {name}: {time.perf_counter() - started:.0f} s {found[name]}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
