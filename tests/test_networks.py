"""The factory, the cut of torchvision's networks, names of published weights, and the deployed form."""

import pytest
import torch
from torch import nn

from models.backbones.torchvision_models import build_torchvision_classifier
from models.classifier import Classifier
from models.deploy import deployable
from models.factory import build_classifier, build_parts, build_transfer_parts
from models.meta_encoders import META_ENCODERS
from models.schedules import SCHEDULES
from models.students import FeatureFlowStudent, build_feature_flow_student, build_flow_student

STATISTICS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
FLOW = {"schedule": "rectified", "meta_encoder": "conv", "time_scale": 1.0}


def flow_student(**changes: object) -> nn.Module:
    torch.manual_seed(0)
    options = {"backbone": "resnet8", "num_classes": 7, **FLOW}
    return build_flow_student(**{**options, **STATISTICS, **changes}).eval()  # type: ignore[arg-type]


def feature_student(**changes: object) -> FeatureFlowStudent:
    torch.manual_seed(0)
    options = {"backbone": "resnet8", "num_classes": 7, "stages": [1, 3], **FLOW}
    return build_feature_flow_student(**{**options, **STATISTICS, **changes}).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("resnet18", (64, 64, 128, 256, 512)),
        ("mobilenet_v2", (16, 24, 32, 96, 1280)),
        ("efficientnet_b0", (16, 24, 40, 112, 1280)),
        ("shufflenet_v2_x0_5", (24, 24, 48, 96, 1024)),
        ("convnext_tiny", (96, 192, 384, 768)),
        ("densenet121", (64, 256, 512, 1024, 1024)),
        ("regnet_y_400mf", (32, 48, 104, 208, 440)),
        ("googlenet", (64, 192, 480, 832, 1024)),
    ],
)
def test_a_cut_torchvision_network_is_the_whole_one_in_stages(name: str, widths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    whole = build_torchvision_classifier(name, 5).eval()
    network = build_classifier(backbone=name, num_classes=5, **STATISTICS).eval()
    state = whole.state_dict()
    names = network.own_names(state)
    network.load_state_dict({names[key]: value for key, value in state.items()})
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), whole(network.normalize(images)), rtol=1e-4, atol=1e-5)
        maps = network.feature_maps(images)
        torch.testing.assert_close(maps[-1], network.features(images))
    assert tuple(x.shape[1] for x in maps) == network.backbone.widths == widths
    sizes = [x.shape[-1] for x in maps]
    assert sizes == sorted(set(sizes), reverse=True), "each stage has a smaller map than the one before"


def test_a_cut_torchvision_network_trains_and_follows_the_mode() -> None:
    student = flow_student(backbone="mobilenet_v3_small").train()
    student(torch.rand(2, 3, 64, 64), 2).sum().backward()
    assert all(p.grad is not None for p in student.backbone.parameters())  # type: ignore[union-attr]
    network = build_classifier(backbone="efficientnet_b0", num_classes=5, **STATISTICS)
    images = torch.rand(4, 3, 64, 64)
    network.train()
    assert not torch.equal(network(images), network(images)), "dropout and stochastic depth are at work"
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", ["squeezenet1_1", "swin_t"])
def test_a_classifier_without_a_map_to_tap_is_whole_and_refused_for_transfer(name: str) -> None:
    network = build_classifier(backbone=name, num_classes=3, **STATISTICS).eval()
    whole = build_torchvision_classifier(name, 3).eval()
    names = network.own_names(whole.state_dict())
    network.load_state_dict({names[key]: value for key, value in whole.state_dict().items()})
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), whole(network.normalize(images)), rtol=1e-4, atol=1e-5)
    for refused in (name, "vit_b_16"):
        with pytest.raises(ValueError, match=rf"backbone '{refused}' pools no feature map before its classifier"):
            build_transfer_parts(refused, 3)


def test_an_unknown_backbone_lists_the_known_ones() -> None:
    known = r"did you mean resnet\d+ or .*\? known: resnet8_x0_25, .*wrn_40_2, .*cifar_vgg8, .*vgg11"
    with pytest.raises(ValueError, match=rf"unknown backbone 'resnet9'; {known}"):
        build_parts("resnet9", 3)


def test_a_stage_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"'resnet8' has no stage 4; its stages: 1 \(16 .*\), 2 \(32 .*\), 3 \(64 "):
        feature_student(stages=[2, 4])


def test_normalisation_is_part_of_the_network_and_not_of_its_weights() -> None:
    network = build_classifier(backbone="resnet8", num_classes=3, **STATISTICS).eval()
    images = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(STATISTICS[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close(network(images), network.head(network.backbone((images - mean) / std)))
    assert not any("normalize" in key for key in network.state_dict())


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("meta_encoder", sorted(META_ENCODERS))
@pytest.mark.parametrize("build", [flow_student, feature_student])
def test_the_deployed_form_equals_the_trained_network_at_any_number_of_steps(
    build: object, schedule: str, meta_encoder: str
) -> None:
    student = build(schedule=schedule, meta_encoder=meta_encoder).double()  # type: ignore[operator]
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        for num_steps in (1, 3):
            expected = student(images, num_steps)
            torch.testing.assert_close(deployable(student, num_steps)(images), expected, rtol=1e-10, atol=1e-12)
            steps = student.step_logits(images, num_steps)
            torch.testing.assert_close(student.combine(steps), expected, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(student(images, 1), student(images, 3))


def test_refined_features_flow_on_into_the_next_stage() -> None:
    """By hand: stage 1, its flow, stages 2 and 3, their flow, head."""
    student = feature_student().double()
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    first, second, third = student.backbone.stages()
    with torch.no_grad():
        refined = student.flows["1"].trajectory(first(student.normalize(images)), 3).states[-1]  # type: ignore[operator]
        last = student.flows["3"].trajectory(third(second(refined)), 3)  # type: ignore[operator]
        torch.testing.assert_close(student(images, 3), student.head(last.states[-1]))
        torch.testing.assert_close(student.paths(images, 3)[1].estimates[0], last.estimates[0])
        assert not torch.allclose(first(student.normalize(images)), refined)


def test_a_student_without_steps_deploys_as_it_is() -> None:
    network = build_classifier(backbone="resnet8", num_classes=3, **STATISTICS)
    assert deployable(network, None) is network
    assert not network.training


def test_the_meta_encoder_as_layers_stands_between_backbone_and_head() -> None:
    network = build_classifier(backbone="resnet8", num_classes=3, layers="conv", **STATISTICS).eval()
    assert isinstance(network, Classifier)
    images = torch.rand(2, 3, 8, 8)
    encoder, head = network.head  # type: ignore[misc]
    x = network.features(images)
    torch.testing.assert_close(network(images), head(x - encoder.body(x)))
