"""Networks for small images: their published sizes, their stages, and the names of published weights."""

from typing import NamedTuple

import pytest
import torch

from models.backbones.backbone import Backbone
from models.backbones.bottleneck_resnet import BottleneckResNet
from models.backbones.catalog import SMALL_IMAGE_BACKBONES
from models.backbones.cifar_mobilenet_v2 import CifarMobileNetV2
from models.backbones.cifar_resnet import CifarResNet
from models.backbones.cifar_shufflenet import CifarShuffleNetV1, CifarShuffleNetV2
from models.backbones.cifar_vgg import CifarVgg
from models.backbones.wide_resnet import WideResNet
from models.classifier import Classifier
from models.factory import build_classifier, build_parts, count_parameters
from models.weight_names import WeightNames


class Published(NamedTuple):
    """What the released networks of CRD (Tian et al. 2020) have, for 100 classes and images of 32 x 32 pixels."""

    parameters: int
    logit: float
    """The first in training mode, weights and images filled with ``pattern``, in float64."""
    maps: dict[int, int]
    """Size of each stage's map to its channels."""


PUBLISHED = {
    "resnet8_x0_25": Published(6_744, 66.3611097631, {32: 4, 16: 8, 8: 16}),
    "resnet8_x0_5": Published(22_924, 167.556768774, {32: 8, 16: 16, 8: 32}),
    "resnet8": Published(83_892, 329.461357939, {32: 16, 16: 32, 8: 64}),
    "resnet14": Published(181_108, 483.082806014, {32: 16, 16: 32, 8: 64}),
    "resnet20": Published(278_324, 632.467218826, {32: 16, 16: 32, 8: 64}),
    "resnet32": Published(472_756, 938.264348093, {32: 16, 16: 32, 8: 64}),
    "resnet56": Published(861_620, 1549.45684705, {32: 16, 16: 32, 8: 64}),
    "resnet110": Published(1_736_564, 2949.76121062, {32: 16, 16: 32, 8: 64}),
    "resnet8x4": Published(1_233_540, 1411.23974634, {32: 64, 16: 128, 8: 256}),
    "resnet32x4": Published(7_433_860, 4164.1170071, {32: 64, 16: 128, 8: 256}),
    "wrn_16_1": Published(180_916, 153.527909663, {32: 16, 16: 32, 8: 64}),
    "wrn_16_2": Published(703_284, 378.296734778, {32: 32, 16: 64, 8: 128}),
    "wrn_40_1": Published(569_780, 154.209061279, {32: 16, 16: 32, 8: 64}),
    "wrn_40_2": Published(2_255_156, 368.40443011, {32: 32, 16: 64, 8: 128}),
    "cifar_vgg8": Published(3_965_028, 1338.02261541, {32: 64, 16: 128, 8: 256, 4: 512}),
    "cifar_vgg13": Published(9_462_180, 1356.83564394, {32: 64, 16: 128, 8: 256, 4: 512}),
    "cifar_resnet50": Published(23_705_252, 20171.7365762, {32: 256, 16: 512, 8: 1024, 4: 2048}),
    "cifar_mobilenet_v2": Published(812_836, 3233.69937923, {16: 12, 8: 16, 4: 48, 2: 1280}),
    "cifar_shufflenet_v1": Published(949_258, 10934.1420011, {32: 24, 16: 240, 8: 480, 4: 960}),
    "cifar_shufflenet_v2": Published(1_355_528, 2737.74599803, {32: 24, 16: 116, 8: 232, 4: 1024}),
}
PUBLISHED_NAMES = [
    ("resnet8", "layer2.0.downsample.0.weight", "backbone.layer2.0.downsample.0.weight", (32, 16, 1, 1)),
    ("resnet8", "fc.weight", "head.linear.weight", (100, 64)),
    ("wrn_16_2", "block1.layer.0.convShortcut.weight", "backbone.layer1.0.shortcut.weight", (32, 16, 1, 1)),
    ("wrn_16_2", "block3.layer.1.bn2.running_mean", "backbone.layer3.1.bn2.running_mean", (128,)),
    ("wrn_16_2", "bn1.weight", "backbone.bn1.weight", (128,)),
    ("cifar_vgg13", "block0.0.bias", "backbone.blocks.0.0.bias", (64,)),
    ("cifar_vgg13", "block2.3.weight", "backbone.blocks.2.3.weight", (256, 256, 3, 3)),
    ("cifar_vgg13", "block4.4.running_var", "backbone.blocks.4.4.running_var", (512,)),
    ("cifar_resnet50", "layer1.0.shortcut.0.weight", "backbone.layer1.0.shortcut.0.weight", (256, 64, 1, 1)),
    ("cifar_resnet50", "layer4.2.conv3.weight", "backbone.layer4.2.conv3.weight", (2048, 512, 1, 1)),
    ("cifar_resnet50", "linear.weight", "head.linear.weight", (100, 2048)),
    ("cifar_mobilenet_v2", "conv1.0.weight", "backbone.conv1.0.weight", (16, 3, 3, 3)),
    ("cifar_mobilenet_v2", "blocks.0.0.conv.0.weight", "backbone.blocks.0.0.conv.0.weight", (16, 16, 1, 1)),
    ("cifar_mobilenet_v2", "blocks.5.2.conv.3.weight", "backbone.blocks.5.2.conv.3.weight", (480, 1, 3, 3)),
    ("cifar_mobilenet_v2", "classifier.0.weight", "head.linear.weight", (100, 1280)),
    ("cifar_shufflenet_v1", "layer1.0.conv1.weight", "backbone.layer1.0.conv1.weight", (54, 24, 1, 1)),
    ("cifar_shufflenet_v1", "layer2.0.conv1.weight", "backbone.layer2.0.conv1.weight", (60, 80, 1, 1)),
    ("cifar_shufflenet_v2", "layer1.0.conv5.weight", "backbone.layer1.0.conv5.weight", (58, 58, 1, 1)),
    ("cifar_shufflenet_v2", "conv2.weight", "backbone.conv2.weight", (1024, 464, 1, 1)),
]


