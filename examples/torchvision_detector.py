"""FM-KT on the pyramid of a torchvision detector: pip install ./models, then run this file.

The flows refine the student's levels, which flow on into its head, in training and when deployed.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import Any

import fmkt
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FeaturePyramidNetwork, box_iou

SIZE, STEPS = 64, 2
LEVELS = {"p2": 16, "p3": 8, "p4": 4}
"""Name and size of each level for images of 64 x 64 pixels."""
Levels = dict[str, Tensor]
Targets = list[dict[str, Tensor]]


class Pyramid(nn.Module):
    """A small convolutional network with an FPN, from images (B, 3, 64, 64) to levels (B, channels, H, W)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 4 * width]
        self.stem = self.stage(3, widths[0])
        self.stages = nn.ModuleList(self.stage(*pair) for pair in pairwise(widths))
        self.fpn = FeaturePyramidNetwork(widths[1:], channels)
        self.out_channels = channels

    @staticmethod
    def stage(channels: int, out: int) -> nn.Sequential:
        """Return a convolution that halves the size, normalisation and ReLU."""
        return nn.Sequential(nn.Conv2d(channels, out, 3, 2, 1, bias=False), nn.GroupNorm(4, out), nn.ReLU())

    def forward(self, images: Tensor) -> Levels:
        """Return the levels by name."""
        maps, x = OrderedDict[str, Tensor](), self.stem(images)
        for name, stage in zip(LEVELS, self.stages, strict=True):
            maps[name] = x = stage(x)
        levels: Levels = self.fpn(maps)
        return levels


class RefinedPyramid(nn.Module):
    """The student's pyramid with a flow on each level; in training it notes what the transfer costs."""

    def __init__(self, pyramid: Pyramid, teacher: Pyramid) -> None:
        super().__init__()
        self.pyramid, self.out_channels = pyramid, pyramid.out_channels
        self.transfers: Any = nn.ModuleDict(  # PyTorch does not declare what a dictionary of modules holds
            {
                name: fmkt.FeatureTransferLoss(
                    channels=pyramid.out_channels,
                    teacher_channels=teacher.out_channels,
                    teacher_size=(size, size),
                    num_steps=STEPS,
                )
                for name, size in LEVELS.items()
            }
        )
        self.teacher_levels = teacher.forward  # no part of what trains or is saved
        self.cost = torch.zeros(())

    def forward(self, images: Tensor) -> Levels:
        """Return the refined levels by name."""
        levels = self.pyramid(images)
        if not self.training:
            return {name: self.transfers[name].flow.final_state(level, STEPS) for name, level in levels.items()}
        with torch.no_grad():
            targets = self.teacher_levels(images)
        outputs = {name: self.transfers[name](level, targets[name]) for name, level in levels.items()}
        self.cost = torch.stack([output.total for output in outputs.values()]).mean()
        return {name: output.features for name, output in outputs.items()}


class FoldedPyramid(nn.Module):
    """What deploys of a ``RefinedPyramid``: the same levels from a smaller graph, which holds no teacher."""

    def __init__(self, refined: RefinedPyramid) -> None:
        super().__init__()
        self.pyramid, self.out_channels = refined.pyramid, refined.out_channels
        self.flows: Any = nn.ModuleDict(
            {name: fmkt.fold(refined.transfers[name].flow, STEPS, (size, size)) for name, size in LEVELS.items()}
        )

    def forward(self, images: Tensor) -> Levels:
        """Return the refined levels by name."""
        return {name: self.flows[name].final_state(level) for name, level in self.pyramid(images).items()}


def scenes(count: int) -> tuple[Tensor, Targets]:
    """Return images (count, 3, 64, 64) of a bright square (class 1) or frame (class 2) on noise, and their boxes."""
    images, targets = 0.5 * torch.rand(count, 3, SIZE, SIZE), []
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    for image in images:
        radius, label = int(torch.randint(6, 14, ())), int(torch.randint(1, 3, ()))
        y, x = torch.randint(radius, SIZE - radius, (2,)).tolist()
        extent = (rows - y).abs().maximum((columns - x).abs())
        inside = (extent <= radius) & (extent > (radius / 2 if label == 2 else -1))
        image[:, inside] += 0.1 + 0.4 * torch.rand(3, 1)
        box = torch.tensor([[x - radius, y - radius, x + radius, y + radius]], dtype=torch.float32)
        targets.append({"boxes": box, "labels": torch.tensor([label])})
    return images, targets


def detector(backbone: nn.Module) -> FCOS:
    """Return torchvision's FCOS on the levels of ``backbone``."""
    anchors = AnchorGenerator(sizes=((8,), (16,), (32,)), aspect_ratios=((1.0,),) * 3)
    head = FCOSHead(backbone.out_channels, num_anchors=1, num_classes=3, num_convs=1)
    return FCOS(backbone, num_classes=3, anchor_generator=anchors, head=head, min_size=SIZE, max_size=SIZE)


def train(network: FCOS, batches: int) -> None:
    """Train on scenes drawn anew for each batch."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=1e-3)
    network.train()
    for _ in range(batches):
        images, targets = scenes(8)
        losses = network(list(images), targets)
        cost = getattr(network.backbone, "cost", 0)
        optimizer.zero_grad()
        (sum(losses.values()) + cost).backward()
        optimizer.step()


@torch.no_grad()
def found(network: FCOS) -> float:
    """Return the share of new scenes whose best detection has the right class and an IoU of at least 0.5."""
    torch.manual_seed(1)
    images, targets = scenes(200)
    right = 0
    for output, target in zip(network.eval()(list(images)), targets, strict=True):
        best = box_iou(target["boxes"], output["boxes"][:1])  # scores fall
        right += int(bool((best >= 0.5).any()) and bool(output["labels"][0] == target["labels"][0]))
    return right / len(images)


def main() -> None:
    """Train a teacher, and a student with and without it; the one with it has the flows besides."""
    torch.manual_seed(0)
    teacher = Pyramid(32, 64)
    plain, refined = Pyramid(8, 32), RefinedPyramid(Pyramid(8, 32), teacher)
    for name, backbone, batches in (("teacher", teacher, 150), ("student without it", plain, 80)):
        network = detector(backbone)
        train(network, batches)
        print(f"{name}: {found(network):.1%}")
    teacher.eval().requires_grad_(requires_grad=False)
    student = detector(refined)
    train(student, 80)
    student.backbone = FoldedPyramid(refined)
    print(f"student: {found(student):.1%} of 200 new scenes are found, by the folded flows")


if __name__ == "__main__":
    main()
