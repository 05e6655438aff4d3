"""A training that takes a moment: two classes that differ in brightness, and a network that tells them apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.layers.normalize import Normalize
from pipeline.core.torch_setup import seed_everything
from pipeline.data.augmentation import Augmentation
from pipeline.data.dataset import Split
from pipeline.data.packed_batches import PackedBatches
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.training import CrossEntropy
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.execution import Execution
from pipeline.training.loop import Row, train
from pipeline.training.objective import Objective, Supervised
from pipeline.training.settings import LearningRate, Optimizer, Training

CPU = torch.device("cpu")
SGD = Optimizer(weight_decay=0.0)
SETTINGS = Training(epochs=3, batch_size=16, optimizer=SGD, schedule=LearningRate(warmup_epochs=0))


def make_split(count: int = 64, image_size: tuple[int, int] = (6, 5)) -> Split:
    """Return images of two classes that differ in brightness, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 60, (count, 3, *image_size), generator=generator)
    return Split((noise + 120 * labels[:, None, None, None]).to(torch.uint8), ClassTargets(labels))


def draft() -> Supervised:
    """Return a network that also draws random numbers, as methods that draw their steps do."""
    seed_everything(0, "test")
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1))
    network = nn.Sequential(Normalize([0.5] * 3, [0.25] * 3), layers, nn.Linear(4 * 4 * 3, 2))
    return Supervised(network, supervision=CrossEntropy(("dark", "bright"), 0.0))


def run(
    folder: Path,
    objective: Objective | None = None,
    *,
    precision: str = "fp32",
    compiled: bool = False,
    compile_fallback: bool = False,
    split: Split | None = None,
    seed: int = 0,
    on_epoch: Callable[[list[Row]], None] | None = None,
    **changes: Any,
) -> tuple[nn.Module, list[Row]]:
    """Train a network, by default a fresh ``draft``, with checkpoints in ``folder``.

    Returns it and the rows of its epochs. ``split`` is what it is trained on and validated with; ``changes`` are those
    of the settings of training.
    """
    objective, split = objective or draft(), split or make_split()
    augmentation = Augmentation(crop_padding=1, horizontal_flip=True, color_jitter=0.0)
    rows = train(
        objective,
        PackedBatches(split, batch_size=SETTINGS.batch_size, device=CPU, augmentation=augmentation, mix=None),
        split,
        Execution(CPU, precision, compiled, compile_fallback),
        SETTINGS.model_copy(update=changes),
        seed=seed,
        key="toy.training",
        checkpoints=Checkpoints(folder),
        on_epoch=on_epoch or (lambda _: None),
    )
    return objective.network, rows