def classifier(backbone: str) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(backbone=backbone, num_classes=100, mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3])


def pattern(*shape: int) -> torch.Tensor:
    """Return numbers from -4 to 4 that are alike everywhere and look random."""
    n = torch.arange(torch.Size(shape).numel())
    return ((n * n * 7919 % 65521).double() / 65521 * 8 - 4).view(shape)


def test_the_published_sizes_cover_every_network() -> None:
    assert PUBLISHED.keys() == SMALL_IMAGE_BACKBONES.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_have_their_published_sizes_and_all_of_them_learns(name: str) -> None:
    network = classifier(name)
    assert count_parameters(network) == PUBLISHED[name].parameters
    network(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_compute_what_the_published_ones_do(name: str) -> None:
    backbone, head = build_parts(name, 100)
    with torch.no_grad():
        for parameter in [*backbone.double().parameters(), *head.double().parameters()]:
            parameter.copy_(pattern(*parameter.shape))
        logits = head(backbone(pattern(4, 3, 32, 32)))
    assert float(logits[0, 0]) == pytest.approx(PUBLISHED[name].logit, rel=1e-9)


@pytest.mark.parametrize("name", PUBLISHED)
def test_stages_end_where_the_resolution_falls_and_compose_to_the_backbone(name: str) -> None:
    backbone = classifier(name).backbone.eval()
    x = images = torch.rand(2, 3, 32, 32)
    maps, copies = [], []
    with torch.no_grad():
        for stage in backbone.stages():
            maps.append(x := stage(x))
            copies.append(x.clone())
        assert torch.equal(x, backbone(images))
    assert [y.shape for y in maps] == [(2, width, size, size) for size, width in PUBLISHED[name].maps.items()]
    assert backbone.widths == tuple(PUBLISHED[name].maps.values())
    assert all(torch.equal(y, copy) for y, copy in zip(maps, copies, strict=True)), "a stage changed its input"


@pytest.mark.parametrize(("name", "published", "own", "shape"), PUBLISHED_NAMES)
def test_published_weights_find_their_place(name: str, published: str, own: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):  # names and shapes need no numbers
        network = classifier(name)
    assert WeightNames(network).find(published) == own
    assert network.state_dict()[own].shape == shape


def test_weights_of_version_0_1_find_their_place() -> None:
    """That version called the backbone ``trunk``."""
    network = classifier("resnet8_x0_25")
    old = {name.replace("backbone.", "trunk."): value for name, value in network.state_dict().items()}
    names = {name: WeightNames(network).find(name) for name in old}
    assert "trunk.layer1.0.conv1.weight" in names
    torch.manual_seed(1)
    other = build_classifier(backbone="resnet8_x0_25", num_classes=100, mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3])
    other.load_state_dict({names[name]: value for name, value in old.items()})
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(other.eval()(images), network.eval()(images))


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        (CifarResNet, {"depth": 9, "widths": (4, 4, 8, 8)}, "got depth 9"),
        (CifarResNet, {"depth": 2, "widths": (4, 4, 8, 8)}, "got depth 2"),
        (WideResNet, {"depth": 17, "widen_factor": 1}, "got depth 17"),
        (WideResNet, {"depth": 4, "widen_factor": 1}, "got depth 4"),
        (CifarVgg, {"blocks": ((8,),)}, "two or more blocks"),
        (CifarVgg, {"blocks": ((8,), (), (8,))}, "one or more convolutions"),
        (BottleneckResNet, {"blocks": (1, 0, 1, 1)}, "one or more blocks"),
        (CifarMobileNetV2, {"width": 0.06, "expansion": 6}, "width is at least 1/16"),
        (CifarMobileNetV2, {"width": 0.5, "expansion": 0}, "expansion at least 1"),
        (CifarShuffleNetV1, {"blocks": (1, 1, 1), "widths": (240, 486, 960), "groups": 3}, "multiple of 12"),
        (CifarShuffleNetV1, {"blocks": (1, 1, 1), "widths": (240, 240, 960), "groups": 3}, "got 0"),
        (CifarShuffleNetV2, {"blocks": (1, 1, 1), "widths": (24, 33, 48), "last": 8}, "halve their channels"),
    ],
)
def test_impossible_arguments_are_refused(family: type[Backbone], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family(**arguments)
