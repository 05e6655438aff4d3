"""Data sources and packing on real files: what is converted, what is refused, and in which words."""

import io
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from torchvision import datasets

from pipeline.core.errors import UserError
from pipeline.data.dataset import Split, read_info, read_names
from pipeline.data.decoding import central_square, decode_image
from pipeline.data.image_bytes import read_image_bytes
from pipeline.data.sources.settings import PrepareData
from pipeline.data.splits import category_ranks, hold_out, images_in_memory, take_balanced
from pipeline.data.statistics import ChannelStatistics
from pipeline.preflight.checks import data_fingerprint
from pipeline.tasks.data import open_data
from tests.helpers import SPLIT_LAYOUT, fill_folder, image_bytes, refused

Prepare = Callable[..., Result]


def packed(folder: Path, name: str) -> Split:
    """Return a split of what ``prepare`` wrote in ``folder``."""
    return open_data(folder / "out").split(name)


def class_sizes(split: Split) -> list[int]:
    return np.bincount(split.targets.truth()["labels"]).tolist()


def fingerprint(images: Path) -> str:
    return data_fingerprint(PrepareData(source="imagefolder", root=str(images)))


def test_digits_are_split_by_class_and_packed(prepare: Prepare, tmp_path: Path) -> None:
    assert prepare(None, "digits").exit_code == 0
    about = json.loads((tmp_path / "out/data.json").read_text())
    assert about["sizes"] == {"train": 1222, "calib": 216, "test": 359}
    assert about["classes"] == [str(i) for i in range(10)]
    info, train = read_info(tmp_path / "out"), packed(tmp_path, "train")
    assert train.images.shape == (1222, 3, 8, 8)
    assert train.images.max() == 255
    pixels = train.images.double() / 255
    assert info.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-6)
    assert info.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-6)


def test_the_splits_share_no_image(prepare: Prepare, tmp_path: Path) -> None:
    fill_folder(tmp_path / "images", {"cat": 20, "dog": 10})
    assert prepare(tmp_path / "images").exit_code == 0
    seen = [image.numpy().tobytes() for name in ("train", "calib", "test") for image in packed(tmp_path, name).images]
    assert len(seen) == len(set(seen)) == 30
    assert class_sizes(packed(tmp_path, "test")) == [4, 2]


