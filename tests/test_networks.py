"""Backbones, the factory and the deployed form."""

import pytest
import torch
from torch import nn

from models.backbones.cifar_resnet import CifarResNet
from models.backbones.torchvision_trunk import TorchvisionTrunk, build_torchvision_classifier
from models.backbones.wide_resnet import WideResNet
from models.deploy import deployable
from models.factory import build_classifier, build_trunk, count_parameters
from models.flow_student import build_flow_student

STATISTICS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
PUBLISHED_PARAMETERS = {  # 100 classes; CRD's networks (Tian et al. 2020)
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
}


def flow_student(**changes: object) -> nn.Module:
    torch.manual_seed(0)
    options = {"backbone": "resnet8", "num_classes": 7, "schedule": "rectified", "meta_encoder": "conv"}
    return build_flow_student(**{**options, "time_scale": 1.0, **STATISTICS, **changes}).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(("backbone", "parameters"), PUBLISHED_PARAMETERS.items())
def test_backbones_have_their_published_sizes(backbone: str, parameters: int) -> None:
    assert count_parameters(build_classifier(backbone=backbone, num_classes=100, **STATISTICS)) == parameters


@pytest.mark.parametrize("backbone", ["resnet8", "resnet8x4", "wrn_16_2"])
def test_small_image_trunks_reduce_by_four_and_know_their_width(backbone: str) -> None:
    trunk = build_trunk(backbone).eval()
    assert trunk(torch.zeros(1, 3, 32, 24)).shape == (1, trunk.channels, 8, 6)


@pytest.mark.parametrize(("network", "depth"), [(CifarResNet, 9), (CifarResNet, 2), (WideResNet, 17), (WideResNet, 4)])
def test_impossible_depths_are_refused(network: type, depth: int) -> None:
    options = {"widths": (4, 4, 8, 8)} if network is CifarResNet else {"widen_factor": 1}
    with pytest.raises(ValueError, match=f"got depth {depth}"):
        network(depth=depth, **options)


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_a_torchvision_trunk_is_what_its_classifier_pools(name: str) -> None:
    trunk = TorchvisionTrunk(name).eval()
    classifier = build_torchvision_classifier(name, 2).eval()
    missing, unknown = classifier.load_state_dict(trunk.extractor.state_dict(), strict=False)
    assert not unknown
    assert all(key.startswith(("fc.", "classifier.")) for key in missing)
    images = torch.rand(2, 3, 64, 64)
    head = classifier.fc if hasattr(classifier, "fc") else classifier.classifier
    with torch.no_grad():
        torch.testing.assert_close(head(trunk(images).mean(dim=(2, 3))), classifier(images), rtol=1e-4, atol=1e-5)


def test_a_torchvision_trunk_trains() -> None:
    student = flow_student(backbone="mobilenet_v3_small").train()
    student(torch.rand(2, 3, 64, 64), 2).sum().backward()
    assert all(p.grad is not None for p in student.trunk.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["vit_b_16", "squeezenet1_1"])
def test_a_classifier_without_a_pooled_feature_is_refused_as_a_trunk_only(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' pools no feature map before its classifier"):
        build_trunk(name)
    assert build_classifier(backbone=name, num_classes=3, **STATISTICS)


def test_an_unknown_backbone_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError,
        match=r"unknown backbone 'resnet9'; did you mean resnet\d+ or .*\? known: resnet8, .*wrn_40_2, .*vgg11",
    ):
        build_trunk("resnet9")


def test_normalisation_is_part_of_the_network_and_not_of_its_weights() -> None:
    network = build_classifier(backbone="resnet8", num_classes=3, **STATISTICS).eval()
    images = torch.rand(2, 3, 8, 8)
    by_hand = (images - torch.tensor(STATISTICS["mean"])[:, None, None]) / torch.tensor(STATISTICS["std"])[
        :, None, None
    ]
    torch.testing.assert_close(network(images), network.network(by_hand))
    assert not any("normalize" in key for key in network.state_dict())


@pytest.mark.parametrize("meta_encoder", ["conv", "mlp"])
@pytest.mark.parametrize("num_steps", [1, 3, 8])
def test_the_deployed_form_equals_the_trained_network(meta_encoder: str, num_steps: int) -> None:
    student = flow_student(meta_encoder=meta_encoder).double()
    images = torch.rand(5, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = student(images, num_steps)
        torch.testing.assert_close(deployable(student, num_steps)(images), expected, rtol=1e-10, atol=1e-12)
        steps = torch.stack(student.step_logits(images, num_steps))  # type: ignore[operator]
        torch.testing.assert_close(steps.mean(dim=0), expected, rtol=1e-10, atol=1e-12)


def test_a_student_without_steps_deploys_as_it_is() -> None:
    network = build_classifier(backbone="resnet8", num_classes=3, **STATISTICS)
    assert deployable(network, None) is network
    assert not network.training
