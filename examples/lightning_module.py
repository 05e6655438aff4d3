"""FM-KT as a LightningModule: pip install ./models pytorch-lightning scikit-learn, then run this file."""

from collections.abc import Callable
from typing import Any

import fmkt
import pytorch_lightning as lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS, STEPS = 15, 4
Batch = tuple[Tensor, Tensor]
Loader = DataLoader[tuple[Tensor, ...]]


def backbone(width: int) -> nn.Sequential:
    """Return a small network from images (B, 1, 8, 8) to a feature map (B, 2 * width, 4, 4)."""
    first = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
    second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()
    return nn.Sequential(*first, *second)


class Classification(lightning.LightningModule):
    """A network that learns from the labels: the teacher, and a student without one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 10) of images (B, 1, 8, 8)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy."""
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Note the accuracy of what deploys."""
        images, labels = batch
        self.log("accuracy", (self(images).argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over all that trains."""
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=1e-3)


class Distillation(Classification):
    """A student that ends in a flow, which learns from the teacher; the teacher stays as it is."""

    def __init__(self, student: nn.Module, teacher: nn.Module, criterion: fmkt.FlowTransferLoss) -> None:
        super().__init__(student)
        self.criterion = criterion
        self.teacher = teacher.eval().requires_grad_(requires_grad=False)
        self.strict_loading = False  # checkpoints hold no teacher

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 10) of images (B, 1, 8, 8), with as many steps as in training."""
        logits: Tensor = self.criterion.flow(self.network(images), STEPS)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the flow's steps."""
        images, labels = batch
        with torch.no_grad():
            answers = self.teacher(images)
        output = self.criterion(self.network(images), answers, labels)
        self.log_dict(output.parts)
        total: Tensor = output.total
        return total

    def on_train_epoch_start(self) -> None:
        """Tell the loss which epoch it is, for what warms up."""
        self.criterion.set_epoch(self.current_epoch)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return what is saved: all but the teacher."""
        return {name: value for name, value in super().state_dict(*args, **kwargs).items() if "teacher." not in name}


def nothing(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 0: a loss of the same network that learns from the labels alone."""
    return student.new_zeros(())


def accuracy_of(module: Classification, train: Loader, test: Loader) -> float:
    """Return the accuracy of ``module`` after its training."""
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, train)
    return float(trainer.test(module, test, verbose=False)[0]["accuracy"])


def main() -> None:
    """Train a teacher, and a student with and without it; one run each, which another seed moves by some points."""
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    train = DataLoader(TensorDataset(images[:1200], labels[:1200]), batch_size=64, shuffle=True)
    test = DataLoader(TensorDataset(images[1200:], labels[1200:]), batch_size=597)

    lightning.seed_everything(0, verbose=False)
    teacher = nn.Sequential(backbone(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    print(f"teacher: {accuracy_of(Classification(teacher), train, test):.1%}")
    losses: dict[str, str | Callable[..., Tensor]] = {
        "student of the labels alone": nothing,
        "student of teacher and labels": "kd",
    }
    for name, loss in losses.items():
        lightning.seed_everything(0, verbose=False)
        criterion = fmkt.FlowTransferLoss(channels=16, num_classes=10, num_steps=STEPS, loss=loss)
        student = Distillation(backbone(8), teacher, criterion)
        print(f"{name}: {accuracy_of(student, train, test):.1%} of 597 test images are right")


if __name__ == "__main__":
    main()
