"""Gates: what they measure, against independent derivations; what they let pass, and what they catch."""

import itertools
import math

import numpy as np
import pytest

from pipeline.core.errors import GateError
from pipeline.core.plain import read_plain
from pipeline.tasks.classification.task import Classification
from pipeline.tasks.gate import Gate, PlacedGate
from pipeline.tasks.parity import Parity, output_scale
from pipeline.tasks.significance import CHANCE, STANDARD_ERRORS, most_exceptions, share_error, standard_errors_above
from pipeline.tasks.verification import Reference, Verified, verify

TASK = Classification()
INT8 = Gate(max_difference=None, min_agreement=0.95, max_drop=0.01)


class Answers:
    """A runtime that returns ``logits`` for as many images as it is given."""

    input_dtype = "uint8"

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return {"logits": self.logits[: len(images)]}

    def describe(self) -> str:
        return "answers"


def test_a_bound_that_no_number_holds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^max_drop: got 10000.*, expected a number that is not so large"):
        read_plain(Gate, {"max_drop": 10**400})


def network(count: int, *, size: float = 10.0, classes: int = 5) -> np.ndarray:
    """Return float32 logits (count, classes) whose spread is ``size``."""
    return np.random.default_rng(0).normal(0, size, (count, classes)).astype(np.float32)


def judge(logits: np.ndarray, trained: np.ndarray, gate: Gate, labels: np.ndarray | None = None) -> Verified:
    right = trained.argmax(axis=1) if labels is None else labels
    known = Reference(TASK, np.zeros((len(trained), 3, 2, 2), np.uint8), {"labels": right}, {"logits": trained})
    return verify(
        Answers(logits), known, PlacedGate(gate, "export_onnx.gates.x", "do this"), what="x", batch_size=10**6
    )


def other_answers(trained: np.ndarray, count: int) -> np.ndarray:
    """Return ``trained`` with another answer for the first ``count`` images."""
    changed = trained.copy()
    changed[:count] = np.roll(changed[:count], 1, axis=1)
    return changed


def test_differences_are_shares_of_the_spread_of_an_images_own_outputs() -> None:
    reference = np.array([[3.0, -3.0], [1003.0, 997.0], [30.0, -30.0]])
    np.testing.assert_allclose(output_scale(reference), [3.0, 10.03, 30.0])
    moved = reference + np.array([[0.3, 0.0], [0.0, 0.0], [0.0, -0.6]])
    found = TASK.compare({"logits": moved}, {"logits": reference}, output_scale(reference))
    assert found.max_abs == pytest.approx(0.6)
    assert (found.difference, found.spread, found.agreement) == (pytest.approx(0.1), pytest.approx(10.03), 1.0)


def test_an_image_whose_outputs_lie_close_together_is_measured_by_the_usual_spread() -> None:
    reference = np.array([[2.0, -2.0], [0.0, 1e-9], [4.0, -4.0]])
    np.testing.assert_allclose(output_scale(reference), [2.0, 2.0, 4.0])


def test_outputs_that_are_all_zero_must_stay_so() -> None:
    zeros = np.zeros((4, 3), np.float32)
    assert judge(zeros, zeros, Gate()).parity == Parity(0.0, 0.0, 0.0, 1.0, 4)
    with pytest.raises(GateError, match=r"outputs differ by 1e-20"):
        judge(zeros + np.float32(1e-20), zeros, Gate())


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0, 1e5])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_fp32_passes_what_float32_rounds_at_any_size_of_the_outputs(size: float, offset: float) -> None:
    """A sum of 512 products, in float64 and in float32: what two exact implementations differ by."""
    generator = np.random.default_rng(1)
    features, weights = generator.normal(size=(300, 512)), generator.normal(size=(512, 5)) * size / math.sqrt(512)
    exact = (features @ weights + offset * size).astype(np.float32)
    other = np.zeros((300, 5), np.float32)
    for i in range(512):  # one after the other, the worst order
        other += features[:, i : i + 1].astype(np.float32) * weights[i : i + 1].astype(np.float32)
    found = judge(other + np.float32(offset * size), exact, Gate())
    assert found.parity.max_abs > 0


def test_the_last_digit_of_the_largest_logit_passes() -> None:
    """Of a network whose largest logit is 1,090, float32 itself is no finer than 0.000122."""
    trained = network(60, size=350)
    assert np.abs(trained).max() > 1000
    found = judge(np.nextafter(trained, np.float32(np.inf)), trained, Gate())
    assert found.parity.max_abs > 1e-4


