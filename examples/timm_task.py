"""FM-KT as a training task of timm, on digits: pip install ./models timm scikit-learn, then run this file."""

import copy
from collections.abc import Callable
from typing import Any

import fmkt
import timm
import torch
from sklearn.datasets import load_digits
from timm.optim import create_optimizer_v2
from timm.task import ClassificationTask, TrainingTask
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

EPOCHS, STEPS = 5, 4
TimmModel = Any
"""timm's models have more in common than the modules as which they are declared."""


class FlowModel(nn.Module):
    """A model of timm whose head is a flow: what trains, and what is saved."""

    def __init__(self, model: TimmModel, criterion: fmkt.FlowTransferLoss) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion

    def forward(self, images: Tensor, *answers: Tensor) -> Any:
        """Return logits (B, num_classes); with the teacher's ``answers`` and the labels, what the batch costs."""
        features = self.model.forward_features(images)
        return self.criterion(features, *answers) if answers else self.criterion.flow(features, STEPS)


class FlowTransferTask(TrainingTask):
    """Flow-matching knowledge transfer from one model of timm to another; their images are normalised alike."""

    def __init__(self, student_model: TimmModel, teacher_model: TimmModel, **options: Any) -> None:
        super().__init__()
        student_model.reset_classifier(0)
        criterion = fmkt.FlowTransferLoss(
            channels=student_model.num_features, num_classes=teacher_model.num_classes, num_steps=STEPS, **options
        )
        self.trainable_module: nn.Module = FlowModel(student_model, criterion)
        self.teacher = teacher_model.requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> "FlowTransferTask":
        """Train the student; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def prepare_distributed(self, device_ids: list[int] | None = None, **options: Any) -> "FlowTransferTask":
        """Wrap what trains."""
        self.trainable_module = DistributedDataParallel(self.trainable_module, device_ids=device_ids, **options)
        return self

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return what timm's loop needs for images (B, C, H, W) and their labels (B,)."""
        with torch.no_grad():
            answers = self.teacher(input)
        cost = self.trainable_module(input, answers, target)
        return {"loss": cost.total, "output": cost.logits, **cost.parts}


def train(task: TrainingTask, images: Tensor, labels: Tensor) -> None:
    """Train ``task`` as timm's loop does."""
    network: Any = task.get_trainable_module()
    optimizer = create_optimizer_v2(network, opt="adamw", lr=1e-3)
    task.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            task(images[rows], labels[rows])["loss"].backward()
            optimizer.step()


def accuracy(task: TrainingTask, images: Tensor, labels: Tensor) -> float:
    """Return the accuracy in percent, as timm's evaluator has it."""
    evaluator = task.create_evaluator()
    network: Any = task.get_eval_model()
    with torch.no_grad():
        evaluator.update(network.eval()(images), labels)
    return float(evaluator.compute()["top1"])


def main() -> None:
    """Train a teacher, and a student with and without it; one run each, which another seed moves by some points."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1  # (1797, 1, 8, 8)
    images = nn.functional.interpolate(images, scale_factor=4).expand(-1, 3, -1, -1)  # (1797, 3, 32, 32)
    labels = torch.tensor(digits.target)

    torch.manual_seed(0)
    teacher = timm.create_model("test_resnet", num_classes=10, output_stride=8)
    student = timm.create_model("test_efficientnet", num_classes=10)
    tasks: dict[str, Callable[[], TrainingTask]] = {
        "teacher": lambda: ClassificationTask(teacher),
        "student by ClassificationTask": lambda: ClassificationTask(copy.deepcopy(student)),
        "student by FlowTransferTask": lambda: FlowTransferTask(student, teacher, loss="kd", width=32),
    }
    for name, build in tasks.items():
        task = build()
        train(task, images[:1200], labels[:1200])
        print(f"{name}: {accuracy(task, images[1200:], labels[1200:]):.1f}% of 597 test images are right")


if __name__ == "__main__":
    main()
