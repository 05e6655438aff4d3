"""The order of a given teacher's classes: read from a file, and brought into that of the data."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.factory import build_classifier
from pipeline.core.errors import UserError
from pipeline.data.dataset import DataInfo
from pipeline.tasks.classification.class_names import find_classes, read_classes
from pipeline.tasks.classification.training import ClassificationTraining
from pipeline.training.settings import Training
from pipeline.training.teacher import build_teacher
from pipeline.training.teacher_settings import TrainTeacher

NAMES = ("ant", "bee", "cat")
INFO = DataInfo("classification", NAMES, (32, 32), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "none", "packed")
TASK = ClassificationTraining()
TAKEN = Training(epochs=0)


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    "content",
    [
        "cat\nant\nbee\n",
        "\ufeffcat\r\nant\r\n\r\nbee",
        ["cat", "ant", "bee"],
        {"2": "bee", "0": "cat", "1": "ant"},
        {"ant": 1, "bee": 2, "cat": 0},
        {"id2label": {"0": "cat", "1": "ant", "2": "bee"}, "architectures": ["x"]},
        {"class_to_idx": {"ant": 1, "bee": 2, "cat": 0}},
        {"classes": ["cat", "ant", "bee"], "image_size": [8, 8]},
        {"0": ["n1", "cat"], "1": ["n2", "ant"], "2": ["n3", "bee"]},
        "n00000001 cat, house cat\nn00000002 ant\nn00000003 bee, honey bee",
        [" CAT ", "Ant", "bee"],
    ],
)
def test_a_list_of_classes_is_read_in_every_usual_form(content: object, tmp_path: Path) -> None:
    path = written(tmp_path / "classes.txt", content)
    assert find_classes(NAMES, read_classes(path), path) == [1, 2, 0]


def test_names_are_compared_as_people_mean_them(tmp_path: Path) -> None:
    path = written(tmp_path / "c.json", ["cafe\u0301", "red_fox", "Red Fox", "polar-bear"])
    classes = read_classes(path)
    assert find_classes(["caf\u00e9", "Polar Bear"], classes, path) == [0, 3]
    assert find_classes(["red_fox", "Red Fox"], classes, path) == [1, 2]
    with pytest.raises(UserError, match=r"more than one of its classes may be 'red fox' of the data; spell it alike"):
        find_classes(["red fox"], classes, path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "names 0 classes"),
        ("cat\nant\ncat", "names 'cat' more than once"),
        ({"0": "cat", "2": "ant"}, "does not have each index from 0 on once"),
        ({"cat": 1, "ant": 1}, "does not have each index"),
        (["cat", ""], "class 1 is '', which is no name"),
        (["cat", {"a": 1}], "class 1 is .*, which is no name"),
        ("[1, 2", "is not valid JSON"),
        (["cat", "ant"], "has no class 'bee', which the data have; of its 2 the nearest: cat, ant"),
        (["cat", "ant", "beee"], "has no class 'bee', .* the nearest: beee"),
    ],
)
def test_a_faulty_list_is_answered_with_its_file_and_the_fault(content: object, words: str, tmp_path: Path) -> None:
    path = written(tmp_path / "classes.json", content)
    with pytest.raises(UserError, match=rf"^train_teacher.classes: .*classes.json: {words}"):
        find_classes(NAMES, read_classes(path), path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"caf\xe9\nb")
    with pytest.raises(UserError, match=r"is no text in UTF-8"):
        read_classes(tmp_path / "c.txt")


def given(tmp_path: Path, classes: object, num_classes: int, backbone: str = "resnet8_x0_25", **changes: Any) -> Any:
    """Return the teacher of three classes, and one of as many as ``classes`` whose weights it was given."""
    torch.manual_seed(3)
    whole = build_classifier(backbone=backbone, num_classes=num_classes, mean=INFO.mean, std=INFO.std)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    path = written(tmp_path / "classes.json", classes)
    settings = TrainTeacher(
        **{"backbone": backbone, "weights": str(tmp_path / "w.pth"), "classes": str(path), "training": TAKEN, **changes}
    )
    return build_teacher(settings, INFO, TASK).network.eval(), whole.eval()


TWO_HEADS = """
from torch import nn


class Net(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.mix = nn.Linear(3, 5)
        self.one, self.two = nn.Linear(5, n), nn.Linear(5, n)
        self.last = nn.BatchNorm1d(n)

    def forward(self, x):
        x = self.mix(x.mean((2, 3)))
        return self.last(self.one(x) + self.two(x))


def net(num_classes):
    return Net(num_classes)
"""


@torch.no_grad()
def test_all_layers_with_a_row_for_each_class_change_their_order(tmp_path: Path) -> None:
    """As the two classifiers of a distilled vision transformer; a hidden layer may be as wide by chance."""
    file, images = written(tmp_path / "net.py", TWO_HEADS), torch.rand(2, 3, 32, 32)
    for names in (["cat", "ant", "bee"], ["dog", "cat", "eel", "bee", "ant"]):
        teacher, whole = given(tmp_path, names, len(names), f"python:{file}:net")
        wanted = whole(images)[:, [names.index(name) for name in NAMES]]
        torch.testing.assert_close(teacher(images), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backbone", ["resnet8_x0_25", "mobilenet_v3_small", "squeezenet1_1"])
@torch.no_grad()
def test_the_outputs_of_a_teacher_come_into_the_order_of_the_data(backbone: str, tmp_path: Path) -> None:
    """Of as many classes, and of more than the data have."""
    images = torch.rand(2, 3, 32, 32)
    for names in (["cat", "ant", "bee"], ["dog", "cat", "eel", "bee", "ant"]):
        teacher, whole = given(tmp_path, names, len(names), backbone)
        wanted = whole(images)[:, [names.index(name) for name in NAMES]]
        torch.testing.assert_close(teacher(images), wanted, rtol=0, atol=1e-6)


def test_a_list_of_another_length_than_the_weights_is_refused_also_where_training_follows(tmp_path: Path) -> None:
    for training in (TAKEN, Training(epochs=20)):
        with pytest.raises(UserError, match=r"head.linear.weight: \(3, 16\) where \(4, 16\) is needed"):
            given(tmp_path, ["cat", "ant", "bee", "dog"], 3, training=training)


def test_classes_need_weights() -> None:
    with pytest.raises(ValueError, match=r"classes: got a file without weights"):
        TrainTeacher(classes="c.txt")
