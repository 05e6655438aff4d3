"""What prepare_data says of the data at its end."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pipeline.data.dataset import read_info
from tests.helpers import SPLIT_LAYOUT, fill_folder, image_bytes

Prepare = Callable[..., Result]


def about(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "out/data.json").read_text())
    return content


def test_the_table_shows_each_class_and_split(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(
        tmp_path / "images", {"train/cat": 40, "train/a long name": 25, "test/cat": 3, "test/a long name": 4}
    )
    (images / "train/cat/000.png").write_bytes(image_bytes(size=(30, 20)))
    (images / "test/cat/000.png").write_bytes(b"")
    lines = prepare(images, image_size=6, unreadable="skip").output.splitlines()
    start = lines.index("class        train  calib  test")
    assert lines[start + 2 : start + 7] == [
        "a long name     21      4     4",
        "cat             34      6     2",
        "all 2           55     10     6",
        "left out, since they cannot be read: 1 test",
        "original sizes of 55 training images: 8 x 6 to 30 x 20, median 8 x 6",
    ]
    assert read_info(tmp_path / "out").class_counts == (21, 34)
    facts = about(tmp_path)
    assert facts["class_counts"] == {"train": [21, 34], "calib": [4, 6], "test": [4, 2]}
    assert facts["original_sizes"] == {"smallest": [8, 6], "median": [8, 6], "largest": [30, 20], "num_images": 55}


def test_of_many_classes_the_smallest_and_the_largest_are_shown(prepare: Prepare, tmp_path: Path) -> None:
    layout = {f"class {number:02}": 3 + number % 5 for number in range(25)}
    lines = prepare(fill_folder(tmp_path / "images", layout)).output.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("class "))
    table = lines[start + 2 : lines.index(next(line for line in lines if line.startswith("all 25")))]
    assert len(table) == 21
    assert table[10].strip() == "... 5 classes ..."
    trained = [int(line.split()[2]) for line in table if "..." not in line]
    assert trained == sorted(trained)


def test_images_of_training_in_test_are_counted_and_named(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT | {"val/cat": 1, "val/dog": 1})
    shutil.copy(images / "train/cat/003.png", images / "test/dog/copy.png")
    shutil.copy(images / "train/cat/005.png", images / "val/cat/copy.png")
    (images / "test/cat/again.png").write_bytes((images / "train/dog/007.png").read_bytes())
    output = prepare(images).output
    assert (
        "test: 2 of 9 images are in train or calib too, which makes its scores too good: test/cat/again.png is "
        "train/dog/007.png, test/dog/copy.png is train/cat/003.png; keep each in one split\n"
    ) in output
    assert "calib: 1 of 3 images are in train too" in output
    assert about(tmp_path)["shared_images"] == {"test": 2, "calib": 1}


def test_images_in_several_classes_are_counted(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT | {"val/cat": 1, "val/dog": 1})
    shutil.copy(images / "train/cat/003.png", images / "train/dog/copy.png")
    shutil.copy(images / "train/cat/003.png", images / "train/cat/copy.png")
    shutil.copy(images / "train/dog/003.png", images / "train/dog/again.png")
    assert "train: 1 image(s) are in more than one class; keep each in one\n" in prepare(images).output
    assert about(tmp_path)["images_in_several_classes"] == 1


def test_small_and_uneven_classes_are_named(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"cat": 400, "dog": 30, "owl": 5, "elk": 8})
    output = prepare(images).output
    assert "train: 2 class(es) have fewer than 20 images, add some if you can: owl 3, elk 5\n" in output
    assert "train: the largest class has 91 times the images of the smallest" in output
    assert "set class_weights to balanced in train_teacher.training and distill_student.training" in output


@pytest.mark.parametrize("storage", ["packed", "index"])
def test_other_files_beside_the_images_change_no_output(storage: str, prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    contents = []
    for number in range(2):
        assert prepare(images, storage=storage, image_size=6).exit_code == 0
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
        (images / f"train/notes {number}.txt").write_text("x")
    assert contents[0] == contents[1]


def test_few_images_to_judge_by_are_named(prepare: Prepare, tmp_path: Path) -> None:
    few = fill_folder(tmp_path / "few", {"train/cat": 40, "train/dog": 40, "test/cat": 4, "test/dog": 30})
    assert "test: 1 class(es) have fewer than 5 images to judge by" in prepare(few).output
    enough = fill_folder(tmp_path / "enough", {"train/cat": 40, "train/dog": 40, "test/cat": 5, "test/dog": 5})
    assert "to judge by" not in prepare(enough).output
