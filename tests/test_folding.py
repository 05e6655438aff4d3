"""Smaller forms of what deploys: each equals the trained network in float64, and is offered only where it does."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.deploy import SampledNetwork
from models.encoder_bodies.mlp import ChannelLayerNorm
from models.flow import FlowTransfer
from models.folding import TapsTransform, is_collapsible, is_foldable
from models.meta_encoders import META_ENCODERS
from models.schedules import get_schedule
from models.students import build_feature_flow_student, build_flow_student
from pipeline.core.errors import GateError
from pipeline.export.onnx.graph_form import smallest_form
from pipeline.tasks.classification.training import ClassificationTraining

STATISTICS: dict[str, Any] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
SIZE = (12, 20)
CHANNELS = 64
"""Of the last feature map of ``make_student``."""
FOLDED = ("conv", "conv_mobile", "mlp", "transformer")
"""The meta-encoders that must fold; another has the forms that its last layer allows, or the general one alone."""


def lively(network: nn.Module) -> nn.Module:
    """Return ``network`` in float64 with biases, scales and running statistics that a trained one could have."""
    torch.manual_seed(0)
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.dim() == 1 and tensor.is_floating_point():
            nn.init.uniform_(tensor.data, 0.5, 1.5) if "var" in name else nn.init.normal_(tensor.data, 0.2, 0.5)
    return network.double().eval()


def make_student(meta_encoder: str = "conv", schedule: str = "rectified", width: int | None = None) -> Any:
    names = {"backbone": "wrn_16_1", "schedule": schedule, "meta_encoder": meta_encoder}
    return lively(build_flow_student(num_classes=5, time_scale=30.0, width=width, **names, **STATISTICS))


def make_feature_student(schedule: str = "rectified", **changes: Any) -> Any:
    names = {"backbone": "resnet8", "schedule": schedule, "meta_encoder": "conv", **changes}
    return lively(build_feature_flow_student(num_classes=5, stages=[1, 3], time_scale=30.0, **names, **STATISTICS))


def make_student_with_both(widths: list[int | None] | None) -> Any:
    return make_feature_student(to_logits=True, widths=None if widths is None else [*widths, 6])


def make_images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def euler_by_hand(student: Any, images: Tensor, num_steps: int) -> Tensor:
    """Return mean_k Linear(GAP(X_S - v_k)) along Z <- Z - v / K, written out (arXiv 2402.02012, figure 4).

    The velocity is U body(D Z + e(t)) where the meta-encoder has a width of its own.
    """
    start = state = student.features(images)
    encoder, head = student.flow.velocity, student.flow.transform.linear
    outputs = []
    for step in range(num_steps):
        time = torch.full((len(images),), 1 - step / num_steps, dtype=images.dtype)
        seen = (
            torch.einsum("rc,bchw->brhw", encoder.project_in.weight[..., 0, 0], state) if encoder.is_narrow else state
        )
        velocity = encoder.body(seen + encoder.time_embedding(time)[:, :, None, None])
        if encoder.is_narrow:
            velocity = torch.einsum("cr,brhw->bchw", encoder.project_out.weight[..., 0, 0], velocity)
        outputs.append(head((start - velocity).mean(dim=(2, 3))))
        state = state - velocity / num_steps
    return torch.stack(outputs).mean(dim=0)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("meta_encoder", sorted({*FOLDED, *META_ENCODERS}))
@torch.no_grad()
def test_every_form_is_the_mean_of_all_heads_along_the_chain(meta_encoder: str, num_steps: int) -> None:
    student, images = make_student(meta_encoder), make_images()
    wanted = euler_by_hand(student, images, num_steps)
    network = SampledNetwork(student, num_steps)
    torch.testing.assert_close(network(images), wanted, rtol=1e-12, atol=1e-12)
    forms = network.smaller_forms(SIZE, collapse=True)
    if meta_encoder in FOLDED:
        collapses = meta_encoder.startswith("conv") and num_steps <= 2
        assert list(forms) == (["folded", "collapsed"] if collapses else ["folded"])
    for name, build in forms.items():
        torch.testing.assert_close(build()(images), wanted, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [1, 5, 16, 80])
@pytest.mark.parametrize("meta_encoder", sorted({*FOLDED, *META_ENCODERS}))
@torch.no_grad()
def test_a_meta_encoder_of_its_own_width_is_followed_in_that_width(
    meta_encoder: str, width: int, num_steps: int
) -> None:
    student, images = make_student(meta_encoder, width=width), make_images()
    wanted = euler_by_hand(student, images, num_steps)
    network = SampledNetwork(student, num_steps)
    torch.testing.assert_close(network(images), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network.general_form()(images), wanted, rtol=1e-12, atol=1e-12)
    forms = network.smaller_forms(SIZE, collapse=True)
    collapses = meta_encoder.startswith("conv") and num_steps <= 2
    assert list(forms) == (["folded", "collapsed"] if collapses else ["folded"])
    for name, build in forms.items():
        torch.testing.assert_close(build()(images), wanted, rtol=1e-12, atol=1e-12, msg=name)
    torch.testing.assert_close(network.smallest_form(SIZE)(images), wanted, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_narrow_flow_is_smaller_than_its_general_form_and_the_projection_out_costs_nothing() -> None:
    student = make_student(width=16).float()
    plain = SampledNetwork(student, 4).without_flows()
    images = torch.zeros(1, 3, *SIZE)
    height, width = student.features(images).shape[2:]
    positions, states, own, classes = height * width, CHANNELS, 16, 5
    convolutions = 2 * 9 * own**2
    for num_steps in (1, 4):
        network = SampledNetwork(student, num_steps)
        folded = network.smaller_forms(SIZE, collapse=False)["folded"]()
        spent = macs(folded, images) - macs(plain, images)
        walked = states * own + num_steps * convolutions + (num_steps - 1) * own**2
        assert spent == positions * walked + classes * own
        general = macs(network.general_form(), images) - macs(plain, images)
        assert general == num_steps * positions * (2 * states * own + convolutions) + (num_steps - 1) * classes * states


def macs(network: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network(images)
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("widths", [None, [None, 12], [4, 20]])
@torch.no_grad()
def test_refined_feature_maps_fold_too(widths: list[int | None] | None) -> None:
    images = make_images()
    for student in (make_feature_student(widths=widths), make_student_with_both(widths)):
        forms = SampledNetwork(student, 3).smaller_forms(SIZE, collapse=True)
        assert list(forms) == ["folded"]
        torch.testing.assert_close(forms["folded"]()(images), student(images, 3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 6])
@torch.no_grad()
def test_a_convolution_pooling_and_classifier_are_one_linear_map_of_nine_sums(groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, (3, 5), padding=(1, 2), groups=groups, bias=False).double()
    linear = nn.Linear(6, 4).double()
    features = torch.randn(2, 6, 4, 7, dtype=torch.float64)
    wanted = linear(layer(features).mean(dim=(2, 3))) - linear.bias
    found = TapsTransform(layer, linear, (4, 7))(features)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_what_the_mathematics_does_not_allow_is_not_offered() -> None:
    for schedule in ("vp", "ve"):
        for student in (
            make_student(schedule=schedule),
            make_student(schedule=schedule, width=8),
            make_feature_student(schedule),
        ):
            assert SampledNetwork(student, 2).smaller_forms(SIZE, collapse=True) == {}
    flow = make_student().flow
    assert is_foldable(flow)
    assert is_collapsible(flow)
    curved = nn.Sequential(flow.transform, nn.Softmax(dim=1))
    not_linear = FlowTransfer(velocity=flow.velocity, schedule=get_schedule("rectified"), transform=curved)
    assert not is_foldable(not_linear)
    assert not is_collapsible(not_linear)
    assert list(SampledNetwork(make_student(), 2).smaller_forms(SIZE, collapse=False)) == ["folded"]


def convolution(**changes: Any) -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, **{"kernel_size": 3, "padding": 1, **changes})


def fixed_norm() -> ChannelLayerNorm:
    layer = ChannelLayerNorm(CHANNELS)
    layer.norm = nn.LayerNorm(CHANNELS, elementwise_affine=False)
    return layer


BODIES: dict[str, tuple[list[nn.Module], list[str]]] = {
    "ends with an activation": ([convolution(), nn.SiLU()], []),
    "ends with a normalisation over positions": ([convolution(), nn.GroupNorm(1, CHANNELS)], []),
    "ends with a normalisation without scale": ([convolution(), fixed_norm()], []),
    "ends with a container": ([nn.SiLU(), nn.Sequential(convolution())], []),
    "padding as a word": ([nn.SiLU(), convolution(padding="same")], ["folded"]),
    "dilated": ([nn.SiLU(), convolution(padding=2, dilation=2)], ["folded"]),
    "dilated, of one tap": ([nn.SiLU(), convolution(kernel_size=1, padding=0, dilation=2)], ["folded"]),
    "padded by its edge": ([nn.SiLU(), convolution(padding_mode="replicate")], ["folded"]),
    "one convolution with a bias": ([convolution(kernel_size=(5, 1), padding=(2, 0))], ["folded", "collapsed"]),
}
"""From a meta-encoder's last layer to the layers of its body and the forms that there are."""


