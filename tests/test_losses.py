"""Metric losses against independent derivations in numpy, by their invariances, at the edges, and by name."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import create_model
from torch import Tensor

from models.losses import correlation, dist_loss, dkd_loss, kd_loss, mse_loss, pkd_loss
from pipeline.core.settings import Section
from pipeline.distillation.criteria import CRITERIA
from pipeline.distillation.criterion import Criterion
from pipeline.distillation.settings import Losses
from pipeline.tasks.classification.targets import ClassTargets

FUNCTIONS = {"kd": kd_loss, "dkd": dkd_loss, "dist": dist_loss, "pkd": pkd_loss, "mse": mse_loss}
SETTINGS = {
    "kd": {"temperature": 4.0},
    "dkd": {"alpha": 0.7, "beta": 2.0, "temperature": 3.0},
    "dist": {"beta": 2.0, "gamma": 0.5, "temperature": 1.5},
}
LABELS = torch.tensor([0, 2, 4, 1, 3, 2])
LOGITS, FEATURES = (6, 5), (6, 3, 2, 2)
every_loss = pytest.mark.parametrize(
    ("name", "shape"),
    [("kd", LOGITS), ("dkd", LOGITS), ("dist", LOGITS), ("mse", LOGITS), ("mse", FEATURES), ("pkd", FEATURES)],
)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def loss(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    labels = (LABELS[: len(student)],) if name == "dkd" else ()
    return FUNCTIONS[name](student, teacher, *labels, **SETTINGS.get(name, {}))


def pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return normal(0, *shape), normal(1, *shape)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * (np.log(p) - np.log(q))).sum(axis=-1)


def decoupled(s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return TCKD, NCKD and the teacher's p_target of each image, from the probabilities."""
    rows, others = np.arange(len(s)), np.arange(s.shape[1]) != LABELS.numpy()[:, None]
    of_target = [p[rows, LABELS.numpy()] for p in (t, s)]
    binary = [np.stack([p, 1 - p], axis=1) for p in of_target]
    rest = [p[others].reshape(len(s), -1) / (1 - of)[:, None] for p, of in zip((t, s), of_target, strict=True)]
    return divergence(*binary), divergence(*rest), of_target[0]


