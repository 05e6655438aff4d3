"""Theorem 3.1 of a trained student: the figures of the stages against figures computed image by image."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.layers.shape_transform import FeatureTransform
from models.likelihood import flow_log_likelihood
from pipeline.core.likelihood_line import likelihood_of
from pipeline.distillation.frozen_teacher import FrozenTeacher, load_frozen_teacher
from pipeline.distillation.traced_flows import traced_flows
from pipeline.evaluation.continuous import ContinuousLikelihood
from pipeline.evaluation.likelihood import FlowLikelihood, fitted_bound, trivial_bound
from pipeline.networks.saved import load_adapter, load_network
from pipeline.networks.spec import WEIGHTS
from pipeline.tasks.data import open_data
from workbench.bench import Bench, taught_bench

CPU = torch.device("cpu")
FEATURES = {"distill_student.transfer": "features", "distill_student.loss": "pkd"}
STEPS = (1, 3)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return taught_bench(tmp_path_factory.mktemp("likelihood"))


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    return {"calibrate_steps.candidates": list(STEPS), **changes}


def run(bench: Bench, changes: dict[str, Any]) -> None:
    for command in (bench.distill, bench.calibrate, bench.trace):
        with torch.enable_grad():
            result = command(changed(changes))
        assert result.exit_code == 0, result.output


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Traced:
    """What a bench has distilled."""

    def __init__(self, bench: Bench) -> None:
        self.student, self.about = load_network(bench.folder / "student")
        self.adapter = load_adapter(bench.folder / "student")
        self.data = open_data(bench.folder / "data", None, self.about["arguments"])
        self.flows = traced_flows(self.student, self.adapter)
        self.teacher = load_frozen_teacher(bench.folder / "teacher", self.about, CPU)

    def images(self, split: str) -> Tensor:
        return torch.from_numpy(self.data.split(split).pixels.copy()).float() / 255


@torch.no_grad()
def test_the_figures_of_logits_are_those_of_the_definitions(bench: Bench) -> None:
    run(bench, {})
    found, traced = table(bench.folder / "likelihood.csv"), Traced(bench)
    assert [int(row["num_steps"]) for row in found] == list(STEPS)
    calib, test = (traced.images(split) for split in ("calib", "test"))
    student, teacher = traced.student.eval(), traced.teacher
    assert isinstance(teacher, FrozenTeacher)

    def said(images: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
        steps, [target] = student.step_logits(images, num_steps), teacher(images)
        return tuple(x.double() - x.double().mean(dim=-1, keepdim=True) for x in (target, steps))

    for row in found:
        num_steps = int(row["num_steps"])
        target, steps = said(calib, num_steps)
        dims = target.shape[1] - 1
        variance = float((steps - target).square().sum(dim=2).mean()) / dims
        trivial = float((target - target.mean(dim=0)).square().sum(dim=1).mean()) / dims
        mean = target.mean(dim=0)
        target, steps = said(test, num_steps)

        def cost(errors: Tensor, variance: float, dims: int = dims) -> float:
            return dims / 2 * math.log(2 * math.pi * variance) + float(errors.mean()) / (2 * variance)

        errors = (steps - target).square().sum(dim=2)  # (K, B)
        bound = cost(errors, variance)
        densities = torch.distributions.Normal(0, math.sqrt(variance)).log_prob(errors.new_zeros(())) * dims
        mixture = -float((densities - errors / (2 * variance)).exp().mean(dim=0).log().mean())
        ensemble = cost((steps.mean(dim=0) - target).square().sum(dim=1), variance)
        expected = {
            "dims": dims,
            "bound": bound,
            "bound_bits": bound / dims / math.log(2),
            "mixture": mixture,
            "ensemble": ensemble,
            "diversity": bound - ensemble,
            "trivial": cost((mean - target).square().sum(dim=1), trivial),
        }
        assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert float(row["mixture"]) <= float(row["bound"]) + 1e-9
        assert float(row["entropy"]) <= float(row["categorical_ensemble"]) <= float(row["categorical_bound"])
    assert float(found[0]["diversity"]) == pytest.approx(0, abs=1e-9)


@torch.no_grad()
def test_the_calibration_has_the_bound_of_its_own_images_and_may_choose_by_it(bench: Bench) -> None:
    run(bench, {})
    curve = bench.json("calibration/calibration.json")["curve"]
    traced = Traced(bench)
    likelihood = FlowLikelihood(traced.flows, traced.teacher, 64, CPU)
    split = traced.data.split("calib")
    noise = likelihood.fit(split, STEPS)
    for point in curve:
        own = [row for row in likelihood.rows(split, noise) if row["num_steps"] == point["num_steps"]]
        assert point["bound"] == pytest.approx(own[0]["bound"], rel=1e-6), "the stage may have run on a GPU"
        assert point["bound"] == fitted_bound(noise, point["num_steps"])
    assert trivial_bound(noise) == pytest.approx(own[0]["trivial"], rel=1e-9)
    by_bound = {"calibrate_steps.criterion": "bound", "calibrate_steps.tolerance": 0.0}
    assert bench.calibrate(changed(by_bound)).exit_code == 0
    chosen = bench.json("calibration/calibration.json")
    assert chosen["num_steps"] == min(curve, key=lambda point: point["bound"])["num_steps"]
    assert "negative log-likelihood" in chosen["reason"]


@torch.no_grad()
def test_features_are_standardised_by_the_teachers_channels(bench: Bench) -> None:
    run(bench, {**FEATURES, "distill_student.feature_pairs": [[2, 2], [3, 3]]})
    found, traced = table(bench.folder / "likelihood.csv"), Traced(bench)
    assert [(row["flow"], int(row["num_steps"])) for row in found] == [
        (flow, steps) for steps in STEPS for flow in ("stage 2", "stage 3")
    ]
    assert all(row["entropy"] == "" for row in found)
    calib, test = (traced.images(split) for split in ("calib", "test"))
    student, (transform, _) = traced.student.eval(), traced.adapter.eval()
    assert isinstance(transform, FeatureTransform)
    targets = traced.teacher(calib)[0].double()
    scale = targets.std(dim=(0, 2, 3), unbiased=False)[:, None, None]

    def errors(images: Tensor) -> Tensor:
        estimate = transform(student.trajectories(images, 1)[0].estimates[0]).double()
        return ((estimate - traced.teacher(images)[0].double()) / scale).square().flatten(1).sum(dim=1)

    dims = targets[0].numel()
    variance = float(errors(calib).mean()) / dims
    bound = dims / 2 * math.log(2 * math.pi * variance) + float(errors(test).mean()) / (2 * variance)
    assert float(found[0]["bound"]) == pytest.approx(bound, rel=1e-4)
    assert int(found[0]["dims"]) == dims


@torch.no_grad()
def test_a_channel_that_says_the_same_of_every_image_is_left_out(bench: Bench) -> None:
    """Such a channel, as a rectifier that has died leaves it, would outweigh all others by its rounding."""
    run(bench, {**FEATURES, "distill_student.feature_pairs": [[3, 3]]})
    traced = Traced(bench)
    (transform,) = traced.adapter.eval()
    constants = torch.tensor([0.0, 0.1])[:, None, None]

    def teacher(images: Tensor) -> list[Tensor]:
        [target] = traced.teacher(images)
        return [torch.cat([constants.expand(len(target), -1, *target.shape[2:]), target[:, 2:]], dim=1)]

    def errors(images: Tensor) -> Tensor:
        estimate = transform(traced.student.trajectories(images, 1)[0].estimates[0])[:, 2:].double()
        return ((estimate - teacher(images)[0][:, 2:].double()) / scale).square().flatten(1).sum(dim=1)

    calib, test = (traced.images(split) for split in ("calib", "test"))
    targets = teacher(calib)[0][:, 2:].double()
    scale = targets.std(dim=(0, 2, 3), unbiased=False)[:, None, None]
    dims = targets[0].numel()
    likelihood = FlowLikelihood(traced.flows, teacher, 64, CPU)
    noise = likelihood.fit(traced.data.split("calib"), [1])
    [found] = likelihood.rows(traced.data.split("test"), noise)
    variance = float(errors(calib).mean()) / dims
    bound = dims / 2 * math.log(2 * math.pi * variance) + float(errors(test).mean()) / (2 * variance)
    assert found["dims"] == dims
    assert found["bound"] == pytest.approx(bound, rel=1e-4)
    assert math.isfinite(found["trivial"])
    exact = ContinuousLikelihood(traced.flows, teacher, {name: one.scale for name, one in noise.items()}, CPU)
    splits = {split: traced.data.split(split) for split in ("calib", "test")}
    assert exact.figures("stage 3", 1, **splits) == {}, "there is no density of what never changes"


def test_without_a_teacher_there_is_no_bound(bench: Bench) -> None:
    run(bench, {"distill_student.method": "ofm_kt"})
    assert table(bench.folder / "likelihood.csv") == []
    assert "bound" not in bench.json("calibration/calibration.json")["curve"][0]
    result = bench.calibrate(changed({"distill_student.method": "ofm_kt", "calibrate_steps.criterion": "bound"}))
    assert result.exit_code == 2
    assert "calibrate_steps.criterion: got bound, but method 'ofm_kt' has no teacher" in result.output


@pytest.mark.parametrize("flows", [["stage 3"], ["stage 2", "stage 3", "logits"]])
def test_people_see_the_figures_over_all_flows(bench: Bench, flows: list[str]) -> None:
    pairs = [[int(name[-1]), int(name[-1])] for name in flows if name != "logits"]
    both = {"distill_student.transfer": "features_and_logits", "distill_student.logit_loss.weight": 1.0}
    run(bench, {**FEATURES, "distill_student.feature_pairs": pairs, **(both if "logits" in flows else {})})
    rows = table(bench.folder / "likelihood.csv")
    assert [row["flow"] for row in rows] == flows * len(STEPS)
    assert [row["entropy"] != "" for row in rows] == [row["flow"] == "logits" for row in rows]
    members = [row["member"] for row in table(bench.folder / "ensemble.csv")]
    assert members == (["1", "2", "3", "mean", "best"] if "logits" in flows else [])
    for num_steps in STEPS:
        mine = [row for row in rows if row["num_steps"] == str(num_steps)]
        whole = likelihood_of(rows, num_steps)
        assert whole is not None
        for key in ("bound", "mixture", "ensemble", "diversity", "trivial", "dims"):
            assert float(whole[key]) == pytest.approx(sum(float(row[key]) for row in mine), rel=1e-5)
        bits = sum(float(row["bound"]) for row in mine) / math.log(2) / sum(int(row["dims"]) for row in mine)
        assert float(whole["bound_bits"]) == pytest.approx(bits, rel=1e-5)
    assert likelihood_of(rows, 7) is None


def normal_nll(target: Tensor, mean: Tensor, matrix: Tensor, variance: float, scale: Tensor) -> float:
    """Return the mean over images of -log p(target / scale), where each place of it is matrix N(., variance I) + mean.

    Maps are (B, C, H, W), ``scale`` (C, 1, 1).
    """
    factor = matrix / scale[:, :, 0]
    places, means = ((x / scale).movedim(1, 3) for x in (target, mean))
    normal = torch.distributions.MultivariateNormal(means, variance * factor @ factor.T)
    return -float(normal.log_prob(places).sum(dim=(1, 2)).mean())


def transform_of(traced: Traced) -> tuple[FeatureTransform, Tensor, Tensor]:
    """Return the transform of the one flow, its matrix and its bias (C, 1, 1), in float64."""
    (transform,) = traced.adapter.eval()
    assert isinstance(transform, FeatureTransform)
    weight, bias = transform.project.weight.detach().double(), transform.project.bias.detach().double()
    return transform, weight[:, :, 0, 0], bias[:, None, None]


@torch.no_grad()
def test_a_flow_that_does_not_move_has_the_exact_likelihood_of_a_normal_distribution(bench: Bench) -> None:
    """Through the stage: with a velocity of 0 the teacher's map is T of what lies normally around X_S."""
    changes = {**FEATURES, "distill_student.feature_pairs": [[3, 3]]}
    run(bench, changes)
    assert all(math.isfinite(float(row["continuous"])) for row in table(bench.folder / "likelihood.csv"))
    weights = load_file(bench.folder / "student" / WEIGHTS)
    last = "flows.3.velocity.project_out.weight"
    last = last if last in weights else max(name for name in weights if name.startswith("flows.3.velocity.body"))
    save_file(weights | {last: torch.zeros_like(weights[last])}, bench.folder / "student" / WEIGHTS)
    assert bench.trace(changed(changes)).exit_code == 0
    traced = Traced(bench)
    _, matrix, bias = transform_of(traced)
    scale = traced.teacher(traced.images("calib"))[0].double().std(dim=(0, 2, 3), unbiased=False)[:, None, None]

    def ends(split: str) -> tuple[Tensor, Tensor]:
        images = traced.data.split(split).spread(32).images.float() / 255
        start = traced.student.trajectories(images, 1)[0].states[0]
        return start.double(), traced.teacher(images)[0].double()

    (own, wanted), (source, target) = ends("calib"), ends("test")
    back = torch.einsum("dc,bchw->bdhw", torch.linalg.inv(matrix), wanted - bias)
    variance = float((back - own).square().mean())
    mean = torch.einsum("dc,bchw->bdhw", matrix, source) + bias
    expected = normal_nll(target, mean, matrix, variance, scale)
    found = table(bench.folder / "likelihood.csv")
    assert [int(row["continuous_images"]) for row in found] == [len(target)] * len(STEPS)
    assert [float(row["continuous"]) for row in found] == pytest.approx([expected] * len(STEPS), rel=1e-3)


