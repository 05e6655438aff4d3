"""Figures of merit, parity, the choice of steps, and gates."""

import math

import numpy as np
import pytest
import torch

from models.deploy import PlainNetwork, SampledNetwork, with_each_num_steps
from models.factory import build_classifier
from models.students import build_flow_student
from pipeline.core.arrays import Outputs
from pipeline.core.errors import GateError
from pipeline.evaluation.step_calibration import StepScores, by_bound, by_score, choose_steps
from pipeline.networks.complexity import count_macs
from pipeline.tasks.base import Classes, Placement
from pipeline.tasks.classification.metrics import expected_calibration_error, score
from pipeline.tasks.classification.task import Classification
from pipeline.tasks.gate import Gate, PlacedGate
from pipeline.tasks.parity import Parity
from pipeline.tasks.table import get_task
from pipeline.tasks.verification import Reference, verify

LOGITS = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]], dtype=np.float32)
LABELS = np.array([0, 1, 1, 1])
TASK = Classification()
EXACT = PlacedGate(Gate(), "gates.fp32", "do something")
STATISTICS = {"mean": [0.5] * 3, "std": [0.25] * 3}


def test_scores_of_a_small_case_by_hand() -> None:
    found = score(LOGITS, LABELS)
    nlls = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(3)), math.log1p(math.exp(-0.5))]
    assert found.accuracy == 0.75
    assert found.nll == pytest.approx(sum(nlls) / 4)
    sigmoid = [1 / (1 + math.exp(-x)) for x in (2, 1, 3, 0.5)]
    gaps = [1 - sigmoid[0], 1 - sigmoid[1], sigmoid[2], 1 - sigmoid[3]]  # each in a bin of its own
    assert found.ece == pytest.approx(sum(gaps) / 4, abs=1e-6)


def test_calibration_error_weighs_bins_by_their_images() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.65])
    correct = np.array([True, True, True, False, False])
    expected = (4 * abs(0.75 - 0.95) + 1 * abs(0 - 0.65)) / 5
    assert expected_calibration_error(confidence, correct, 10) == pytest.approx(expected)
    assert expected_calibration_error(np.ones(3), np.ones(3, dtype=bool)) == 0


def test_extreme_logits_score_finitely() -> None:
    found = score(np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=np.float32), np.array([1, 1]))
    assert found.nll == pytest.approx(1e4)


def test_predictions_are_the_most_probable_first() -> None:
    images = [Placement(name, (8, 8), 1.0) for name in ("a.png", "b.png")]
    classes = Classes(("cat", "dog"))
    found = TASK.predictions(images, {"logits": LOGITS[:2]}, classes, top=2)
    assert [prediction.image for prediction in found] == ["a.png", "b.png"]
    assert [entry["label"] for entry in found[0].found["labels"]] == ["cat", "dog"]
    probability = 1 / (1 + math.exp(-2))
    assert found[0].found["labels"][0]["probability"] == round(probability, 6)
    assert found[0].text == f"cat {probability:.2%}, dog {1 - probability:.2%}"
    (only,) = TASK.predictions(images[:1], {"logits": LOGITS[:1]}, classes, top=1)
    assert only.text == f"cat {probability:.2%}"


def compare(logits: np.ndarray, reference: np.ndarray) -> Parity:
    outputs = {"logits": reference}
    return TASK.compare({"logits": logits}, outputs, TASK.scale(outputs))


@pytest.mark.parametrize("broken", [LOGITS[:2], np.full_like(LOGITS, np.nan)])
def test_incomparable_logits_fail(broken: np.ndarray) -> None:
    with pytest.raises(GateError, match=r"shape|not all finite"):
        compare(broken, LOGITS)


class Fixed:
    """A runtime that returns ``logits`` for as many images as it is given."""

    input_dtype = "uint8"

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits

    def infer(self, images: np.ndarray) -> Outputs:
        return {"logits": self.logits[: len(images)]}

    def describe(self) -> str:
        return "fixed"


KNOWN = Reference(TASK, np.zeros((4, 3, 8, 8), np.uint8), {"labels": LABELS}, {"logits": LOGITS})


def test_what_is_found_of_a_runtime() -> None:
    found = verify(Fixed(LOGITS), KNOWN, EXACT, what="onnx", batch_size=4, batch_sizes=[1, 3, 64])
    assert (found.scores["accuracy"], found.drop) == (0.75, 0.0)
    assert found.parity == Parity(0.0, 0.875, 0.0, 1.0, 4)
    assert set(found.by_batch) == {1, 3, 4}
    assert found.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


