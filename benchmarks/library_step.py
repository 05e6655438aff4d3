"""What a training step costs by ``FlowTransferLoss``, against the same arithmetic written into the loop by hand.

    python -m benchmarks.library_step                  # 64 features of 64 x 8 x 8, conv meta-encoder, N = 1, 4, 8
    python -m benchmarks.library_step --output benchmarks/results/library_step.json

Both take whole steps on the same weights: a small backbone, the chain, KD and cross-entropy, gradients, SGD. Their
losses are compared first. Blocks of steps of both alternate, each time in the other order, and the ratio is that of
neighbouring blocks, by the process's own time (one thread), which other work on the host moves less than the clock's.
"""

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measuring import output_option, ratios, spread, take_turns, write_result
from models.transfer_losses import FlowTransferLoss

CHANNELS, CLASSES, TEMPERATURE = 64, 100, 4.0
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def make_backbone() -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, out in ((3, CHANNELS // 2), (CHANNELS // 2, CHANNELS)):
        layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers)


class ByHand(nn.Module):
    """FM-KT as one would write it into a loop: rectified flow, the authors' meta-encoder, KD."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.embed = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.ReLU(), nn.Linear(CHANNELS, CHANNELS))
        self.body = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            nn.GroupNorm(1, CHANNELS),
            nn.SiLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
        )
        self.classifier = nn.Linear(CHANNELS, CLASSES)

    def forward(self, features: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return what a batch costs."""
        times = 1 - torch.arange(self.num_steps) / self.num_steps
        angles = times[:, None] * torch.exp(-math.log(10_000) * torch.arange(CHANNELS // 2) / (CHANNELS // 2))
        shifts = self.embed(torch.cat([angles.cos(), angles.sin()], dim=1))[:, :, None, None]
        z, estimates = features, []
        for shift in shifts:
            v = self.body(z + shift)
            estimates.append(features - v)
            z = z - v / self.num_steps
        logits = self.classifier(torch.cat(estimates).mean(dim=(2, 3)))
        answers, wanted = teacher_logits.repeat(self.num_steps, 1), labels.repeat(self.num_steps)
        log_p, log_q = (functional.log_softmax(x / TEMPERATURE, dim=1) for x in (answers, logits))
        divergence = functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
        return TEMPERATURE**2 * divergence + functional.cross_entropy(logits, wanted)


class Step:
    """A training step of a network of its own, by one of the losses."""

    def __init__(self, backbone: nn.Module, loss: nn.Module, cost: Loss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        self.backbone, self.cost = backbone, cost
        self.images, self.answers, self.labels = batch
        self.optimizer = torch.optim.SGD([*backbone.parameters(), *loss.parameters()], lr=1e-3)

    def __call__(self) -> Tensor:
        """Take the step and return what its batch cost."""
        self.optimizer.zero_grad()
        total = self.cost(self.backbone(self.images), self.answers, self.labels)
        total.backward()
        self.optimizer.step()
        return total.detach()


def make_steps(num_steps: int, batch_size: int) -> tuple[Step, Step]:
    """Return steps by the library and by hand, which have made the same losses on the same weights."""
    torch.manual_seed(0)
    batch = (
        torch.randn(batch_size, 3, 32, 32),
        4 * torch.randn(batch_size, CLASSES),
        torch.randint(CLASSES, (batch_size,)),
    )
    backbone, library, hand = make_backbone(), library_loss(num_steps), ByHand(num_steps)
    ours = library.state_dict().items()
    places = {"velocity.time_embedding.project": "embed", "velocity.body": "body", "transform.linear": "classifier"}
    hand.load_state_dict(
        {name.replace(f"flow.{old}", new): value for name, value in ours for old, new in places.items() if old in name}
    )
    one = Step(copy.deepcopy(backbone), library, lambda *given: library(*given).total, batch)
    other = Step(copy.deepcopy(backbone), hand, hand, batch)
    for _ in range(3):
        torch.testing.assert_close(one(), other(), rtol=1e-4, atol=1e-4)
    return one, other


def library_loss(num_steps: int) -> FlowTransferLoss:
    return FlowTransferLoss(channels=CHANNELS, num_classes=CLASSES, num_steps=num_steps, loss="kd")


def measure(num_steps: int, *, batch: int, blocks: int, steps: int) -> dict[str, Any]:
    library, hand = make_steps(num_steps, batch)
    seconds = take_turns(
        {"library": library, "by_hand": hand}, turns=blocks, repeat=steps, warmup=0, clock=time.process_time
    )
    medians = {f"{kind}_ms": round(1000 * float(np.median(spent.mean(axis=1))), 2) for kind, spent in seconds.items()}
    return medians | spread("ratio", ratios(seconds["library"], seconds["by_hand"]))


@click.command()
@click.option("--num-steps", multiple=True, default=(1, 4, 8), show_default=True, help="N.")
@click.option("--batch", default=64, show_default=True)
@click.option("--blocks", default=41, show_default=True, help="Blocks of steps of each kind, which alternate.")
@click.option("--steps", default=2, show_default=True, help="Steps in a block.")
@output_option
def main(num_steps: tuple[int, ...], output: Path | None, **config: int) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    results = {}
    click.echo(f"{json.dumps(config)}, PyTorch {torch.__version__}")
    click.echo(" N  library ms  by hand ms  ratio (quartiles)")
    for count in num_steps:
        row = results[count] = measure(count, **config)
        low, high = row["ratio_quartiles"]
        click.echo(
            f"{count:2}  {row['library_ms']:10}  {row['by_hand_ms']:10}  {row['ratio']:.3f} ({low:.3f} to {high:.3f})"
        )
    write_result(output, config=config, results=results)


if __name__ == "__main__":
    main()
