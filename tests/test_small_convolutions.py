"""Training of networks with few channels on large maps, where oneDNN ends the process."""

import subprocess
import sys

import torch
from torch import nn

from pipeline.training.small_convolutions import strides_taken_first
from tests.toy_training import CPU

STEP = """
import torch
from torch import nn
from pipeline.training.small_convolutions import strides_taken_first
layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1, stride=2)
network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
images = torch.rand(8, 3, 64, 64).contiguous(memory_format=torch.channels_last)
with strides_taken_first(network, torch.device("cpu")):
    for _ in range(5):
        network(images).square().sum().backward()
print("done")
"""


def test_a_step_on_a_large_map_does_not_end_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "done"), ended.stderr


def test_the_same_is_computed_and_learned() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 1, stride=(2, 3))).double()
    for size in (20, 64):
        images = torch.rand(2, 3, size, size, dtype=torch.float64)
        found = []
        for device in (torch.device("meta"), CPU):  # elsewhere than on a CPU nothing changes
            network.zero_grad()
            with strides_taken_first(network, device):
                outputs = network(images)
                outputs.sin().sum().backward()
            found.append([outputs, *(p.grad for p in network.parameters())])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        assert all("forward" not in vars(module) for module in network.modules())