def curve(*accuracies: float) -> list[StepScores]:
    return [StepScores(2**i, {"accuracy": value}, 1) for i, value in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("accuracies", "tolerance", "expected"),
    [
        ((0.90, 0.91, 0.92), 0.0, 4),
        ((0.90, 0.91, 0.92), 0.01, 2),
        ((0.90, 0.91, 0.92), 0.05, 1),
        ((0.9, 0.9), 0.0, 1),
        ((6 / 200, 7 / 200), 0.005, 1),
    ],
)
def test_the_smallest_number_of_steps_within_the_tolerance_is_chosen(
    accuracies: tuple[float, ...], tolerance: float, expected: int
) -> None:
    points = curve(*accuracies)
    latency_ms = [9.0] * len(points)
    choice = choose_steps(points, by_score("accuracy", tolerance), latency_ms=latency_ms, max_latency_ms=None)
    assert choice.num_steps == expected
    assert "smallest number of steps" in choice.reason


def test_a_latency_budget_decides_only_where_it_is_set() -> None:
    points, latency = curve(0.8, 0.9, 0.95), [1.0, 2.0, 4.0]
    assert choose_steps(points, by_score("accuracy", 0), latency_ms=latency, max_latency_ms=None).num_steps == 4
    within = choose_steps(points, by_score("accuracy", 0), latency_ms=latency, max_latency_ms=2.5)
    assert within.num_steps == 2
    assert "2.5 ms" in within.reason
    with pytest.raises(GateError, match=r"max_latency_ms = 0.5 \(fastest: 1 ms\)"):
        choose_steps(points, by_score("accuracy", 0), latency_ms=latency, max_latency_ms=0.5)


def test_the_reason_calls_the_score_as_its_task_does_in_a_sentence() -> None:
    points = [StepScores(2**i, {"ap": 0.5}, 1) for i in range(2)]
    words = get_task("detection").primary_in_words
    choice = choose_steps(points, by_score("ap", 0, in_words=words), latency_ms=[1.0, 2.0], max_latency_ms=None)
    assert "with an AP within 0 points" in choice.reason


def test_the_bound_decides_by_its_gain_over_what_says_the_same_of_every_image() -> None:
    points = [StepScores(2**i, {"accuracy": 0.5}, 1, bound) for i, bound in enumerate((14.928, 14.823, 14.763))]
    chosen = {}
    for tolerance in (0.0, 0.01, 0.05):
        decider = by_bound(25.17, tolerance)  # the best gains 10.407 nats
        chosen[tolerance] = choose_steps(points, decider, latency_ms=[1.0] * 3, max_latency_ms=None)
    assert {tolerance: choice.num_steps for tolerance, choice in chosen.items()} == {0.0: 4, 0.01: 2, 0.05: 1}
    assert "14.82 against 14.76 nats at 4, 25.17 by the mean of its outputs" in chosen[0.01].reason


def test_the_gain_that_counts_is_the_best_that_the_budget_allows() -> None:
    points = [StepScores(2**i, {"accuracy": 0.5}, 1, bound) for i, bound in enumerate((9.3, 9.0, 2.0))]
    options = {"latency_ms": [1.0, 2.0, 9.0], "max_latency_ms": 5.0}
    choice = choose_steps(points, by_bound(10.0, 0.1), **options)  # gains of 0.7, 1 and 8 nats: 0.9 of 1 is asked for
    assert choice.num_steps == 2
    assert "9 against 9 nats at 2" in choice.reason
    worse = choose_steps(points[:2], by_bound(8.0, 0.5), latency_ms=[1.0, 2.0], max_latency_ms=None)
    assert worse.num_steps == 2, "where none gains, the best is the least bad"


def test_a_student_without_steps_has_one_candidate() -> None:
    plain = build_classifier(backbone="resnet8", num_classes=2, **STATISTICS)
    (only,) = with_each_num_steps(plain, [1, 2])
    assert isinstance(only, PlainNetwork)
    names = {"backbone": "resnet8", "schedule": "rectified", "meta_encoder": "conv"}
    sampled = build_flow_student(num_classes=2, time_scale=1.0, **names, **STATISTICS)
    candidates = with_each_num_steps(sampled, [4, 1, 4])
    assert all(isinstance(network, SampledNetwork) for network in candidates)
    assert [network.num_steps for network in candidates] == [1, 4]
    points = [StepScores(only.num_steps, {"accuracy": 0.9}, 1)]
    choice = choose_steps(points, by_score("accuracy", 0), latency_ms=[1.0], max_latency_ms=None)
    assert choice.num_steps is None
    assert choice.reason == "the method has no sampling steps"


def test_multiply_adds_of_a_convolution_and_a_linear_layer_by_hand() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 5, 7)
    )
    assert count_macs(network, (6, 5), torch.device("cpu")) == 6 * 5 * 4 * 3 * 9 + 4 * 6 * 5 * 7
