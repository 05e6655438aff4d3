"""Given weights whose classes stand in another order, or whose images were normalised otherwise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.backbones.backbone import Backbone, Stage
from models.classifier import Classifier
from pipeline.data.dataset import DataInfo, Split
from pipeline.tasks.classification.class_order import better_order
from pipeline.tasks.classification.given_weights import check_given_classifier, usual_normalisations
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.training import GivenCheck
from workbench.bench import Bench
from workbench.project import write_params

Labels = NDArray[np.int64]
COUNTED = tuple(sorted(map(str, range(12))))
"""0, 1, 10, 11, 2: as folders are sorted."""


def answers(labels: Labels, order: Sequence[int], errors: float, seed: int = 0) -> Labels:
    """Return what a classifier answers whose output i stands for class ``order[i]``, with a share of ``errors``."""
    generator = np.random.default_rng(seed)
    right = np.argsort(order)[labels]
    wrong = generator.random(len(labels)) < errors
    return np.where(wrong, generator.integers(0, len(order), len(labels)), right)


def natural() -> list[int]:
    return [COUNTED.index(str(i)) for i in range(12)]


@pytest.mark.parametrize("errors", [0.0, 0.3, 0.6])
def test_the_natural_order_of_numbers_is_found_and_called_so(errors: float) -> None:
    labels = np.repeat(np.arange(12), 6)
    found = better_order(answers(labels, natural(), errors), labels, COUNTED)
    assert found is not None
    assert found.name == "the natural order of numbers (1, 2, 10)"
    assert [COUNTED[i] for i in found.classes] == [str(i) for i in range(12)]
    assert found.accuracy == pytest.approx(1 - errors, abs=0.15)


@pytest.mark.parametrize(
    ("names", "order", "name"),
    [
        (("a", "b", "c", "d"), [3, 2, 1, 0], "reversed order"),
        (("Bus", "Cat", "ant", "dog"), [2, 0, 1, 3], "the order without regard to case"),
        (("a", "b", "c", "d"), [1, 2, 3, 0], "another order"),
    ],
)
def test_other_orders_are_found(names: tuple[str, ...], order: list[int], name: str) -> None:
    labels = np.repeat(np.arange(4), 20)
    found = better_order(answers(labels, order, 0.2), labels, names)
    assert found is not None
    assert (found.name, found.classes.tolist()) == (name, order)


@pytest.mark.parametrize("errors", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("num_classes", [2, 5, 12])
def test_a_network_in_the_right_order_is_left_alone_however_weak_it_is(errors: float, num_classes: int) -> None:
    """Also where it only guesses: the order that fits such answers best fits them by chance."""
    labels = np.repeat(np.arange(num_classes), 12)
    names = [str(i) for i in range(num_classes)]
    found = [better_order(answers(labels, range(num_classes), errors, seed), labels, names) for seed in range(60)]
    assert sum(one is not None for one in found) <= 1


def test_images_of_a_few_of_very_many_classes_are_looked_at_in_a_moment() -> None:
    """A table of all classes would have 10 ** 10 entries."""
    names = [f"class {i:06}" for i in range(100_000)]
    labels = np.repeat([7, 70_000, 99_999], 20)
    found = better_order(np.repeat([70_000, 99_999, 7], 20), labels, names)
    assert found is not None
    assert {i: int(found.classes[i]) for i in (7, 70_000, 99_999, 8)} == {7: 99_999, 70_000: 7, 99_999: 70_000, 8: 8}


def test_a_few_images_do_not_prove_an_order() -> None:
    labels = np.arange(10)
    assert better_order(answers(labels, [*range(1, 10), 0], 0.0), labels, list("abcdefghij")) is None


class Mean(Backbone):
    """Keeps the images as their feature map."""

    widths = (3,)

    def eager_stages(self) -> Sequence[Stage]:
        return (nn.Identity(),)


class NearestMean(nn.Module):
    """Answers the class whose colour, as it is normalised in training, is nearest to that of the image."""

    def __init__(self, colours: Tensor) -> None:
        super().__init__()
        self.colours = colours

    def forward(self, features: Tensor) -> Tensor:
        return -torch.cdist(features.mean(dim=(2, 3)), self.colours)


COLOURS = torch.tensor([[0.1, 0.5, 0.9], [0.2, 0.4, 0.6], [0.5, 0.5, 0.5], [0.7, 0.2, 0.4], [0.9, 0.8, 0.2]])
INFO = DataInfo("classification", tuple("abcde"), (4, 4), (0.9, 0.1, 0.2), (0.1, 0.3, 0.9), "none", "packed")


def checked(
    name: str, mean: Sequence[float], std: Sequence[float], order: Sequence[int] = range(5)
) -> tuple[GivenCheck, float]:
    """Check a network trained with the normalisation ``name``, which is told to have ``mean`` and ``std``.

    Return what is found, and its accuracy on the images as it is.
    """
    way = next(way for way in usual_normalisations(INFO) if way.name == name)
    colours = way.apply(COLOURS[:, :, None, None])[:, :, 0, 0][list(order)]
    network = Classifier(Mean(), NearestMean(colours), mean=mean, std=std)
    labels = torch.arange(5).repeat_interleave(12)
    noise = 0.02 * torch.randn(60, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = ((COLOURS[labels][:, :, None, None] + noise).clamp(0, 1) * 255).round().to(torch.uint8)
    check = check_given_classifier(network, Split(images, ClassTargets(labels)), INFO, torch.device("cpu"))
    return check, check.figures["calib_accuracy"]


def test_a_good_network_is_scored_and_left_alone() -> None:
    assert checked("the normalisation of ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) == (
        GivenCheck({"calib_accuracy": 1.0}),
        1.0,
    )


@pytest.mark.parametrize("way", [way for way in usual_normalisations(INFO) if not way.is_bgr], ids=lambda way: way.name)
def test_a_usual_normalisation_that_makes_it_right_is_named(way: Any) -> None:
    check, accuracy = checked(way.name, (5.0, -3.0, 9.0), (0.02, 7.0, 0.5))
    assert accuracy < 0.3
    assert check.explanation is not None
    mean, std = ([round(value, 6) for value in values] for values in (way.mean, way.std))
    assert "100.00% on 60 calibration images" in check.explanation
    assert f"set train_teacher.mean: {mean} and train_teacher.std: {std}" in check.explanation
    assert not check.proposed_classes


def test_another_normalisation_and_another_order_at_once_are_both_named() -> None:
    order = [3, 0, 4, 1, 2]
    check, _ = checked("the normalisation of ImageNet", (5.0, -3.0, 9.0), (0.02, 7.0, 0.5), order)
    assert check.explanation is not None
    assert "set train_teacher.mean: [0.485, 0.456, 0.406]" in check.explanation
    assert check.proposed_classes == [INFO.class_names[i] for i in order]


def test_what_nothing_helps_is_said_to_be_so() -> None:
    network = Classifier(Mean(), NearestMean(torch.full((5, 3), 99.0)), mean=(0.0,) * 3, std=(1.0,) * 3)
    labels = torch.arange(5).repeat_interleave(12)
    split = Split(torch.zeros(60, 3, 4, 4, dtype=torch.uint8), ClassTargets(labels))
    check = check_given_classifier(network, split, INFO, torch.device("cpu"))
    assert check.explanation is None
    assert "neither a usual normalisation nor another order" in check.remark


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench with a teacher of the digits that is worth something."""
    folder = tmp_path_factory.mktemp("bench")
    bench = Bench(folder, lambda changes: write_params(folder / "params.yaml", changes))
    learning = {"prepare_data.max_train_images": None, "train_teacher.training.epochs": 4}
    for stage in ("prepare_data", "train_teacher"):
        result = bench.run(stage, learning)
        assert result.exit_code == 0, result.output
    return bench


