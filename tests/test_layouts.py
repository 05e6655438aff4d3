"""Folders of images as people have them: splits and classes are told by what they hold."""

import os
import shutil
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from pipeline.core.errors import UserError
from pipeline.data.dataset import read_info, read_names
from pipeline.data.sources.image_folder import open_image_folder
from pipeline.data.sources.split_names import split_role
from pipeline.data.splits import ImageSource
from tests.helpers import SPLIT_LAYOUT, fill_folder, image_bytes, refused

Prepare = Callable[..., Result]
Layout = dict[str, int]


def opened(root: Path) -> ImageSource:
    """Return what there is at ``root``, a directory."""
    with open_image_folder(root, False) as source:  # noqa: FBT003  (nothing to download)
        return source


def counts(source: ImageSource) -> dict[str, list[int]]:
    """Return the number of images of each class, by split."""
    found = {
        name: np.bincount(split.categories, minlength=len(source.class_names)) for name, split in source.splits.items()
    }
    return {name: numbers.tolist() for name, numbers in found.items()}


def numbered(prefixes: tuple[str, ...], count: int = 2) -> Layout:
    return {f"{prefix}/{name}": count for prefix in prefixes for name in ("cat", "dog")}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("seg_train", "train"),
        ("cats-TRAIN", "train"),
        ("train2017", "train"),
        ("training_set", "train"),
        ("imagesTrain", "train"),
        ("valid", "val"),
        ("my validation", "val"),
        ("val_images", "val"),
        ("eval", "val"),
        ("test", "test"),
        ("testing", "test"),
        ("test1", "test"),
        ("trains", None),
        ("train_station", None),
        ("contest", None),
        ("train_val", None),
        ("42", None),
        ("___", None),
        ("TestSet", "test"),
        ("traindata", "train"),
        ("calib", "val"),
    ],
)
def test_names_of_splits(name: str, role: str | None) -> None:
    assert split_role(name) == role


@pytest.mark.parametrize(
    "layout",
    [
        numbered(("train", "test")),
        numbered(("Train", "TEST")),
        numbered(("train", "valid")),
        numbered(("training_set/training_set", "test_set/test_set")),
        numbered(("seg_train/seg_train", "seg_test/seg_test")) | {"seg_pred/seg_pred": 3},
        numbered(("train", "test")) | {"unlabeled": 3},
        numbered(("data/scenes/train", "data/scenes/test")),
        {"train/cat": 2, "train/dog/old": 1, "train/dog/new": 1, "test/cat/old": 2, "test/dog": 2},
        {"cat/train": 2, "cat/test": 2, "dog/train": 2, "dog/test": 2},
    ],
)
def test_splits_are_folders_of_class_folders(layout: Layout, tmp_path: Path) -> None:
    source = opened(fill_folder(tmp_path / "images", layout))
    assert source.class_names == ("cat", "dog")
    assert counts(source) == {"train": [2, 2], "test": [2, 2]}


@pytest.mark.parametrize("name", ["valid", "validation", "Val", "dev"])
def test_validation_beside_test_is_for_calibration(name: str, tmp_path: Path) -> None:
    source = opened(fill_folder(tmp_path / "images", numbered(("train", "test"), 3) | numbered((name,), 1)))
    assert counts(source) == {"train": [3, 3], "test": [3, 3], "calib": [1, 1]}


@pytest.mark.parametrize(
    ("layout", "classes"),
    [
        ({"bus": 2, "car": 2, "train": 2, "truck": 2}, ("bus", "car", "train", "truck")),
        ({"vehicles/bus": 2, "vehicles/train": 2}, ("bus", "train")),
        ({"bus/red": 1, "bus/blue": 1, "train": 2}, ("bus", "train")),
        ({"train/bus": 2, "train/train": 2}, ("bus", "train")),
    ],
)
def test_a_class_may_be_called_train(layout: Layout, classes: tuple[str, ...], tmp_path: Path) -> None:
    source = opened(fill_folder(tmp_path / "images", layout))
    assert source.class_names == classes
    assert counts(source) == {"train": [2] * len(classes)}


