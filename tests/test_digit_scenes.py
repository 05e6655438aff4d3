"""The embedded scenes of digits: the same bytes each time, tight boxes, read as anybody's COCO files are."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.reading import Fit
from pipeline.data.sources.coco import open_coco
from pipeline.data.sources.digit_scenes import MOST_OVERLAP, open_digit_scenes, split_scans, write_scenes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder)
    return folder


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*.*")):
        found.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return found.hexdigest()


def test_scenes_are_the_same_each_time(written: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path)
    assert digest(tmp_path) == digest(written)


def test_scenes_to_test_on_show_other_scans() -> None:
    train, test = ({scan.tobytes() for scan in scans.ink} for scans in split_scans(np.random.default_rng(0)).values())
    assert len(train) + len(test) == 1797
    assert not train & test


def test_there_are_one_to_five_digits_which_hardly_overlap(written: Path) -> None:
    for split, count in (("train", 800), ("test", 200)):
        content = json.loads((written / split / "_annotations.coco.json").read_text())
        boxes: dict[int, list[list[int]]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            boxes[annotation["image_id"]].append(annotation["bbox"])
        assert len(boxes) == count
        assert {len(found) for found in boxes.values()} == {1, 2, 3, 4, 5}
        for found in boxes.values():
            for i, (x1, y1, w1, h1) in enumerate(found):
                for x2, y2, w2, h2 in found[:i]:
                    overlap = min(min(x1 + w1, x2 + w2) - max(x1, x2), min(y1 + h1, y2 + h2) - max(y1, y2))
                    assert overlap <= MOST_OVERLAP


def test_boxes_are_tight_to_the_ink(written: Path) -> None:
    """The pixels just inside of each side of a box differ more from those around it than those just outside."""
    content = json.loads((written / "test" / "_annotations.coco.json").read_text())
    inside, outside = [], []
    for annotation in content["annotations"]:
        shown = (
            np.asarray(Image.open(written / "test" / f"{annotation['image_id']:04d}.png")).astype(float).mean(axis=2)
        )
        x, y, width, height = annotation["bbox"]
        if min(x, y) < 2 or max(x + width, y + height) > 62:
            continue
        background = np.median(shown)
        inside.append(np.abs(shown[y : y + height, x] - background).max())
        outside.append(np.abs(shown[y : y + height, x - 2] - background).max())
    assert np.mean(np.array(inside) > np.array(outside)) > 0.8


def test_the_source_is_what_the_reader_of_coco_sees(written: Path) -> None:
    with open_digit_scenes(None, False) as source, open_coco(written, False) as read:  # noqa: FBT003  (signature of Open)
        assert source.class_names == tuple(map(str, range(10)))
        assert source.category_ids == tuple(range(10))
        for split, images in source.splits.items():
            assert images.objects is not None
            assert read.splits[split].objects is not None
            np.testing.assert_array_equal(images.objects.boxes, read.splits[split].objects.boxes)
            first = next(images.read(np.array([3]), Fit()))
            np.testing.assert_array_equal(first, next(read.splits[split].read(np.array([3]), Fit())))