def test_a_teacher_in_another_order_is_named_loudly_and_its_list_mends_it(bench: Bench) -> None:
    good = bench.json("teacher.json")["test_accuracy"]
    assert good > 0.8
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    weights = load_file(bench.folder / "teacher/model.safetensors")
    rows = {name: x[order].contiguous() if name.startswith("head") else x for name, x in weights.items()}
    save_file(rows, bench.folder / "given.safetensors")
    given = {"train_teacher.weights": str(bench.folder / "given.safetensors"), "train_teacher.training.epochs": 0}
    result = bench.teach(given)
    assert result.exit_code == 0, result.output
    assert "given weights: accuracy" in result.output
    report = bench.json("teacher.json")
    (warning,) = report["warnings"]
    assert report["test_accuracy"] < 0.5
    assert warning in result.output
    listed = warning.partition("the list: ")[2]
    (bench.folder / "classes.json").write_text(listed)
    result = bench.teach({**given, "train_teacher.classes": str(bench.folder / "classes.json")})
    assert result.exit_code == 0, result.output
    mended = bench.json("teacher.json")
    assert mended["test_accuracy"] == good
    assert mended["warnings"] == []
    (bench.folder / "wrong.json").write_text('["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]')
    bench.teach({**given, "train_teacher.classes": str(bench.folder / "wrong.json")})
    assert bench.json("teacher.json")["proposed_classes"] == [str(i) for i in order]


def test_a_list_of_classes_that_does_not_fit_is_one_line(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("one\ntwo\n")
    weights = str(bench.folder / "teacher/model.safetensors")
    changes = {"train_teacher.weights": weights, "train_teacher.training.epochs": 0}
    result = bench.teach({**changes, "train_teacher.classes": str(tmp_path / "c.txt")})
    assert result.exit_code == 2
    assert "error: train_teacher.classes: " in result.output
    assert "has no class '0', which the data have" in result.output