@pytest.mark.parametrize("name", ["test", "test1", "seg_pred", "unlabelled"])
def test_images_without_classes_beside_splits_are_not_used(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = opened(fill_folder(tmp_path / "images", numbered(("train",)) | {name: 5}))
    assert counts(source) == {"train": [2, 2]}
    assert f"images/{name}: its 5 image(s) have no class folders and are not used" in caplog.text
    assert source.passed_over == {f"images in {name}, which has no class folders": 5}


def test_images_beside_class_folders_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = fill_folder(tmp_path / "images", numbered(("train", "test")) | {".": 3, "train": 1})
    assert counts(opened(images)) == {"train": [2, 2], "test": [2, 2]}
    assert f"{images}: 3 image(s) in no class folder are not used" in caplog.text
    assert f"{images}/train: 1 image(s) in no class folder are not used" in caplog.text


def test_folders_without_images_beside_splits_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = fill_folder(tmp_path / "images", numbered(("train", "test")))
    (images / "annotations").mkdir()
    (images / "annotations/a.xml").write_text("<a/>")
    (images / "val").mkdir()
    source = opened(images)
    assert counts(source) == {"train": [2, 2], "test": [2, 2]}
    assert source.passed_over == {".xml": 1}
    assert f"{images}/val: holds no images, so it is not used" in caplog.text


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"train": 2, "test": 2}, "train are called like splits but hold images and no class folders"),
        ({"train": 2, "test": 2, "bus": 2}, "are called like splits but hold images and no class folders"),
        (numbered(("train", "cats_train")), "cats_train, train could both be the train split"),
        (
            {"train/steam": 2, "train/diesel": 2, "bus": 2},
            "images/bus: holds images, and train beside it class folders",
        ),
        (numbered(("train", "test", "copies")), "images/copies: holds images, and test, train beside it class folders"),
        (numbered(("test", "val")), "has test, val but no train folder"),
        (
            {"fold1/train/a": 1, "fold1/train/b": 1, "fold2/train/a": 1, "fold2/train/b": 1},
            "fold1, fold2 hold splits each",
        ),
        (
            {"train/images": 2, "valid/images": 2},
            "train, valid are called like splits but hold images and no class folders",
        ),
        ({".": 4}, "holds 0 class folder(s), beside 4 image(s) in no folder"),
        ({"only": 4}, "holds 1 class folder(s)"),
        ({"train": 4}, "holds 1 class folder(s)"),
    ],
)
def test_what_can_be_understood_in_two_ways_is_refused(layout: Layout, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        opened(fill_folder(tmp_path / "images", layout))
    assert words in str(caught.value)
    assert any(how in str(caught.value) for how in ("expected <class>/<images>, or train/<class>", "give one of them"))


def test_equal_folders_in_all_classes_are_remarked_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert opened(fill_folder(tmp_path / "images", numbered(("part1", "part2")))).class_names == ("part1", "part2")
    assert "part1, part2 are taken as the classes; each holds the same folders (cat, dog)" in caplog.text


def test_class_names_are_compared_as_people_read_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    layout = {f"train/{decomposed}": 3, "train/Bar": 3, f"test/{composed}": 2, "test/bar": 1}
    source = opened(fill_folder(tmp_path / "images", layout))
    assert source.class_names == ("Bar", composed)
    assert counts(source) == {"train": [3, 3], "test": [1, 2]}
    assert "test/bar: taken as class 'Bar', as training calls it" in caplog.text


def test_a_class_that_test_lacks_is_named(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {**SPLIT_LAYOUT, "train/horse": 9})
    (images / "test/horse").mkdir()
    result = prepare(images)
    assert result.exit_code == 0
    assert "test: has no image of 1 class(es): horse" in result.output


@pytest.mark.parametrize(
    "name",
    [
        "lost+found",
        "@eaDir",
        ".ipynb_checkpoints",
        "__pycache__",
        "__MACOSX",
        "$RECYCLE.BIN",
        "System Volume Information",
    ],
)
def test_folders_of_systems_are_passed_over(name: str, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"cat": 3, "dog": 3, name: 1, f"cat/{name}/000.png": 1})
    for place in (images, images / "dog"):
        (place / "Thumbs.db").write_bytes(image_bytes())
        (place / "desktop.ini").write_text("x")
    source = opened(images)
    assert counts(source) == {"train": [3, 3]}
    assert sum(source.passed_over.values()) == 6


def test_a_link_to_a_folder_above_multiplies_nothing(tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "all/images", {"cat": 3, "dog": 2})
    fill_folder(tmp_path / "all/others", {"x": 5})
    for number, target in enumerate(("..", "../..", "../dog", ".")):
        (images / f"cat/0{number}").symlink_to(target)
    source = opened(images)
    assert counts(source) == {"train": [3, 2]}
    assert source.passed_over == {"link(s) to a folder that is read already": 4}


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"cat": 1, "dog": 1, "dog/" + "a/" * 300: 1})
    with pytest.raises(UserError, match=r"images: holds folders in each other, more than 200 deep"):
        opened(images)


