"""When a training, or what came out of it, is not to be trusted: named with the likely cause and the key to change."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.errors import GateError
from pipeline.tasks.classification.doubts import doubts
from pipeline.tasks.classification.training import CrossEntropy
from pipeline.tasks.training import Validation
from pipeline.training.batch_norms import keep_up_batch_norms
from pipeline.training.diagnosis import (
    early_warning,
    given_weights_warnings,
    require_finite,
    training_warnings,
    weak_teacher,
)
from pipeline.training.objective import Supervised
from pipeline.training.settings import Optimizer
from tests.toy_training import draft, run

CLASSES = ("cat", "dog", "owl", "pig")
KEY = "train_teacher.training"
SUPERVISION = CrossEntropy(CLASSES, 0.0)
FINE = Validation({"accuracy": 0.9}, 0.03, [])


def row(cross_entropy: float, epoch: int = 10) -> dict[str, Any]:
    return {"epoch": epoch, "loss": cross_entropy, "cross_entropy": cross_entropy}


def test_guessing_is_what_a_network_without_knowledge_costs() -> None:
    logits = torch.zeros(8, 4)
    labels = torch.arange(8) % 4
    assert nn.functional.cross_entropy(logits, labels).item() == pytest.approx(SUPERVISION.guess_loss)


@pytest.mark.parametrize(
    ("right", "wrong", "is_doubted"), [(25, 75, True), (33, 67, True), (34, 66, False), (90, 10, False)]
)
def test_an_accuracy_must_lie_two_standard_errors_above_that_of_answers_at_random(
    right: int, wrong: int, is_doubted: bool
) -> None:
    labels = np.arange(100) % 4  # at random: 25%, standard error 4.33%
    predicted = np.concatenate([labels[:right], (labels[right : right + wrong] + 1) % 4])
    found = doubts(predicted, labels, CLASSES)
    assert bool(found) == is_doubted
    if found:
        assert re.fullmatch(
            rf"has an accuracy of {right}.00% on 100 images, not clearly above that of its answers dealt out at random "
            r"\(2[45].\d\d%\)",
            found[0],
        )


def test_answers_dealt_out_at_random_are_doubted_as_often_as_chance_says() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [150, 40, 10])
    answers = np.repeat([0, 1, 2], [120, 60, 20])
    believed = np.mean([not doubts(generator.permutation(answers), labels, CLASSES) for _ in range(4000)])
    assert 0.01 < believed < 0.04, "two standard errors: about 2.3%"


def test_uneven_classes_do_not_make_a_good_network_doubtful() -> None:
    labels = np.repeat([0, 1], [95, 5])
    rare_ones_found = np.concatenate([np.zeros(86, int), np.ones(9, int), np.ones(4, int), np.zeros(1, int)])
    assert (rare_ones_found == labels).mean() < 0.95, "less often right than the frequent answer alone would be"
    assert doubts(rare_ones_found, labels, CLASSES) == []
    for perfect in (np.repeat([0, 1], [57, 3]), np.repeat([0, 1], [99, 1]), np.repeat([0, 1], [2, 2])):
        assert doubts(perfect, perfect, CLASSES) == []
    unrelated = np.roll(rare_ones_found, 50)
    assert doubts(unrelated, labels, CLASSES), "as many rare answers, on other images"


def test_what_knows_the_shares_alone_has_learned_nothing() -> None:
    """95 of 100 images are cats: that alone brings the cross-entropy from 0.69 to 0.20."""
    uneven = CrossEntropy(("cat", "dog"), 0.0, (95, 5))
    assert uneven.guess_loss == pytest.approx(-(0.95 * math.log(0.95) + 0.05 * math.log(0.05)))
    doubtful = FINE._replace(doubts=["answers 'cat' for each of 60 images"])
    line, _ = training_warnings([row(0.199)], doubtful, uneven, what="the student", key=KEY)
    assert line.startswith("the student has learned nothing (cross_entropy 0.199, guessing gives 0.1985)")
    assert early_warning(row(0.199, epoch=6), uneven, key=KEY, epochs=20) is not None
    assert early_warning(row(0.69, epoch=2), uneven, key=KEY, epochs=20) is None, "a fresh network has not diverged"
    balanced = CrossEntropy(("cat", "dog"), 0.0, (95, 5), balanced=True)
    assert balanced.guess_loss == pytest.approx(math.log(2))
    smoothed = CrossEntropy(("cat", "dog"), 0.2, (95, 5))
    targets, shares = torch.tensor([[0.9, 0.1]] * 95 + [[0.1, 0.9]] * 5), torch.tensor([0.86, 0.14])
    assert smoothed.guess_loss == pytest.approx(-(targets @ shares.log()).mean().item())


def test_one_answer_for_all_is_named() -> None:
    labels = np.arange(60) % 4
    assert doubts(np.full(60, 2), labels, CLASSES) == ["answers 'owl' for each of 60 images"]
    assert doubts(np.full(60, 2), np.full(60, 2), CLASSES) == []  # of one class alone nothing can be said


def test_a_good_training_has_no_warnings() -> None:
    assert training_warnings([row(0.3)], FINE, SUPERVISION, what="the teacher", key=KEY) == []


def test_a_loss_above_guessing_is_a_divergence() -> None:
    (line,) = training_warnings([row(393.0)], FINE, SUPERVISION, what="the teacher", key=KEY)
    assert line.startswith(
        "the training of the teacher has diverged (cross_entropy 393, guessing gives 1.386); lower train_teacher."
    )
    assert "train_teacher.training.optimizer.learning_rate" in line
    assert "train_teacher.training.clip_norm" in line


def test_a_loss_like_guessing_is_nothing_learned() -> None:
    doubtful = FINE._replace(doubts=["answers 'cat' for each of 60 images"])
    line, other = training_warnings([row(math.log(4))], doubtful, SUPERVISION, what="the teacher", key=KEY)
    assert line.startswith("the teacher has learned nothing")
    assert f"{KEY}.epochs" in line
    assert other == "the teacher answers 'cat' for each of 60 images"


@pytest.mark.parametrize(("loss", "cause"), [(0.2, "there are too few for this network"), (1.3, "train longer")])
def test_the_cause_of_a_doubt_depends_on_what_was_learned(loss: float, cause: str) -> None:
    (line,) = training_warnings([row(loss)], FINE._replace(doubts=["is bad"]), SUPERVISION, what="the teacher", key=KEY)
    assert line.startswith("the teacher is bad; ")
    assert cause in line


def test_images_that_sufficed_for_the_teacher_are_not_the_students_fault() -> None:
    doubtful = FINE._replace(doubts=["is bad"])
    (line,) = training_warnings([row(0.2)], doubtful, SUPERVISION, what="the student", key=KEY, teacher=FINE)
    assert "train longer" in line
    (line,) = training_warnings([row(0.2)], doubtful, SUPERVISION, what="the student", key=KEY, teacher=doubtful)
    assert "too few" in line


@pytest.mark.parametrize(
    ("epoch", "loss", "warns"),
    [(1, 50.0, False), (2, 50.0, True), (2, 1.40, False), (4, 1.40, False), (5, 1.40, True), (5, 1.2, False)],
)
def test_what_leads_nowhere_is_said_early(epoch: int, loss: float, warns: bool) -> None:
    line = early_warning(row(loss, epoch), SUPERVISION, key=KEY, epochs=20)
    assert (line is not None) == warns
    assert line is None or (line.startswith(f"epoch {epoch} of 20: ") and KEY in line)


def test_a_teacher_worse_than_its_student_is_named() -> None:
    student, teacher = Validation({"accuracy": 0.8}, 0.04, []), Validation({"accuracy": 0.6}, 0.05, [])
    line = weak_teacher(student, teacher, "accuracy", in_words="accuracy")
    assert line is not None
    assert "the teacher (accuracy 60.00%) is worse than its student (80.00%)" in line
    close = teacher._replace(scores={"accuracy": 0.72})  # 0.08 < 2 x sqrt(0.04² + 0.05²)
    assert weak_teacher(student, close, "accuracy", in_words="accuracy") is None
    assert weak_teacher(teacher, student, "accuracy", in_words="accuracy") is None


GIVEN = {"what": "the given teacher", "section": "train_teacher"}


def test_given_weights_at_chance_are_asked_for_their_classes() -> None:
    (line,) = given_weights_warnings(FINE._replace(doubts=["answers 'cat' for each of 60 images"]), **GIVEN)
    assert line.startswith("the given teacher answers 'cat'")
    assert "data.json" in line
    assert "train_teacher.mean" in line
    assert given_weights_warnings(FINE, **GIVEN) == []


def test_a_training_that_diverges_says_so_while_it_runs(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    wild = Optimizer(learning_rate=500.0, weight_decay=0.0)
    with caplog.at_level("WARNING"):
        run(tmp_path, epochs=8, optimizer=wild)
    found = [record.message for record in caplog.records if "toy.training.optimizer.learning_rate" in record.message]
    assert len(found) == 1, "once, and early"
    assert re.match("epoch [2-7] of 8: the training of the network has diverged", found[0])


@pytest.mark.parametrize(
    ("own", "num_steps", "momentum"),
    [(0.01, 96, 0.1), (0.01, 1000, 0.05), (0.01, 100_000, 0.01), (0.1, 96, 0.1), (0.3, 10, 0.3)],
)
def test_batch_norms_keep_up_with_a_short_training(own: float, num_steps: int, momentum: float) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, momentum=own))
    keep_up_batch_norms(network, num_steps=num_steps)
    assert network[1].momentum == pytest.approx(momentum)


def test_a_slow_network_is_of_use_after_a_short_training(tmp_path: Any) -> None:
    """A momentum of 0.001 leaves the statistics of a fresh network, with which the trained one guesses."""
    network = draft().network[0]
    network[1][1].momentum = 0.001
    _, rows = run(tmp_path, Supervised(network, supervision=CrossEntropy(("dark", "bright"), 0.0)), epochs=8)
    assert rows[-1]["val_accuracy"] > 0.95


def test_weights_that_the_last_step_broke_are_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    require_finite(network, key=KEY)
    for broken in (network[0].weight, network[1].running_var):
        kept = broken.detach().clone()
        with torch.no_grad():
            broken.view(-1)[0] = math.nan
        with pytest.raises(GateError, match=rf"not finite after its last step; lower {KEY}.optimizer.learning_rate"):
            require_finite(network, key=KEY)
        with torch.no_grad():
            broken.copy_(kept)