def expected_kd(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    return temperature**2 * divergence(softmax(t / temperature), softmax(s / temperature)).mean()


def expected_dkd(s: np.ndarray, t: np.ndarray, alpha: float, beta: float, temperature: float) -> float:
    target, rest, _ = decoupled(softmax(s / temperature), softmax(t / temperature))
    return temperature**2 * (alpha * target + beta * rest).mean()


def expected_dist(s: np.ndarray, t: np.ndarray, beta: float, gamma: float, temperature: float) -> float:
    p, q = softmax(s / temperature), softmax(t / temperature)
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return temperature**2 * (beta * (1 - rows) + gamma * (1 - columns))


def expected_pkd(s: np.ndarray, t: np.ndarray) -> float:
    a, b = ((x - x.mean(axis=(0, 2, 3), keepdims=True)) / x.std(axis=(0, 2, 3), keepdims=True) for x in (s, t))
    return ((a - b) ** 2).mean() / 2


def expected_mse(s: np.ndarray, t: np.ndarray) -> float:
    return np.square(s - t).mean()


DEFINITIONS = dict(zip(FUNCTIONS, (expected_kd, expected_dkd, expected_dist, expected_pkd, expected_mse), strict=True))


@every_loss
def test_a_loss_has_the_value_of_its_published_definition(name: str, shape: tuple[int, ...]) -> None:
    student, teacher = pair(shape)
    expected = DEFINITIONS[name](student.numpy(), teacher.numpy(), **SETTINGS.get(name, {}))
    assert loss(name, student, teacher).item() == pytest.approx(expected, rel=1e-9)
    assert loss(name, student.float(), teacher.float()).item() == pytest.approx(expected, rel=1e-5)


@every_loss
def test_gradients_agree_with_finite_differences(name: str, shape: tuple[int, ...]) -> None:
    student, teacher = normal(0, *shape).requires_grad_(), normal(1, *shape)
    assert torch.autograd.gradcheck(lambda s: loss(name, s, teacher), student)


@pytest.mark.parametrize("name", ["kd", "dkd"])
def test_a_class_that_the_teacher_rules_out_has_no_share_in_a_divergence(name: str) -> None:
    """What the teacher gives that class is 0, of which the definition is the limit."""
    student, teacher = normal(0, *LOGITS).requires_grad_(), normal(1, *LOGITS)
    ruled_out = torch.zeros(LOGITS, dtype=torch.bool)
    ruled_out[torch.arange(6), (LABELS + 1) % 5] = True
    found = loss(name, student, teacher.masked_fill(ruled_out, -torch.inf))
    near = teacher.masked_fill(ruled_out, -700.0)
    expected = DEFINITIONS[name](student.detach().numpy(), near.numpy(), **SETTINGS[name])
    assert found.item() == pytest.approx(expected, rel=1e-9)
    (gradient,) = torch.autograd.grad(found, student)
    (limit,) = torch.autograd.grad(loss(name, student, near), student)
    torch.testing.assert_close(gradient, limit)
    both = loss(name, student.detach().masked_fill(ruled_out, -torch.inf), teacher.masked_fill(ruled_out, -torch.inf))
    assert torch.isfinite(both), "nor where the student rules it out as well"


def test_divergence_splits_into_the_targets_and_the_others_by_the_teachers_uncertainty() -> None:
    student, teacher = pair(LOGITS)
    p, q = softmax(teacher.numpy() / 4), softmax(student.numpy() / 4)
    target, rest, p_target = decoupled(q, p)
    np.testing.assert_allclose(target + (1 - p_target) * rest, divergence(p, q), rtol=1e-9)
    for i, p_i in enumerate(p_target):
        image = student[i : i + 1], teacher[i : i + 1]
        split = dkd_loss(*image, LABELS[i : i + 1], alpha=1.0, beta=1 - p_i, temperature=4.0)
        torch.testing.assert_close(split, kd_loss(*image, 4.0))


def test_two_classes_leave_only_the_targets_divergence() -> None:
    student, teacher = normal(0, 6, 2).requires_grad_(), normal(1, 6, 2)
    full = dkd_loss(student, teacher, LABELS % 2, alpha=1.0, beta=2.0, temperature=4.0)
    torch.testing.assert_close(full, kd_loss(student, teacher, 4.0))
    assert dkd_loss(student, teacher, LABELS % 2, alpha=0.0, beta=2.0, temperature=4.0).item() == 0
    full.backward()
    assert torch.isfinite(student.grad).all()


def test_decoupled_distillation_stays_exact_where_one_minus_p_rounds_to_zero() -> None:
    student, teacher = pair(LOGITS)
    teacher[torch.arange(6), LABELS] = 60.0  # at temperature 3, 1 - p_target is about 1e-8: 0 in float32, not in numpy
    for a, b in ((student, teacher), (teacher, student)):
        expected = expected_dkd(a.numpy(), b.numpy(), **SETTINGS["dkd"])
        assert loss("dkd", a.float(), b.float()).item() == pytest.approx(expected, rel=1e-5)


@every_loss
def test_only_equal_inputs_cost_nothing_and_the_teacher_is_a_constant(name: str, shape: tuple[int, ...]) -> None:
    student, teacher = normal(0, *shape).requires_grad_(), normal(1, *shape)
    assert loss(name, student, student.detach()).item() == pytest.approx(0, abs=1e-12)
    value = loss(name, student, teacher)
    assert value > 0.01
    assert abs(loss(name, student, teacher.roll(1, dims=0)) - value) > 1e-3
    assert torch.autograd.grad(value, student)[0].abs().sum() > 0


@pytest.mark.parametrize("name", ["kd", "dkd", "dist"])
def test_a_shift_of_an_images_logits_changes_nothing(name: str) -> None:
    student, teacher, shift = normal(0, *LOGITS), normal(1, *LOGITS), torch.arange(6, dtype=torch.float64)[:, None]
    torch.testing.assert_close(loss(name, student + shift, teacher - 2 * shift), loss(name, student, teacher))


def mixed_with_uniform(logits: Tensor, slope: float) -> Tensor:
    """Return logits whose probabilities are 1/C + slope (p - 1/C) at the temperature of DIST: affine in p."""
    temperature = SETTINGS["dist"]["temperature"]
    p = (logits / temperature).softmax(dim=1)
    return temperature * (1 / p.shape[1] + slope * (p - 1 / p.shape[1])).log()


def test_dist_sees_probabilities_up_to_a_positive_affine_map_and_is_largest_at_a_negative_one() -> None:
    student, teacher = pair(LOGITS)
    expected = loss("dist", student, teacher)
    torch.testing.assert_close(loss("dist", mixed_with_uniform(student, 0.3), teacher), expected)
    torch.testing.assert_close(loss("dist", student, mixed_with_uniform(teacher, 0.6)), expected)
    assert loss("dist", student, mixed_with_uniform(student, 0.3)).item() == pytest.approx(0, abs=1e-9)
    assert loss("dist", student, mixed_with_uniform(student, -0.2)).item() == pytest.approx(1.5**2 * 2 * (2 + 0.5))


def test_pkd_sees_channels_up_to_a_positive_affine_map_and_is_largest_at_a_negative_one() -> None:
    student, teacher = pair(FEATURES)
    scale, shift = torch.tensor([0.01, 1.0, 50.0])[:, None, None], torch.tensor([-3.0, 7.0, 0.5])[:, None, None]
    torch.testing.assert_close(loss("pkd", student * scale + shift, teacher), loss("pkd", student, teacher))
    torch.testing.assert_close(loss("pkd", student, teacher * scale + shift), loss("pkd", student, teacher))
    assert loss("pkd", student, shift - student * scale).item() == pytest.approx(2)


@every_loss
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_inputs_stay_finite_in_float32(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, *, autocast: bool
) -> None:
    student, teacher = (1e4 * normal(seed, *shape).clamp(-1, 1).round().to(dtype) for seed in (0, 1))
    student[0] = 0
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = loss(name, student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == loss(name, student.float(), teacher.float()).item() > 0
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("constant", [0.0, 10.1])
@pytest.mark.parametrize("where", [np.s_[:1], np.s_[:, :1], np.s_[:]])  # an image, a class or channel, everything
@pytest.mark.parametrize(("name", "shape"), [("dist", LOGITS), ("pkd", FEATURES)])
def test_input_without_variation_has_finite_gradients(
    name: str, shape: tuple[int, ...], where: slice | tuple[slice, ...], constant: float
) -> None:
    varied, flat = normal(0, *shape).float(), normal(1, *shape).float()
    flat[where] = constant
    for student, teacher in ((varied, flat), (flat, varied), (flat, flat)):
        leaf = student.clone().requires_grad_()
        value = loss(name, leaf, teacher)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("constant", [0.0, 10.1])
def test_what_does_not_vary_is_uncorrelated_with_zero_gradient(constant: float) -> None:
    rows = torch.full((4, 128), constant, requires_grad=True)  # the mean of 128 times 10.1 is not 10.1 in float32
    for other in (normal(0, 4, 128).float(), rows.detach()):
        value = correlation(rows, other)
        assert torch.autograd.grad(value.sum(), rows)[0].count_nonzero() == 0
        assert value.count_nonzero() == 0


def settings_of(name: str, **changes: Any) -> Section | None:
    """Return the settings of the criterion ``name``: those above, at once at its full weight, with ``changes``."""
    model = CRITERIA[name].settings
    if model is None:
        return None
    at_once = {"warmup_epochs": 0} if "warmup_epochs" in model.model_fields else {}
    return model(**{**SETTINGS[name], **at_once, **changes})


def test_an_unknown_criterion_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown criterion 'l1'; known: kd, dkd, dist, pkd, mse"):
        Criterion("l1")


@every_loss
def test_a_criterion_is_its_loss_with_every_setting_filled_in(name: str, shape: tuple[int, ...]) -> None:
    (student, teacher), targets = pair(shape), ClassTargets(LABELS)
    expected = loss(name, student, teacher)
    assert Criterion(name).function is FUNCTIONS[name]
    assert Criterion(name, settings_of(name))(student, teacher, targets) == expected
    for key, value in SETTINGS.get(name, {}).items():
        assert Criterion(name, settings_of(name, **{key: 2 * value}))(student, teacher, targets) != expected


def test_the_parameters_file_has_the_settings_of_each_criterion_under_its_name() -> None:
    found = {name: type(settings) for name, settings in Losses()}
    assert found == {name: entry.settings for name, entry in CRITERIA.items() if entry.settings is not None}


@every_loss
def test_labels_matter_to_decoupled_distillation_only(name: str, shape: tuple[int, ...]) -> None:
    criterion, (student, teacher) = Criterion(name, settings_of(name)), pair(shape)
    values = [criterion(student, teacher, ClassTargets(labels)).item() for labels in (LABELS, (LABELS + 1) % 5)]
    assert (values[0] != values[1]) == (name == "dkd")


@every_loss
def test_steps_share_the_teacher_and_their_loss_is_the_mean(name: str, shape: tuple[int, ...]) -> None:
    criterion, targets, teacher = Criterion(name, settings_of(name)), ClassTargets(LABELS), normal(1, *shape)
    steps = normal(0, 3, *shape)
    expected = torch.stack([criterion(step, teacher, targets) for step in steps]).mean()
    torch.testing.assert_close(criterion(steps, teacher, targets), expected)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.05), (9, 0.5), (18, 0.95), (19, 1.0), (20, 1.0), (500, 1.0)])
def test_warm_up_grows_linearly_to_the_full_weight(epoch: int, factor: float) -> None:
    (student, teacher), targets = pair(LOGITS), ClassTargets(LABELS)
    for warmup_epochs, expected in ((20, factor), (0, 1.0)):
        criterion = Criterion("dkd", settings_of("dkd", warmup_epochs=warmup_epochs))
        criterion.set_epoch(epoch)
        torch.testing.assert_close(criterion(student, teacher, targets), expected * loss("dkd", student, teacher))


@every_loss
def test_any_criterion_can_have_a_warm_up(name: str, shape: tuple[int, ...]) -> None:
    """A setting of that name is not the function's."""
    (student, teacher), targets = pair(shape), ClassTargets(LABELS)
    settings = create_model("Settings", __base__=CRITERIA[name].settings or Section, warmup_epochs=(int, 4))
    criterion = Criterion(name, settings(**SETTINGS.get(name, {})))
    torch.testing.assert_close(criterion(student, teacher, targets), loss(name, student, teacher) / 4)
    criterion.set_epoch(3)
    torch.testing.assert_close(criterion(student, teacher, targets), loss(name, student, teacher))