def test_class_folders_and_files_may_be_links(tmp_path: Path) -> None:
    real = fill_folder(tmp_path / "real", {"a": 3, "b": 2, "b/more": 1})
    images = tmp_path / "images"
    images.mkdir()
    (images / "cat").symlink_to(real / "a")
    (images / "dog").mkdir()
    for file in sorted((real / "b").glob("*.png")):
        (images / "dog" / file.name).symlink_to(file)
    (images / "dog/more").symlink_to(real / "b/more")
    (images / "dog/broken.png").symlink_to(tmp_path / "nowhere")
    (images / "dog/itself.png").symlink_to("itself.png")
    source = opened(images)
    assert counts(source) == {"train": [3, 3]}
    assert source.passed_over == {"link(s) that lead nowhere": 2}


def test_only_plain_files_are_opened(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    os.mkfifo(images / "train/cat/pipe.png")
    os.mkfifo(images / "train/pipe")
    (images / "train/dog/zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(images / "test/cat/socket.png"))
        result = prepare(images)
    assert result.exit_code == 0
    assert "passed over: 4 no plain files (pipes, sockets, devices)\n" in result.output


def test_images_are_told_by_what_they_hold(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"cat": 8, "dog": 4})
    for number, name in enumerate(("a.jfif", "b.JPG", "c", "d.dat", "e.jpg.download")):
        (images / "dog" / name).write_bytes(image_bytes(kind="JPEG", seed=50 + number))
    (images / "dog/notes.txt").write_text("BMW and P1 cars")
    (images / "dog/film.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isomiso2")
    (images / "dog/empty").write_bytes(b"")
    (images / "dog/camera.nef").write_bytes(image_bytes(kind="TIFF"))
    result = prepare(images)
    assert result.exit_code == 0
    assert read_info(tmp_path / "out").class_counts == (5, 6)
    assert "passed over: 1 .mp4, 1 .nef, 1 .txt, 1 without a suffix\n" in result.output


@pytest.mark.parametrize("data", [b"", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<html>not found</html>", image_bytes()[:40]])
def test_what_claims_to_be_an_image_and_is_none_is_a_fault(data: bytes, prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    (images / "train/cat/005.jfif").write_bytes(data)
    refused(prepare(images), "train/cat/005.jfif", "repair or remove")
    result = prepare(images, unreadable="skip")
    assert result.exit_code == 0
    assert "left out, since they cannot be read: 1 train\n" in result.output


def test_names_that_are_no_utf8_or_hold_control_characters_are_shown_escaped(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    names = [b"caf\xe9.png", b"red\x1b[31m.png", b"two\nlines.png"]
    for number, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(images / "train/cat") + b"/" + name)).write_bytes(image_bytes(seed=number))
    assert prepare(images).exit_code == 0
    shown = {name for split in ("train", "calib") for name in read_names(tmp_path / "out", split) if "\\" in name}
    assert shown == {f"train/cat/{name}.png" for name in (r"caf\xe9", r"red\x1b[31m", r"two\nlines")}
    assert prepare(images, storage="index", image_size=8).exit_code == 0
    shutil.rmtree(images / "test/cat")
    Path(os.fsdecode(os.fsencode(images / "train/cat") + b"/caf\xe9.png")).write_bytes(b"x")
    refused(prepare(images), r"train/cat/caf\xe9.png: not an image")


def test_a_class_name_that_cannot_be_shown_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    refused(prepare(fill_folder(tmp_path / "images", {"a\x1b[1m": 3, "b": 3})), r"'a\x1b[1m' is not printable UTF-8")


def test_classes_that_differ_in_case_alone_are_remarked_on(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"Cat": 4, "cat": 4, "dog": 4})
    result = prepare(images)
    assert result.exit_code == 0, result.output
    assert f"{images}: the classes 'Cat', 'cat' differ in case alone; rename" in result.output


def test_joiners_belong_to_names_in_living_scripts(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"\u06af\u0644\u200c\u0631\u0632": 4, "dog": 4})
    assert prepare(images).exit_code == 0
    bad = fill_folder(tmp_path / "bad", {"cat\u202edog": 4, "dog": 4})
    assert "is not printable UTF-8" in prepare(bad).output