class Growing(nn.Module):
    """A velocity that is linear in the state: a point x goes to exp(rate) x."""

    rate = 0.7

    def forward(self, *, x: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002
        return self.rate * x


@torch.no_grad()
def test_a_flow_that_grows_changes_volumes_as_its_exponential_does(bench: Bench) -> None:
    run(bench, {**FEATURES, "distill_student.feature_pairs": [[3, 3]]})
    traced = Traced(bench)
    transform, matrix, bias = transform_of(traced)
    assert traced.flows is not None
    assert traced.teacher is not None
    traced.flows.flows[0].velocity = Growing()
    scale = torch.linspace(0.5, 2, len(bias), dtype=torch.float64)[:, None, None]
    exact = ContinuousLikelihood(traced.flows, traced.teacher, {"stage 3": scale}, CPU)
    calib, test = traced.data.split("calib"), traced.data.split("test")
    found = exact.figures("stage 3", 2, calib=calib, test=test)
    growth = math.exp(Growing.rate)

    def ends(split: Any) -> tuple[Tensor, Tensor]:
        images = split.spread(32).images.float() / 255
        start = traced.student.trajectories(images, 2)[0].states[0]
        return start.double(), traced.teacher(images)[0].double()

    (own, wanted), (source, target) = ends(calib), ends(test)
    there = growth * torch.einsum("dc,bchw->bdhw", torch.linalg.inv(matrix), wanted - bias)
    variance = float((there - own).square().mean())
    mean = torch.einsum("dc,bchw->bdhw", matrix, source / growth) + bias
    assert found["continuous"] == pytest.approx(
        normal_nll(target, mean, matrix / growth, variance, scale), rel=1e-3, abs=1e-2
    )
    transform.project.weight[0] = transform.project.weight[1]
    assert exact.figures("stage 3", 2, calib=calib, test=test) == {}, "T cannot be taken back"


def test_a_flow_that_moves_all_alike_changes_no_volume() -> None:
    """Its velocity depends on no state, so that there is nothing to differentiate."""
    x = torch.rand(3, 4, dtype=torch.float64)
    found = flow_log_likelihood(lambda state, _: torch.ones_like(state), x, x + 1, variance=1.0, num_steps=2)
    torch.testing.assert_close(found, torch.full((3,), -2 * math.log(2 * math.pi), dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "words"), [({"num_steps": 0}, "num_steps: got 0"), ({"variance": math.nan}, "variance: got nan")]
)
def test_figures_out_of_range_are_named(change: dict[str, Any], words: str) -> None:
    x = torch.rand(3, 4)
    with pytest.raises(ValueError, match=words):
        flow_log_likelihood(lambda state, _: state, x, x, **({"variance": 1.0} | change))
