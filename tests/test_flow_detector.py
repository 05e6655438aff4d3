"""Flows at the levels of a pyramid: what they compute, how they fold, and the layers that are their control."""

from typing import Any

import pytest
import torch
from torch import nn

from models.deploy import SampledNetwork
from models.detection.building import build_detector
from models.detection.detector import Detector
from models.detection.flow_detector import FlowDetector, RefinedDetector, build_flow_detector, build_layered_detector
from models.detection.one_stage import HeadOutputs
from models.detection.tail import Tail
from models.detections import Detections
from models.meta_encoders import META_ENCODERS
from pipeline.networks.complexity import macs_of
from pipeline.networks.saved import build_network
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.training import ExportParts

PLAIN: dict[str, Any] = {"backbone": "resnet8", "num_classes": 3, "image_size": (32, 32), "width": 32}
PLAIN |= {"levels": (2, 3), "extra": "pool", "mean": [0.5] * 3, "std": [0.25] * 3, "num_convs": 1}
FLOW: dict[str, Any] = {"schedule": "rectified", "meta_encoder": "conv", "time_scale": 300.0}
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def make(**changes: Any) -> FlowDetector:
    torch.manual_seed(0)
    return build_flow_detector(**PLAIN | FLOW | {"stages": (1, 2, 3)} | changes).double().eval()


def answers(found: HeadOutputs) -> list[torch.Tensor]:
    return [tensor.detach() for tensor in found.tensors]


def test_each_level_flows_on_to_the_head() -> None:
    student = make()
    plain = student.without_flows()
    levels = plain.feature_maps(IMAGES)
    refined = [flow.final_state(x, 3) for flow, x in zip(student.flows.values(), levels, strict=True)]  # type: ignore[operator]
    found, expected = student(IMAGES, 3), plain.from_maps(refined)
    for one, other in zip(answers(found), answers(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    again, trajectories = student.refine(IMAGES, 3)
    assert all(torch.equal(*pair) for pair in zip(answers(found), answers(again), strict=True))
    assert [path.states[-1].shape for path in trajectories] == [level.shape for level in levels]


def test_a_step_is_what_the_head_makes_of_the_state_after_it() -> None:
    student = make()
    steps = student.step_predictions(IMAGES, 3)
    assert len(steps) == 3
    assert student.combine(steps) is steps[-1]
    plain, trajectories = student.without_flows(), student.trajectories(IMAGES, 3)
    for stop, step in enumerate(steps, start=1):
        expected = plain.from_maps([path.states[stop] for path in trajectories])
        assert all(torch.equal(*pair) for pair in zip(answers(step), answers(expected), strict=True))


@pytest.mark.parametrize("width", [None, 8])
@pytest.mark.parametrize("meta_encoder", META_ENCODERS)
@pytest.mark.parametrize("num_steps", [1, 4])
def test_forms_that_deploy_equal_the_student(meta_encoder: str, width: int | None, num_steps: int) -> None:
    student = make(meta_encoder=meta_encoder, widths=[width, None, width])
    network = SampledNetwork(student, num_steps)
    expected = answers(network(IMAGES))
    forms = {"general": network.general_form, **network.smaller_forms((32, 32), collapse=True)}
    assert "folded" in forms or meta_encoder not in {"conv", "conv_mobile", "convnext"}
    for build in forms.values():
        for one, other in zip(answers(build()(IMAGES)), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_levels_without_a_flow_stay_as_they_are() -> None:
    student = make(stages=(2,))
    assert student.stages == (2,)
    assert list(student.flows) == ["2"]
    levels = student.without_flows().feature_maps(IMAGES)
    fixed = SampledNetwork(student, 2).general_form()
    assert isinstance(fixed, RefinedDetector)
    kept = fixed.feature_maps(IMAGES)
    assert torch.equal(kept[0], levels[0])
    assert torch.equal(kept[2], levels[2])
    assert not torch.equal(kept[1], levels[1])
    with pytest.raises(ValueError, match=r"the pyramid has no level 4; its levels: 1 \(32 channels\)"):
        make(stages=(1, 4))


def test_the_control_has_the_same_layers_without_a_flow() -> None:
    torch.manual_seed(0)
    layered = build_layered_detector(**PLAIN, layers="conv", stages=(1, 2, 3), widths=[8, 8, 8]).double().eval()
    plain = build_detector(**PLAIN)
    own = {name for name, _ in layered.named_parameters() if name.startswith("refiners.")}
    assert {name for name, _ in layered.named_parameters()} - own == {name for name, _ in plain.named_parameters()}
    maps = Detector.feature_maps(layered, IMAGES)
    refined = [layered.refiners[str(i)](x) for i, x in enumerate(maps, start=1)]
    for one, other in zip(layered.feature_maps(IMAGES), refined, strict=True):
        assert torch.equal(one, other)


def test_a_round_of_suppression_is_one_product_and_saved_kinds_are_built() -> None:
    detector = build_network(NetworkSpec("detector", PLAIN))
    assert isinstance(detector, Detector)
    body, image = _Tensors(detector).eval(), torch.zeros(1, 3, 32, 32)
    tail = Tail(detector.places, Detections(candidates=60, rounds=8, max_detections=60))
    counted = macs_of(body, image)
    whole = ExportParts(body, detector.places.output_names, tail).whole()
    assert macs_of(whole, image) - counted == 8 * 60**2
    assert counted > 1_000_000
    assert isinstance(build_network(NetworkSpec("flow_detector", PLAIN | FLOW | {"stages": [1]})), FlowDetector)
    layered = NetworkSpec("layered_detector", PLAIN | {"stages": [1], "layers": "convnext"})
    assert isinstance(build_network(layered), RefinedDetector)


class _Tensors(nn.Module):
    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: HeadOutputs = self.detector(images)
        return found.tensors
