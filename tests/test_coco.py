"""COCO's files, as tools really write them."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.data.objects import Objects
from pipeline.data.reading import Fit
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES
from pipeline.data.splits import ImageSource
from tests.detection_files import (
    HEIGHT,
    WIDTH,
    coco,
    coco_set,
    image,
    opened,
    thing,
    write_coco,
    write_images,
)
from tests.helpers import make_archive


def objects(source: ImageSource, split: str = "train") -> Objects:
    found = source.splits[split].objects
    assert found is not None
    return found


def state(root: Path) -> str:
    """Return what the probe finds of ``root``."""
    return SOURCES["coco"].state(PrepareData(source="coco", root=str(root)))


def test_boxes_become_corners_and_categories_classes(tmp_path: Path) -> None:
    source = opened(
        coco_set(tmp_path, thing(1, 2, (2, 3, 10, 12.5), 7), thing(2, 1, (0, 0, 40, 30), 3, iscrowd=1), images=3)
    )
    assert source.class_names == ("cat", "dog")
    assert source.category_ids == (3, 7)
    found = objects(source)
    assert source.splits["train"].names == ["1.png", "2.png", "3.png"]
    assert found.boxes.tolist() == [[0, 0, 40, 30], [2, 3, 12, 15.5]]
    assert found.categories.tolist() == [0, 1]
    assert found.ignored.tolist() == [True, False], "a crowd is neither learned nor missed"
    assert found.areas.tolist() == [50.5, 50.5]
    assert found.offsets.tolist() == [0, 1, 2, 2]
    assert found.sizes.tolist() == [[HEIGHT, WIDTH]] * 3
    assert source.splits["train"].categories.tolist() == [2, 1, 2], "an image with a crowd alone has nothing to learn"
    (read,) = source.splits["train"].read(np.array([1]), Fit())
    assert not isinstance(read, UserError)
    assert read.shape == (HEIGHT, WIDTH, 3)


def test_both_usual_layouts_are_understood(tmp_path: Path) -> None:
    usual, roboflow = tmp_path / "usual", tmp_path / "roboflow"
    for year, names in {"train2017": ["1.png", "2.png"], "val2017": ["1.png"]}.items():
        write_images(usual / year, names)
        content = coco([image(int(name[0]), name) for name in names], [thing()])
        write_coco(usual / "annotations" / f"instances_{year}.json", content)
        write_coco(usual / "annotations" / f"captions_{year}.json", {"no": "boxes"})
    for split in ("train", "valid", "test"):
        write_images(roboflow / split, ["1.png"])
        write_coco(roboflow / split / "_annotations.coco.json", coco([image()], [thing()]))
    source = opened(usual)
    assert {name: split.names for name, split in source.splits.items()} == {
        "train": ["train2017/1.png", "train2017/2.png"],
        "test": ["val2017/1.png"],
    }
    assert source.passed_over == {".json": 2}
    assert {name: list(split.names) for name, split in opened(roboflow).splits.items()} == {
        "train": ["train/1.png"],
        "calib": ["valid/1.png"],
        "test": ["test/1.png"],
    }
    archive = make_archive(roboflow, "nested.tar.gz")
    assert set(opened(archive).splits) == {"train", "calib", "test"}


def test_the_user_may_name_the_files(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", ["1.png", "2.png"])
    write_coco(tmp_path / "a/first.json", coco([image(1)], [thing()]))
    write_coco(tmp_path / "a/second.json", coco([image(2)], [thing(1, 2)]))
    source = opened(tmp_path, annotations={"train": "a/second.json", "test": "a/first.json"})
    assert {name: list(split.names) for name, split in source.splits.items()} == {
        "train": ["photos/2.png"],
        "test": ["photos/1.png"],
    }
    with pytest.raises(UserError, match=r"prepare_data\.annotations\.test: there is no file .*third"):
        opened(tmp_path, annotations={"train": "a/second.json", "test": "a/third.json"})


def test_a_folder_without_annotations_is_told_what_is_looked_for(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png"])
    for look in (opened, state):
        with pytest.raises(UserError, match=r"no \.json file; expected are annotations/instances_train\*\.json"):
            look(tmp_path)
    write_coco(tmp_path / "val.json", coco([image(1, "a.png")], []))
    write_coco(tmp_path / "test.json", coco([image(1, "a.png")], []))
    with pytest.raises(UserError, match=r"2 \.json file\(s\), none of them train's \(.*test\.json, .*val\.json\)"):
        state(tmp_path)
    write_coco(tmp_path / "my_train.json", {})
    write_coco(tmp_path / "train.json", {})
    with pytest.raises(UserError, match=r"my_train\.json: .*train\.json beside it could be the train split as well"):
        state(tmp_path)


def test_the_fingerprint_follows_annotations_and_images(tmp_path: Path) -> None:
    root = coco_set(tmp_path / "set", thing())
    seen = [state(root)]
    (root / "all.json").write_text(json.dumps(coco([image()], [thing(), thing(2)])))
    seen.append(state(root))
    write_images(root, ["1.png"], size=(50, 50))
    seen.append(state(root))
    assert len(set(seen)) == 3
    assert seen[-1] == state(root)
