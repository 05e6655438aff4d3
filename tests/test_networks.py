"""The factory, the cut of torchvision's networks, names of published weights, and the networks that deploy."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.backbones.sources import BACKBONE_SOURCES, find_backbone, known_without_pytorch
from models.backbones.torchvision_models import build_torchvision_classifier
from models.classifier import Classifier
from models.deploy import ByteImages, PlainNetwork, SampledNetwork, with_each_num_steps, with_num_steps
from models.factory import build_classifier, build_parts, build_transfer_parts
from models.meta_encoders import META_ENCODERS
from models.schedules import SCHEDULES
from models.students import (
    FeatureFlowStudent,
    FlowStudent,
    SampledStudent,
    build_feature_flow_student,
    build_flow_student,
    build_layered_classifier,
)
from models.weight_names import WeightNames

STATISTICS: dict[str, Any] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
FLOW: dict[str, Any] = {"schedule": "rectified", "meta_encoder": "conv", "time_scale": 1.0}


def flow_student(**changes: object) -> FlowStudent:
    torch.manual_seed(0)
    options: dict[str, Any] = {"backbone": "resnet8", "num_classes": 7, **FLOW, **STATISTICS, **changes}
    return build_flow_student(**options).eval()


def feature_student(**changes: object) -> FeatureFlowStudent:
    torch.manual_seed(0)
    options: dict[str, Any] = {"backbone": "resnet8", "num_classes": 7, "stages": [1, 3], **FLOW, **STATISTICS}
    return build_feature_flow_student(**{**options, **changes}).eval()


def both_student(**changes: object) -> FeatureFlowStudent:
    return feature_student(to_logits=True, **changes)


def plain_student(**changes: object) -> Classifier:
    torch.manual_seed(0)
    options: dict[str, Any] = {"backbone": "resnet8", "num_classes": 3, **STATISTICS, **changes}
    return build_classifier(**options).eval()


def torchvisions_own(name: str, network: Classifier) -> torch.nn.Module:
    """Return torchvision's classifier ``name`` with the weights of ``network``, in eval mode."""
    whole = build_torchvision_classifier(name, 3)
    state = network.state_dict()
    names = WeightNames(network)
    own = {published: names.find(published) for published in whole.state_dict()}
    assert len(set(own.values())) == len(state)
    whole.load_state_dict({published: state[mine] for published, mine in own.items()})
    return whole.eval()


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
    network = plain_student(backbone=name)
    whole = torchvisions_own(name, network)
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
    assert all(p.grad is not None for p in student.backbone.parameters())
    network = build_classifier(backbone="efficientnet_b0", num_classes=5, **STATISTICS)
    images = torch.rand(4, 3, 64, 64)
    network.train()
    assert not torch.equal(network(images), network(images)), "dropout and stochastic depth are at work"
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", ["squeezenet1_1", "swin_t", "maxvit_t"])
@torch.no_grad()
def test_a_classifier_is_what_torchvision_publishes(name: str) -> None:
    network = plain_student(backbone=name)
    whole = torchvisions_own(name, network)
    images = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(network(images), whole(network.normalize(images)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "widths"), [("squeezenet1_1", (64, 128, 256, 512)), ("swin_t", (96, 768)), ("vit_b_16", (768,))]
)
def test_classifiers_that_pool_no_map_by_a_layer_of_their_own_have_one_all_the_same(
    name: str, widths: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        assert build_transfer_parts(name, 3).backbone.widths == widths


def test_an_unknown_backbone_is_answered_with_the_nearest_ones() -> None:
    with pytest.raises(
        ValueError,
        match=r"^unknown backbone 'resnet9'; did you mean resnet\d+ or .*\? \d\d+ are known, others as timm:NAME, .*$",
    ):
        build_parts("resnet9", 3)


def test_a_backbone_has_one_source_and_names_are_listed_without_pytorch_where_they_can_be() -> None:
    bare = [source for source in BACKBONE_SOURCES.values() if not source.form]
    names = [name for source in bare for name in (source.names() if source.names is not None else ())]
    assert len(set(names)) == len(names)
    assert [find_backbone(name).source.name for name in ("wrn_16_2", "resnet18")] == ["small_images", "torchvision"]
    assert [known_without_pytorch(name) for name in ("wrn_16_2", "resnet18", "resnet9")] == [True, False, False]


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
@pytest.mark.parametrize("build", [flow_student, feature_student, both_student])
@torch.no_grad()
def test_the_general_form_equals_the_trained_network_at_any_number_of_steps(
    build: Callable[..., SampledStudent], schedule: str, meta_encoder: str
) -> None:
    student = build(schedule=schedule, meta_encoder=meta_encoder).double()
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    for num_steps in (1, 3):
        expected = student(images, num_steps)
        network = with_num_steps(student, num_steps)
        assert torch.equal(network(images), expected)
        torch.testing.assert_close(network.general_form()(images), expected, rtol=1e-10, atol=1e-12)
        steps = student.step_predictions(images, num_steps)
        torch.testing.assert_close(student.combine(steps), expected, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(student(images, 1), student(images, 3))


@torch.no_grad()
def test_refined_features_flow_on_into_the_next_stage() -> None:
    """By hand: stage 1, its flow, stages 2 and 3, their flow, head."""
    student = feature_student().double()
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    first, second, third = student.backbone.stages()
    refined = student.flow("1").trajectory(first(student.normalize(images)), 3).states[-1]
    last = student.flow("3").trajectory(third(second(refined)), 3)
    torch.testing.assert_close(student(images, 3), student.head(last.states[-1]))
    torch.testing.assert_close(student.trajectories(images, 3)[1].estimates[0], last.estimates[0])
    assert not torch.allclose(first(student.normalize(images)), refined)


@torch.no_grad()
def test_the_flow_at_the_logits_starts_where_those_at_the_features_have_led() -> None:
    """By hand, as above; the answer is the mean of its steps, and each of them is a member of that ensemble."""
    student = both_student().double()
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    first, second, third = student.backbone.stages()
    refined = student.flow("1").final_state(first(student.normalize(images)), 3)
    features = student.flow("3").final_state(third(second(refined)), 3)
    steps = student.end_flow.step_outputs(features, 3)
    torch.testing.assert_close(student(images, 3), steps.mean(dim=0))
    torch.testing.assert_close(torch.stack(student.step_predictions(images, 3)), steps)
    answers, trajectories = student.refine(images, 3)
    torch.testing.assert_close(answers, steps.mean(dim=0))
    torch.testing.assert_close(student.combine(student.step_predictions(images, 3)[:2]), steps[:2].mean(dim=0))
    assert [path.states[0].shape[1] for path in trajectories] == [16, 64, 64]
    assert torch.equal(trajectories[2].states[0], features)


@pytest.mark.parametrize("build", [flow_student, feature_student, both_student])
@torch.no_grad()
def test_the_plain_network_of_a_student_is_its_backbone_and_classifier(build: Callable[..., SampledStudent]) -> None:
    student, images = build(), torch.rand(2, 3, 8, 8)
    head = student.head if student.end_flow is None else student.end_flow.transform
    wanted = head(student.backbone(student.normalize(images)))
    plain = with_num_steps(student, 3).without_flows()
    assert torch.equal(plain(images), wanted)
    assert not torch.allclose(student(images, 3), wanted)


def test_a_student_without_steps_deploys_as_it_is() -> None:
    student = plain_student().train()
    network = with_num_steps(student, None)
    assert isinstance(network, PlainNetwork)
    assert network.num_steps is None
    assert network.general_form() is network.without_flows() is student
    assert not student.training
    assert network.smaller_forms((8, 8), collapse=True) == {}
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(network(images), student(images))


def test_forms_of_a_network_are_in_eval_mode_and_share_its_weights() -> None:
    student = flow_student().train()
    network = with_num_steps(student, 2)
    for form in (network.general_form(), network.without_flows()):
        assert not any(module.training for module in form.modules())
        own = {id(parameter) for parameter in student.parameters()}
        assert all(id(parameter) in own for parameter in form.parameters())


@pytest.mark.parametrize(
    ("build", "num_steps", "message"),
    [
        (flow_student, None, "the student takes sampling steps, got num_steps None"),
        (feature_student, None, "the student takes sampling steps, got num_steps None"),
        (plain_student, 2, "the student does not take sampling steps, got num_steps 2"),
    ],
)
def test_a_number_of_steps_that_does_not_fit_the_student_is_refused(
    build: Callable[[], torch.nn.Module], num_steps: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        with_num_steps(build(), num_steps)


def test_candidates_are_taken_once_each_in_ascending_order_and_by_a_plain_student_not_at_all() -> None:
    networks = with_each_num_steps(flow_student(), [4, 1, 2, 4])
    assert all(isinstance(network, SampledNetwork) for network in networks)
    assert [network.num_steps for network in networks] == [1, 2, 4]
    (only,) = with_each_num_steps(plain_student(), [4, 1])
    assert only.num_steps is None


def test_images_as_a_camera_gives_them_are_scaled_first() -> None:
    student = plain_student()
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(ByteImages(student)(images), student(images / 255))


def test_the_meta_encoder_as_layers_stands_between_backbone_and_head() -> None:
    network = build_layered_classifier(backbone="resnet8", num_classes=3, layers="conv", **STATISTICS).eval()
    images = torch.rand(2, 3, 8, 8)
    assert isinstance(network.head, torch.nn.Sequential)
    encoder, head = network.head
    x = network.features(images)
    torch.testing.assert_close(network(images), head(x - encoder.body(x)))
