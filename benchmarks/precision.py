"""What bf16 is worth on this CPU: training steps of networks in bf16 and in float32, which take turns.

    python -m benchmarks.precision --output benchmarks/results/training-precision.json

A step is forward and backward of a batch of random images, held as stages hold them (channels last, autocast). Beside
each network stands how many of its convolutions are depthwise, whose kernels in bf16 are slow on many CPUs.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from benchmarks.measuring import output_option, ratios, spread, take_turns, write_result
from benchmarks.networks import plain_network
from pipeline.training.execution import is_depthwise

NETWORKS = (
    "resnet18", "resnext50_32x4d", "regnet_y_400mf", "convnext_tiny",
    "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x1_0",
)  # fmt: skip


def measure(name: str, *, batch: int, side: int, turns: int) -> dict[str, Any]:
    """Return the milliseconds of a step in each precision, and how many times as long bf16 takes."""
    torch.manual_seed(0)
    network = plain_network(name).to(memory_format=torch.channels_last).train()
    images = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)

    def step(*, half: bool) -> None:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = network(images)
        logits.float().square().mean().backward()

    seconds = take_turns({"fp32": lambda: step(half=False), "bf16": lambda: step(half=True)}, turns=turns)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return {
        "convolutions": len(convolutions),
        "depthwise": sum(map(is_depthwise, convolutions)),
        **{f"{kind}_ms": round(1000 * float(np.median(spent)), 2) for kind, spent in seconds.items()},
        **spread("ratio", ratios(seconds["bf16"], seconds["fp32"])),
    }


@click.command()
@click.option("--network", "names", multiple=True, default=NETWORKS, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--side", default=128, show_default=True, help="Pixels of the images' side.")
@click.option("--turns", default=7, show_default=True)
@click.option("--threads", default=1, show_default=True)
@output_option
def main(names: tuple[str, ...], output: Path | None, **config: int) -> None:
    """Print a table."""
    torch.set_num_threads(config["threads"])
    results = {}
    click.echo("network              depthwise    fp32 ms    bf16 ms  bf16 / fp32 (range)")
    for name in names:
        row = results[name] = measure(name, batch=config["batch"], side=config["side"], turns=config["turns"])
        low, high = row["ratio_range"]
        click.echo(
            f"{name:20} {row['depthwise']:3} of {row['convolutions']:3} {row['fp32_ms']:10} {row['bf16_ms']:10}"
            f"  {row['ratio']:.2f} ({low:.2f} to {high:.2f})"
        )
    write_result(output, config=config, results=results)


if __name__ == "__main__":
    main()