@pytest.mark.parametrize("name", BODIES)
@torch.no_grad()
def test_any_body_folds_between_projections_and_collapses_as_far_as_its_last_layer_allows(name: str) -> None:
    layers, wanted = BODIES[name]
    student, images = make_student(width=CHANNELS), make_images()
    student.flow.velocity.body = copy.deepcopy(nn.Sequential(*layers))
    lively(student)
    forms = SampledNetwork(student, 2).smaller_forms(SIZE, collapse=True)
    assert list(forms) == (wanted or ["folded"])
    expected = euler_by_hand(student, images, 2)
    for build in forms.values():
        torch.testing.assert_close(build()(images), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BODIES)
@torch.no_grad()
def test_a_users_own_meta_encoder_folds_as_far_as_its_last_layer_allows(name: str) -> None:
    layers, wanted = BODIES[name]
    student, images = make_student(), make_images()
    student.flow.velocity.body = copy.deepcopy(nn.Sequential(*layers))
    lively(student)
    network = SampledNetwork(student, 2)
    forms = network.smaller_forms(SIZE, collapse=True)
    assert list(forms) == wanted
    assert (is_foldable(student.flow), is_collapsible(student.flow)) == (bool(wanted), "collapsed" in wanted)
    expected = euler_by_hand(student, images, 2)
    for form in (network.general_form(), *(build() for build in forms.values())):
        torch.testing.assert_close(form(images), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_steps_share_the_weight_of_their_last_layer() -> None:
    network: Any = SampledNetwork(make_student(), 4).smaller_forms(SIZE, collapse=True)["folded"]()
    tails = network.flow.tails
    assert len({tail.weight.data_ptr() for tail in tails}) == 1
    assert len({tail.bias.data_ptr() for tail in tails}) == 4


def test_what_ships_is_the_smallest_form_rounded_once() -> None:
    student, task = make_student().float(), ClassificationTraining()
    images = (make_images(5) * 255).to(torch.uint8)
    before = copy.deepcopy(student.state_dict())
    form = smallest_form(SampledNetwork(student, 2), images, task, collapse=True)
    assert form.name == "collapsed"
    assert form.difference < 1e-12
    assert next(form.parts.body.parameters()).dtype == torch.float32
    with torch.no_grad():
        shown = images.float() / 255
        torch.testing.assert_close(form.parts.body(shown), student(shown, 2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(student.state_dict(), before, rtol=0, atol=0)
    general = smallest_form(SampledNetwork(make_student(schedule="vp").float(), 2), images, task, collapse=True)
    assert general.name == "general"


class WronglyRewritten(SampledNetwork):
    """Offers a form that computes something else."""

    def smaller_forms(self, *_: Any, **__: Any) -> dict[str, Any]:
        other = copy.deepcopy(self)
        with torch.no_grad():
            next(other.parameters()).mul_(1 + 1e-6)
        return {"folded": lambda: other}


def test_a_rewriting_that_is_not_equal_is_refused() -> None:
    network, images = WronglyRewritten(make_student().float(), 2), (make_images() * 255).to(torch.uint8)
    with pytest.raises(GateError, match=r"the folded form differs from the student by .* in float64"):
        smallest_form(network, images, ClassificationTraining(), collapse=True)