def test_val_is_the_test_split_unless_there_is_one(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"train/cat": 8, "train/dog": 8, "val/cat": 5, "val/dog": 5})
    prepare(images)
    assert len(packed(tmp_path, "test")) == 10
    fill_folder(images, {"test/cat": 2, "test/dog": 2})
    prepare(images)
    sizes = {name: len(packed(tmp_path, name)) for name in ("train", "calib", "test")}
    assert sizes == {"train": 16, "calib": 10, "test": 4}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_grey_and_palette_images_become_rgb(mode: str, prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    data = image_bytes(mode=mode, seed=5)
    (images / "test/cat/000.png").write_bytes(data)
    assert prepare(images).exit_code == 0
    shown = packed(tmp_path, "test").images[0].permute(1, 2, 0).numpy()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(shown, expected)


def test_cmyk_jpeg_files_are_read() -> None:
    assert decode_image("a.jpg", image_bytes(mode="CMYK", kind="JPEG")).shape == (6, 8, 3)


def test_images_without_a_range_and_too_large_ones_are_refused(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    refused(prepare(images, max_megapixels=4e-5), "8 x 6", "allowed are 4e-05 million (prepare_data.max_megapixels)")
    Image.fromarray(np.zeros((6, 8), dtype=np.float32)).save(images / "train/cat/003.png", "TIFF")
    refused(prepare(images), "train/cat/003.png", "8 or 16 bits")


def test_mixed_sizes_need_an_image_size(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    (images / "train/dog/002.png").write_bytes(image_bytes(size=(20, 10)))
    refused(prepare(images), "train/dog/002.png", "20 x 10", "8 x 6", "prepare_data.image_size")
    assert prepare(images, image_size=5).exit_code == 0
    assert read_info(tmp_path / "out").image_size == (5, 5)


def test_resizing_keeps_the_central_square() -> None:
    image = np.zeros((10, 30, 3), dtype=np.uint8)
    image[:, 10:20] = 200
    np.testing.assert_array_equal(central_square(image, 10), np.full((10, 10, 3), 200))
    assert central_square(image, 4).shape == (4, 4, 3)
    assert central_square(image[:3, :3], 8).shape == (8, 8, 3)


@pytest.mark.parametrize(
    "data", [b"", b"no image at all", image_bytes()[:60], image_bytes(kind="JPEG", size=(64, 64))[:900]]
)
def test_unreadable_and_truncated_images_are_named(data: bytes, prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    (images / "train/cat/004.png").write_bytes(data)
    refused(prepare(images, image_size=6), "train/cat/004.png", "repair or remove")


def test_wrong_paths_are_refused(prepare: Prepare, tmp_path: Path) -> None:
    refused(prepare(tmp_path / "nowhere"), "nowhere", "no such directory or archive")
    (tmp_path / "file.txt").write_text("x")
    refused(prepare(tmp_path / "file.txt"), "file.txt", "neither a directory nor an archive")
    (tmp_path / "empty").mkdir()
    refused(prepare(tmp_path / "empty"), "holds 0 class folder(s)")


def test_one_class_is_no_classification(prepare: Prepare, tmp_path: Path) -> None:
    refused(prepare(fill_folder(tmp_path / "images", {"train/cat": 9})), "holds 1 class folder(s)")


def test_a_camera_orientation_is_applied() -> None:
    picture = Image.fromarray(np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image("a.png", buffer.getvalue()), np.rot90(np.asarray(picture), -1))


def test_linked_folders_are_read_and_watched(prepare: Prepare, tmp_path: Path) -> None:
    real = fill_folder(tmp_path / "real", {"cat": 5, "dog": 5})
    (tmp_path / "images").mkdir()
    (tmp_path / "images/train").symlink_to(real)
    assert prepare(tmp_path / "images").exit_code == 0
    before = fingerprint(tmp_path / "images")
    assert fingerprint(tmp_path / "images") == before
    fill_folder(real, {"cat": 6})
    assert fingerprint(tmp_path / "images") != before


def test_an_image_replaced_by_one_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"cat": 2, "dog": 2})
    file = images / "cat/000.png"
    os.utime(file, (0, 0))
    before = fingerprint(images)
    file.write_bytes(bytes(reversed(file.read_bytes())))
    assert fingerprint(images) != before


def test_the_place_of_the_images_leaves_no_trace(prepare: Prepare, tmp_path: Path) -> None:
    contents = []
    for place in ("here", "over/there"):
        assert prepare(fill_folder(tmp_path / place, SPLIT_LAYOUT)).exit_code == 0
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert contents[0] == contents[1]


def test_an_empty_class_is_named(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    (images / "train/horse").mkdir()
    (images / "train/horse/notes.txt").write_text("none yet")
    refused(prepare(images), "train/horse", "the class has no images, it holds 1 .txt (read are JPEG, PNG")


def test_a_class_that_training_lacks_is_named(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {**SPLIT_LAYOUT, "test/horse": 2})
    refused(prepare(images), "test", "'horse' is not among the 2 training classes (cat, dog)")


def test_a_test_folder_alone_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    refused(prepare(fill_folder(tmp_path / "images", {"test/cat": 3, "test/dog": 3})), "no train folder")


def test_a_class_too_small_to_split_is_named(prepare: Prepare, tmp_path: Path) -> None:
    refused(prepare(fill_folder(tmp_path / "images", {"cat": 9, "dog": 1})), "'dog' has 1 image(s) left to divide")


def test_other_files_are_passed_over(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    (images / "train/cat/readme.txt").write_text("x")
    (images / "labels.txt").write_text("x")
    (images / "notes.XML").write_text("<x/>")
    (images / "train/cat/.DS_Store").write_text("x")
    fill_folder(images, {"train/cat/.ipynb_checkpoints": 1, ".git": 1})
    result = prepare(images)
    assert result.exit_code == 0
    assert "passed over: 3 hidden, 2 .txt, 1 .xml\n" in result.output


def test_a_failed_run_leaves_the_earlier_output_untouched(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    prepare(images)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (images / "test/dog/001.png").write_bytes(b"?")  # packed after train has been written
    refused(prepare(images), "test/dog/001.png")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.glob(".out*")] == [".out.lock"]


def test_too_many_pixels_are_refused_before_they_are_read(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", SPLIT_LAYOUT)
    refused(
        prepare(images, image_size=4096, max_packed_gib=1.0), "prepare_data.max_packed_gib", "1.5 GiB", "4096 x 4096"
    )


def test_subsets_are_balanced(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"train/cat": 30, "train/dog": 10, "test/cat": 9, "test/dog": 3})
    prepare(images, max_train_images=12, max_test_images=4)
    assert class_sizes(packed(tmp_path, "train")) == [5, 5]
    assert class_sizes(packed(tmp_path, "calib")) == [1, 1]
    assert class_sizes(packed(tmp_path, "test")) == [2, 2]
    refused(prepare(images, max_test_images=1), "prepare_data.max_test_images: got 1, but 2 classes need 2 images")
    refused(
        prepare(images, max_train_images=3), "prepare_data.max_train_images: got 3, but 2 classes need 4 images, 2 of"
    )


def test_images_keep_their_names(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"cat/old": 6, "dog": 4})
    prepare(images)
    found = {name for split in ("train", "calib", "test") for name in read_names(tmp_path / "out", split)}
    assert found == {str(path.relative_to(images)) for path in images.rglob("*.png")}
    for split in ("train", "calib", "test"):
        expected = [np.asarray(Image.open(images / name)) for name in read_names(tmp_path / "out", split)]
        assert np.array_equal(packed(tmp_path, split).pixels.transpose(0, 2, 3, 1), expected)


def test_splits_depend_on_the_seed_alone() -> None:
    labels = np.repeat(np.arange(3), [50, 20, 4])
    images = images_in_memory(labels, "image", lambda position: np.full((1, 1, 3), position, np.uint8))
    (kept, held), (_, again), (_, other) = (hold_out(images, ("a", "b", "c"), fraction=0.2, seed=s) for s in (0, 0, 1))
    names = [list(split.names) for split in (held, again, other, kept)]
    assert names[0] == names[1] != names[2]
    assert not set(names[0]) & set(names[3])
    assert np.bincount(held.categories).tolist() == [10, 4, 1]
    assert sorted(category_ranks(labels, seed=0)[:50]) == list(range(50))
    assert take_balanced(images, None, at_least=1, seed=0) is images


def test_statistics_of_a_constant_channel_are_defined() -> None:
    statistics = ChannelStatistics()
    image = np.zeros((3, 3, 3), dtype=np.uint8)
    image[..., 0] = 255
    statistics.add(image)
    assert statistics.mean_and_std() == ([1.0, 0.0, 0.0], [1.0, 1.0, 1.0])


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_in_its_original_form(
    name: str, classes: int, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in the published format with few images, so their checksums are not the published ones."""
    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    monkeypatch.setattr(dataset, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    folder = tmp_path / "cifar" / dataset.base_folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    key = "labels" if classes == 10 else "fine_labels"
    for file, _ in dataset.train_list + dataset.test_list:
        labels = list(range(classes)) * 3
        content = {"data": generator.integers(0, 256, (len(labels), 3072), dtype=np.uint8), key: labels}
        (folder / file).write_bytes(pickle.dumps(content))
    (folder / dataset.meta["filename"]).write_bytes(
        pickle.dumps({dataset.meta["key"]: [f"c{i}" for i in range(classes)]})
    )
    assert prepare(tmp_path / "cifar", name).exit_code == 0
    assert read_info(tmp_path / "out").class_names[:2] == ("c0", "c1")
    assert packed(tmp_path, "test").images.shape == (3 * classes, 3, 32, 32)


def test_missing_cifar_says_how_to_get_it(prepare: Prepare, tmp_path: Path) -> None:
    refused(
        prepare(tmp_path, "cifar10"), str(tmp_path), "cifar10 is missing or damaged", "prepare_data.download to true"
    )


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_packed_data_is_named(damage: str, prepare: Prepare, tmp_path: Path) -> None:
    prepare(fill_folder(tmp_path / "images", SPLIT_LAYOUT))
    path = tmp_path / "out/train.safetensors"
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"train.safetensors: missing or damaged .*run prepare_data again"):
        packed(tmp_path, "train")


def test_data_of_a_task_that_is_unknown_here_are_refused(prepare: Prepare, tmp_path: Path) -> None:
    prepare(fill_folder(tmp_path / "images", SPLIT_LAYOUT))
    path = tmp_path / "out/data.json"
    assert read_info(tmp_path / "out").task == "classification"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task": "segmentation"}))
    with pytest.raises(UserError, match=r"data.json: unknown task 'segmentation'; .*run prepare_data again"):
        open_data(tmp_path / "out")


@pytest.mark.parametrize("content", [{}, {"image_size": [8]}])
def test_data_json_of_another_form_is_refused(content: dict[str, object], prepare: Prepare, tmp_path: Path) -> None:
    prepare(fill_folder(tmp_path / "images", SPLIT_LAYOUT))
    path = tmp_path / "out/data.json"
    about = json.loads(path.read_text()) if content else {}
    path.write_text(json.dumps(about | content))
    with pytest.raises(UserError, match=r"data.json: .*; damaged, or of another version: run prepare_data again"):
        read_info(tmp_path / "out")


def test_a_split_without_a_readable_image_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "images", {"train/cat": 6, "train/dog": 6, "test/cat": 2, "test/dog": 2})
    for file in (images / "test").rglob("*.png"):
        file.write_bytes(b"no image")
    refused(prepare(images, unreadable="skip"), "test: none of its 4 images can be read")


@pytest.mark.parametrize("storage", ["packed", "index"])
def test_a_file_that_cannot_be_opened_is_left_out_like_a_damaged_one(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    images = fill_folder(tmp_path / "images", {"cat": 9, "dog": 9})
    system_open = os.open

    def refusing(path: Path, *args: int) -> int:
        if Path(path).name == "003.png":
            raise PermissionError(13, "Permission denied", str(path))
        return system_open(path, *args)

    monkeypatch.setattr(os, "open", refusing)
    result = prepare(images, unreadable="skip", storage=storage, image_size=8)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("003.png: cannot be read (Permission denied)") >= 2, "one of each class"


def test_what_is_no_plain_image_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A pipe would block for ever, and what is called an image may have any size."""
    os.mkfifo(tmp_path / "pipe.png")
    sparse = tmp_path / "huge.jpg"
    with sparse.open("wb") as file:
        file.truncate(2**40)
    image = tmp_path / "huge.png"
    image.write_bytes(image_bytes())
    with image.open("r+b") as file:
        file.truncate(2**31)
    (tmp_path / "folder.png").mkdir()
    folder = "folder.png", "folder.png: cannot be read (Is a directory)"
    for name, words in (folder, ("pipe.png", "is no plain file"), ("huge.png", "has 2.0 GiB, allowed is 1")):
        with pytest.raises(UserError, match=re.escape(words)):
            read_image_bytes(tmp_path / name, name)
    with pytest.raises(UserError, match=r"huge.jpg: has 1024.0 GiB"):
        read_image_bytes(sparse, "huge.jpg")
    text = tmp_path / "log.jpg"
    text.write_bytes(b"not an image " * 10_000)
    assert len(read_image_bytes(text, "log.jpg")) <= 64, "no more than tells that it is none"
