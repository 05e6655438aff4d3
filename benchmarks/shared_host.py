"""What a training step on two threads takes alone and beside other work, by how PyTorch's threads wait for each other.

    python -m benchmarks.shared_host --output benchmarks/results/shared_host.json

OpenMP's threads spin for milliseconds before they sleep, or sleep at once (``OMP_WAIT_POLICY=PASSIVE``). The other
work is a process for each core that only counts. The two ways alternate, there and back, a process for each turn; a
turn's time is the median of its steps, and the ratio is that of neighbouring turns.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np

from benchmarks.measuring import output_option, spread, there_and_back, write_result
from workbench.load import busy_programs

POLICIES = {"spinning": {}, "asleep": {"OMP_WAIT_POLICY": "PASSIVE"}}
STEPS = """
import json, sys, time
import torch
from torch.nn import functional
from models.factory import build_classifier
torch.set_num_threads(2)
torch.manual_seed(0)
network = build_classifier(backbone="resnet8", num_classes=10, mean=[0.5] * 3, std=[0.2] * 3)
optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
images, labels = torch.rand(64, 3, 32, 32), torch.randint(10, (64,))
seconds = []
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    optimizer.zero_grad()
    functional.cross_entropy(network(images), labels).backward()
    optimizer.step()
    seconds.append(time.perf_counter() - began)
print(json.dumps(seconds[len(seconds) // 4:]))
"""
"""The first quarter of the steps warms up."""


def step_ms(steps: int, policy: str) -> float:
    """Return the median milliseconds of a step in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | POLICIES[policy]
    command = [sys.executable, "-c", STEPS, str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return 1000 * float(np.median(json.loads(done.stdout)))


@click.command()
@click.option("--steps", default=32, show_default=True, help="Of a turn.")
@click.option("--turns", default=5, show_default=True, help="Of each way.")
@output_option
def main(output: Path | None, *, steps: int, turns: int) -> None:
    """Print a table."""
    results = {}
    for name, count in (("alone", 0), ("beside other work", os.cpu_count() or 1)):
        found = {policy: np.empty(turns) for policy in POLICIES}
        with busy_programs(count):
            for turn, policy in there_and_back(POLICIES, turns):
                found[policy][turn] = step_ms(steps, policy)
        times = {policy: spread("step_ms", spent) for policy, spent in found.items()}
        results[name] = {"others": count, **times, **spread("ratio", found["spinning"] / found["asleep"])}
        medians = ", ".join(f"{policy} {times[policy]['step_ms']:.1f} ms" for policy in POLICIES)
        click.echo(f"{name}: {medians}; spinning takes {results[name]['ratio']:.2f} times as long")
    protocol = f"resnet8 on 64 images of 32 x 32, SGD, 2 threads; {turns} turns of {steps} steps, there and back"
    write_result(output, protocol=protocol, results=results)


if __name__ == "__main__":
    main()