def test_what_may_be_another_answer_is_counted_exactly() -> None:
    """Against the enumeration of all outcomes of few images, and the sum over binomial coefficients."""
    for count, share in itertools.product((1, 3, 8), (0.05, 0.3)):
        outcomes = itertools.product((0, 1), repeat=count)
        chances = [0.0] * (count + 1)
        for outcome in outcomes:
            wrong = sum(outcome)
            chances[wrong] += share**wrong * (1 - share) ** (count - wrong)
        most = most_exceptions(count, share)
        assert sum(chances[most + 1 :]) < CHANCE
        assert sum(chances[most:]) >= CHANCE
    for count, share in ((60, 0.001), (359, 0.005), (1000, 0.05)):
        most = most_exceptions(count, share)
        tail = [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
        assert sum(tail[most + 1 :]) < CHANCE <= sum(tail[most:])
    assert (most_exceptions(50_000, 0.0), most_exceptions(7, 1.0)) == (0, 7)
    assert most_exceptions(50_000, 0.05) == pytest.approx(2500 + 2 * math.sqrt(50_000 * 0.05 * 0.95), abs=2)


@pytest.mark.parametrize("count", [1, 16, 60, 359, 10_000])
def test_int8_neither_fails_by_one_image_nor_passes_blindly(count: int) -> None:
    trained = network(count)
    judge(other_answers(trained, 1), trained, INT8, labels=np.zeros(count, np.int64))
    most = most_exceptions(count, 0.05)
    if most < count:
        with pytest.raises(
            GateError, match=rf"^x, {count} images: {most + 1} of {count} images do not .* allowed are {most}: 95"
        ):
            judge(other_answers(trained, most + 1), trained, INT8)


def simulated_score(lost: int, gained: int, count: int, allowed: float) -> float:
    """Return how often a network that loses just what is allowed looks at least so bad, by simulation.

    Its gains are those that fit what was found best, found by trying them.
    """
    grid = np.linspace(0, min((1 - allowed) / 2, 0.5), 20_001)
    with np.errstate(divide="ignore"):
        kept = count - lost - gained
        likelihood = lost * np.log(grid + allowed) + kept * np.log(1 - 2 * grid - allowed)
        likelihood += gained * np.log(grid) if gained else 0
    gains = float(grid[np.argmax(likelihood)])
    drawn = np.random.default_rng(0).multinomial(count, [gains + allowed, gains, 1 - 2 * gains - allowed], 200_000)
    return float((drawn[:, 0] - drawn[:, 1] >= lost - gained).mean())


@pytest.mark.parametrize(
    ("lost", "gained", "count", "allowed"),
    [(9, 2, 359, 0.005), (14, 4, 1000, 0.0), (8, 0, 359, 0.005), (40, 10, 1000, 0.01), (5, 1, 60, 0.005)],
)
def test_the_standard_error_of_a_drop_agrees_with_simulated_test_splits(
    lost: int, gained: int, count: int, allowed: float
) -> None:
    above = standard_errors_above(lost, gained, count, allowed)
    normal = math.erfc(above / math.sqrt(2)) / 2
    simulated = simulated_score(lost, gained, count, allowed)
    # a sum of whole images against a smooth curve: half an image lies between them
    fewer = math.erfc(standard_errors_above(lost - 1, gained, count, allowed) / math.sqrt(2)) / 2
    assert normal <= simulated * 1.3
    assert simulated <= fewer * 1.3


def test_a_drop_without_allowance_is_mcnemars_test() -> None:
    for lost, gained in ((1, 0), (9, 1), (30, 20)):
        assert standard_errors_above(lost, gained, 500, 0.0) == pytest.approx(
            (lost - gained) / math.sqrt(lost + gained)
        )
    assert standard_errors_above(3, 3, 500, 0.0) == 0


@pytest.mark.parametrize("count", [16, 60, 359, 10_000])
def test_a_drop_fails_only_where_chance_does_not_explain_it(count: int) -> None:
    gate = Gate(max_difference=None, min_agreement=1e-9, max_drop=0.005)
    trained = network(count)
    assert judge(other_answers(trained, 1), trained, gate).drop == pytest.approx(1 / count)
    fails = next(n for n in range(count) if standard_errors_above(n, 0, count, 0.005) > STANDARD_ERRORS)
    assert fails / count > 0.005
    assert fails <= max(6, 0.01 * count)
    with pytest.raises(
        GateError, match=rf"lies .* below the trained network's 100.00% \({fails} images lost, 0 gained"
    ):
        judge(other_answers(trained, fails), trained, gate)


def test_what_is_lost_and_gained_alike_is_no_drop() -> None:
    trained, gate = network(400), Gate(max_difference=None, min_agreement=0.5, max_drop=0.0)
    labels = trained.argmax(axis=1)
    labels[:20] = np.roll(trained[:20], 1, axis=1).argmax(axis=1)  # wrong before, right after
    assert judge(other_answers(trained, 40), trained, gate, labels).drop == 0.0


def test_the_standard_error_of_an_accuracy_agrees_with_a_bootstrap() -> None:
    trained = network(200)
    labels = trained.argmax(axis=1)
    labels[:23] += 1
    found = judge(trained, trained, Gate(), labels % 5)
    right = (trained.argmax(axis=1) == labels % 5).astype(float)
    drawn = np.random.default_rng(0).choice(right, (20_000, 200)).mean(axis=1)
    assert found.standard_error == pytest.approx(drawn.std(), rel=0.03)
    assert found.standard_error == pytest.approx(share_error(found.scores["accuracy"], 200))


def test_messages_name_figure_bound_key_and_what_to_do() -> None:
    trained = network(100)
    cases = {
        "max_difference": (trained * 1.01, Gate()),
        "min_agreement": (other_answers(trained, 30), INT8),
        "max_drop": (other_answers(trained, 30), Gate(max_difference=None, min_agreement=0.01, max_drop=0.01)),
    }
    for bound, (logits, gate) in cases.items():
        with pytest.raises(
            GateError, match=rf"^x, 100 images: .*; allowed .* \(export_onnx.gates.x.{bound}\); do this$"
        ):
            judge(logits, trained, gate)
