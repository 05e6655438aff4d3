"""YOLO's files, as tools really write them."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.data.objects import Objects
from pipeline.data.reading import Fit
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES
from pipeline.data.sources.yolo import open_yolo
from pipeline.data.splits import ImageSource
from tests.detection_files import HEIGHT, WIDTH, held, write_images
from tests.helpers import make_archive

NAMES = "names:\n  0: cat\n  1: dog\n"


def opened(root: Path) -> ImageSource:
    with open_yolo(root, False) as source:  # noqa: FBT003  (signature of Open)
        return source


def train(root: Path) -> Objects:
    found = opened(root).splits["train"].objects
    assert found is not None
    return found


def state(root: Path) -> str:
    return SOURCES["yolo"].state(PrepareData(source="yolo", root=str(root)))


def yolo_set(root: Path, *labels: str | bytes | None, text: str = f"train: images/train\n{NAMES}") -> Path:
    """Write a set with one training image for each of ``labels``; None: it has no file of labels."""
    write_images(root / "images/train", [f"{number}.png" for number in range(len(labels))])
    (root / "labels/train").mkdir(parents=True)
    for number, content in enumerate(labels):
        if content is not None:
            data = content.encode() if isinstance(content, str) else content
            (root / f"labels/train/{number}.txt").write_bytes(data)
    (root / "data.yaml").write_text(text)
    return root


def test_parts_of_the_image_become_pixels(tmp_path: Path) -> None:
    source = opened(yolo_set(tmp_path, "1 0.5 0.5 0.5 0.2\n0 0.25 0.5 0.1 1\n", ""))
    assert source.class_names == ("cat", "dog")
    assert source.category_ids == (0, 1)
    found = source.splits["train"].objects
    assert found is not None
    np.testing.assert_allclose(found.boxes, [[10, 12, 30, 18], [8, 0, 12, 30]])
    np.testing.assert_allclose(found.areas, [20 * 6, 4 * 30])
    assert found.categories.tolist() == [1, 0]
    assert found.offsets.tolist() == [0, 2, 2]
    assert found.sizes.tolist() == [[HEIGHT, WIDTH]] * 2
    assert not found.ignored.any()
    assert source.passed_over == {}


def test_images_without_labels_have_no_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert train(yolo_set(tmp_path / "a", "0 0.5 0.5 1 1", None)).offsets.tolist() == [0, 1, 1]
    assert "train: 1 image(s) without a file of labels are taken to have no objects: " in caplog.text
    with pytest.raises(
        UserError, match=r"none of its 2 images has a file of labels; looked for is .*labels/train/0\.txt"
    ):
        opened(yolo_set(tmp_path / "b", None, None))


def test_an_outline_has_the_box_around_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = train(yolo_set(tmp_path, "0 0.1 0.2 0.5 0.6 0.3 0.9\n1 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"))
    np.testing.assert_allclose(found.boxes, [[4, 6, 20, 27], [4, 3, 20, 15]])
    assert "2 outline(s): the box is that of the outline" in caplog.text


def test_points_of_a_body_are_left_alone(tmp_path: Path) -> None:
    text = f"train: images/train\nkpt_shape: [1, 3]\n{NAMES}"
    found = train(yolo_set(tmp_path, "0 0.5 0.5 0.5 0.2 0.9 0.9 2\n", text=text))
    np.testing.assert_allclose(found.boxes, [[10, 12, 30, 18]])


def test_lines_may_come_from_windows(tmp_path: Path) -> None:
    assert train(
        yolo_set(tmp_path, b"\xef\xbb\xbf0 0.5 0.5 0.5 0.2\r\n\r\n1.0 0.5 0.5 0.5 0.2\r\n")
    ).categories.tolist() == [
        0,
        1,
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0.5 0.5 0.1 0.1", r"line 2: is of class '2', which names of .*data\.yaml does not have; it has 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "line 2: is of class '-1'"),
        ("0.5 0.5 0.5 0.1 0.1", "line 2: is of class '0.5'"),
        ("cat 0.5 0.5 0.1 0.1", "line 2: has 'cat', expected a number"),
        ("0 0.5 nan 0.1 0.1", "line 2: has nan, expected a finite number"),
        ("0 0.5 inf 0.1 0.1", "line 2: has inf, expected a finite number"),
        ("0 0.5 0,5 0.1 0.1", "line 2: has '0,5', expected a number"),
        ("0 20 15 8 6", "line 2: has values outside of 0 to 1"),
        ("0 0.5 0.5 -0.001 0.1", "line 2: has a negative width or height"),
        ("0 0.5 0.5 0.1", "line 2: has 4 numbers; expected are"),
        ("0", "line 2: has 1 numbers; expected are"),
        ("0 0.5 0.5 0.1 0.1 0.9", "line 2: has 6 numbers; expected are"),
    ],
)
def test_what_a_line_cannot_be_is_named(line: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"labels/train/0\.txt: {words}"):
        opened(yolo_set(tmp_path, f"0 0.5 0.5 0.1 0.1\n{line}\n"))


def test_labels_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labels/train/0\.txt: is no text in UTF-8"):
        opened(yolo_set(tmp_path, b"\xff\xfe0\x00"))


def test_boxes_at_and_over_the_edge(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = "0 0.999999 0.5 0.000004 1\n0 1 0.5 0.5 0.5\n0 0.5 0.5 0 0.5\n"
    found = train(yolo_set(tmp_path, lines))
    np.testing.assert_allclose(found.boxes[1], [30, 7.5, 40, 22.5])
    assert found.boxes.max() <= WIDTH
    assert "train: 1 box(es) reach over the edge" in caplog.text
    assert "train: 1 box(es) without width or height are left out: " in caplog.text
    assert "labels/train/0.txt, line 3" in caplog.text


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [cat, dog]", ("cat", "dog")),
        ("names: ['no', yes]", ("no", "yes")),
        ("names: [no, 08]\nnc: 2", ("no", "08")),
        ("names: {4: dog, 0: cat}", ("cat", "dog")),
    ],
)
def test_names_are_texts_as_they_stand_there(text: str, names: tuple[str, ...], tmp_path: Path) -> None:
    root = yolo_set(tmp_path, "0 0.5 0.5 0.1 0.1", text=f"train: images/train\n{text}\n")
    assert opened(root).class_names == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"train: images/trian\n{NAMES}", "train is 'images/trian', which is not below"),
        (f"train: [images/train, 7]\n{NAMES}", "train is '7', which is not below"),
        (f"train: ../../../..\n{NAMES}", r"train is '\.\./\.\./\.\./\.\.', which is not below"),
        (f"train: /etc\n{NAMES}", "train is '/etc', which is not below"),
        (f"val: images/train\n{NAMES}", "does not say where the images of train are"),
        ("train: images/train", "has no names of classes"),
        ("[a, b]", "has no names of classes"),
        ("train: images/train\nnames: 7", "names is '7', expected a list"),
        ("train: images/train\nnames: {a: cat}", "names has 'a': 'cat', expected a number and a class"),
        ("train: images/train\nnames: [cat, '']", "names has '1': '', expected a number and a class"),
        ("train: images/train\nnames: [cat, cat]", "names has 'cat' twice"),
        ("train: images/train\nnames: [cat, dog]\nnc: 3", "nc is '3', but names has 2 classes"),
        ("train: [images/train", "is no YAML in UTF-8"),
        (f"train: images/train\ntest: gone.txt\n{NAMES}", "test is 'gone.txt', which is not below"),
    ],
)
def test_what_data_yaml_cannot_say_is_named_before_any_stage(text: str, words: str, tmp_path: Path) -> None:
    root = yolo_set(tmp_path, "0 0.5 0.5 0.1 0.1", text=text)
    for look in (opened, state):
        with pytest.raises(UserError, match=rf"data\.yaml: {words}"):
            look(root)


def test_a_folder_without_data_yaml_is_told_what_is_looked_for(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png"])
    with pytest.raises(UserError, match=r"holds no \.yaml file; expected is a data\.yaml with names, train and val"):
        state(tmp_path)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(f"train: .\n{NAMES}")
    with pytest.raises(UserError, match=r"a\.yaml and .*b\.yaml could both describe the data"):
        state(tmp_path)


@pytest.mark.parametrize(
    "train_text",
    [
        "path: ../datasets/coco8\ntrain: images/train",
        "path: /content/set\ntrain: images/train",
        "path: images\ntrain: train",
        "train: ../images/train",
        "train: ./images\\train",
        "train: [images/train]",
        "train: train.txt",
    ],
)
def test_paths_may_count_from_where_tools_let_them(train_text: str, tmp_path: Path) -> None:
    root = yolo_set(tmp_path / "set", "0 0.5 0.5 0.1 0.1", text=f"{train_text}\n{NAMES}")
    (root / "train.txt").write_text("./images/train/0.png\r\n\n")
    assert opened(root).splits["train"].names == ["images/train/0.png"]
    assert set(opened(make_archive(root, "zip")).splits) == {"train"}


def test_an_absolute_path_below_the_root_is_found(tmp_path: Path) -> None:
    root = yolo_set(tmp_path, "0 0.5 0.5 0.1 0.1", text=f"path: {tmp_path.absolute()}\ntrain: images/train\n{NAMES}")
    assert opened(root).splits["train"].names == ["images/train/0.png"]


def test_splits_may_stand_outside(tmp_path: Path) -> None:
    """Roboflow's layout: the split's folder is around images and labels."""
    for split in ("train", "valid", "test"):
        write_images(tmp_path / split / "images", ["1.png"])
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels/1.txt").write_text("0 0.5 0.5 0.1 0.1")
    text = f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n{NAMES}"
    (tmp_path / "data.yaml").write_text(text)
    source = opened(tmp_path)
    assert {name: list(split.names) for name, split in source.splits.items()} == {
        "train": ["train/images/1.png"],
        "calib": ["valid/images/1.png"],
        "test": ["test/images/1.png"],
    }


def test_what_a_list_of_images_cannot_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = yolo_set(tmp_path, "0 0.5 0.5 0.1 0.1", text=f"train: train.txt\n{NAMES}")
    (root / "train.txt").write_text("images/train/0.png\nimages/train/0.png\n")
    assert opened(root).splits["train"].names == ["images/train/0.png"]
    assert "train: 1 image(s) are listed twice and read once" in caplog.text
    (root / "train.txt").write_text("images/train/0.png\nimages/train/7.png\n")
    with pytest.raises(UserError, match=r"train\.txt: line 2 names 'images/train/7\.png', which is no image below"):
        opened(root)


def test_labels_of_a_held_camera_are_of_the_image_as_it_is_shown(tmp_path: Path) -> None:
    root = yolo_set(tmp_path, "0 0.5 0.5 0.1 0.1")
    (root / "images/train/0.png").unlink()
    (root / "images/train/0.jpg").write_bytes(held(40, 30, 6, (0, 0, 1, 1)))
    found = train(root)
    assert found.sizes.tolist() == [[40, 30]]
    np.testing.assert_allclose(found.boxes, [[13.5, 18, 16.5, 22]])


def test_a_damaged_image_is_told_when_it_is_read(tmp_path: Path) -> None:
    root = yolo_set(tmp_path, "0 0.5 0.5 0.1 0.1", "1 0.5 0.5 0.1 0.1")
    (root / "images/train/1.png").write_bytes(b"")
    first, second = opened(root).splits["train"].read(np.arange(2), Fit())
    assert not isinstance(first, UserError)
    assert isinstance(second, UserError)


def test_the_fingerprint_follows_labels(tmp_path: Path) -> None:
    root = yolo_set(tmp_path, "0 0.5 0.5 0.1 0.1")
    before = state(root)
    (root / "labels/train/0.txt").write_text("0 0.5 0.5 0.1 0.25")
    assert state(root) != before


def test_images_and_labels_beside_the_splits_are_counted(tmp_path: Path) -> None:
    root = yolo_set(tmp_path, "0 0.5 0.5 0.1 0.1")
    write_images(root / "images/spare", ["1.png"])
    (root / "labels/train/other.txt").write_text("")
    assert opened(root).passed_over == {".txt": 1, "image(s) that no annotations name": 1}
