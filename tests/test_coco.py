"""COCO's files, as tools really write them."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from pipeline.core.errors import UserError
from pipeline.data.objects import Objects
from pipeline.data.reading import Fit
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES
from pipeline.data.splits import ImageSource
from tests.detection_files import HEIGHT, WIDTH, coco, coco_set, held, image, opened, thing, write_coco, write_images
from tests.helpers import image_bytes, make_archive


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


def train(root: Path) -> Objects:
    return objects(opened(root))


def test_absent_fields_and_areas_without_pixels_have_defaults(tmp_path: Path) -> None:
    bare = {"image_id": 1, "category_id": 3, "bbox": [2, 3, 10, 12]}
    found = train(coco_set(tmp_path, bare, thing(2, area=0), thing(3, area=None)))
    assert found.ignored.tolist() == [False] * 3
    assert found.areas.tolist() == [120.0] * 3


def test_annotation_ids_may_be_zero_or_there_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = train(coco_set(tmp_path, thing(0), thing(5, box=(20, 3, 5, 5)), thing(5, 2), images=2))
    assert found.offsets.tolist() == [0, 2, 3]
    assert "1 annotation(s) have an id that another one has" in caplog.text
    assert "annotation 5" in caplog.text


def test_boxes_without_extent_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = train(coco_set(tmp_path, thing(1), thing(2, box=(5, 5, 0, 4)), thing(3, box=(5, 5, 4, 0.0))))
    assert len(found.boxes) == 1
    assert "train: 2 box(es) without width or height are left out: " in caplog.text
    assert "image 1, annotation 2; " in caplog.text


def test_boxes_are_cut_at_the_edges(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outside = [thing(2, box=(-16, -4, 30, 14)), thing(3, box=(40, 0, 5, 5)), thing(4, box=(-9, 2, 4, 4))]
    found = train(coco_set(tmp_path, thing(1, box=(30, 20, 10.0001, 10)), *outside))
    assert found.boxes.tolist() == [[30, 20, 40, 30], [0, 0, 14, 10]]
    assert "1 box(es) reach over the edge of their image and are cut there: " in caplog.text
    assert "2 box(es) outside of their image are left out: " in caplog.text


def test_image_ids_may_be_texts(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "2.png"])
    content = coco([image(1, id="a"), image(2, id="b")], [thing(1, "b")])
    write_coco(tmp_path / "all.json", content)
    assert train(tmp_path).offsets.tolist() == [0, 0, 1]


def test_ids_of_categories_may_begin_at_zero_and_have_gaps(tmp_path: Path) -> None:
    categories = [{"id": 90, "name": "z"}, {"id": 0, "name": "b"}, {"id": 7, "name": "a"}]
    source = opened(coco_set(tmp_path, thing(1, category=90), thing(2, category=0), categories=categories))
    assert source.class_names == ("b", "a", "z")
    assert source.category_ids == (0, 7, 90)
    assert objects(source).categories.tolist() == [2, 0]


def test_placeholders_among_the_categories_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    twin = [{"id": 0, "name": "cat"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "owl"}]
    source = opened(coco_set(tmp_path / "a", thing(category=1), categories=twin))
    assert source.category_ids == (1, 2), "a class without objects stays, only one that stands for others goes"
    assert "category 0, 'cat', has no object and stands for others; it is left out" in caplog.text
    above = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
    assert opened(coco_set(tmp_path / "b", thing(category=1), categories=above)).class_names == ("cat",)
    with pytest.raises(UserError, match="the categories 0, 1 are all called 'cat'"):
        opened(coco_set(tmp_path / "c", thing(1, category=1), thing(2, category=0), categories=twin))


def test_outlines_without_boxes_have_the_box_around_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outline = [[5, 6, 9, 20, 3, 12], [30, 7, 31, 8]]
    bare = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": outline}
    found = train(coco_set(tmp_path, bare, thing(2, box=[], segmentation=outline)))
    assert found.boxes.tolist() == [[3, 6, 31, 20]] * 2
    assert "2 object(s) have an outline and no box" in caplog.text


def test_images_without_objects_are_kept(tmp_path: Path) -> None:
    source = opened(coco_set(tmp_path, thing(1, 2), images=3))
    assert len(objects(source)) == len(source.splits["train"].names) == 3
    assert objects(source).offsets.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (thing(4, box=(5, 5, -3, 4)), r"image 1, annotation 4: bbox has the width -3 and the height 4"),
        (thing(4, 9), r"annotation 4: is of image 9, which images does not have"),
        (thing(4, "1"), r"annotation 4: is of image '1', which"),
        (thing(4, None), r"annotation 4: image_id is None, expected an integer or a text"),
        (thing(4, category=4), r"annotation 4: is of category 4, which categories does not have"),
        (thing(4, category="cat"), r"annotation 4: is of category 'cat', which"),
        (thing(4, category=[3]), r"annotation 4: is of category \[3\], which"),
        (thing(4, box=None, segmentation={"counts": "x", "size": [1, 1]}), "a mask in run lengths and no bbox"),
        (thing(4, box=None), "annotation 4: has neither bbox nor polygon"),
        (thing(4, box=None, segmentation=[[1, 2, 3]]), r"segmentation has \[1, 2, 3\], expected"),
        (thing(4, box=(1, 2, 3)), r"bbox is \[1, 2, 3\], expected \[x, y, width, height\]"),
        (thing(4, box="1 2 3 4"), "bbox is '1 2 3 4', expected"),
        (thing(4, box=(1, 2, float("nan"), 4)), "annotation 4: bbox: has nan, expected a finite number"),
        (thing(4, box=(1, float("inf"), 3, 4)), "bbox: has inf, expected a finite number"),
        (thing(4, box=(1, 2, "3", 4)), "bbox: has '3', expected a finite number"),
        (thing(4, box=(1, 2, True, 4)), "bbox: has True, expected a finite number"),
        (thing(4, box=(1, 2, 10**400, 4)), "bbox: has an integer without end, expected a finite number"),
        (thing(4, area=-1), "annotation 4: area is -1, expected pixels"),
        (thing(4, area="big"), "area: has 'big', expected a finite number"),
        (thing(4, iscrowd=2), "iscrowd is 2, expected 0 or 1"),
        ([1, 2], r"annotations\[1\] is \[1, 2\], expected an object"),
    ],
)
def test_what_an_annotation_cannot_be_is_named(annotation: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"all\.json: .*{words}"):
        opened(coco_set(tmp_path, thing(1), annotation))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (image(2, "../secret.png"), r"image 2: file_name is '\.\./secret\.png', which leads out of the folder"),
        (image(2, "/etc/passwd"), "which leads out of the folder"),
        (image(2, "C:\\photos\\2.png"), "which leads out of the folder"),
        (image(2, "a/..\\../2.png"), "which leads out of the folder"),
        ({"id": 2, "file_name": 7}, "file_name is 7, expected the name of an image file"),
        ({"id": 2}, "file_name is None"),
        ({"file_name": "2.png"}, r"images\[1\]: id is None"),
        (image(1, "2.png"), "image 1 is there twice"),
        (image(2, "1.png"), r"image 2: is of .*1\.png, and so is .*image 1; merge them"),
        (image(2, "./1.png"), r"image 2: is of .*1\.png, and so is .*image 1; merge them"),
        (image(2, width="40"), "image 2: width: has '40', expected a finite number"),
        (image(2, height=0), "image 2: height is 0, expected pixels"),
        (image(2, width=41), r"image 2: says that .*2\.png is 41 x 30 pixels, it is 40 x 30"),
        (image(2, "3.png"), r"1 of the 2 images that it names are not in .*, the first is '3\.png'"),
    ],
)
def test_what_an_image_cannot_be_is_named(entry: Any, words: str, tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "2.png"])
    write_coco(tmp_path / "all.json", coco([image(1), entry], [thing()]))
    with pytest.raises(UserError, match=rf"all\.json: .*{words}"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([image()], "holds a list, a COCO file is an object with images, annotations and categories"),
        ("text", "holds a str, a COCO file"),
        ({"images": [image()], "annotations": []}, "has no categories; a COCO file has"),
        (coco([image()], [thing()], categories=[]), "has no categories; export it again with the classes"),
        ({"images": [image()], "categories": [{"id": 1, "name": "a"}]}, "has no annotations"),
        (coco([], []) | {"images": {}}, "has, in place of a list, images"),
        (coco([], []), "names no images"),
        (coco([image()], [], categories=[{"id": "1", "name": "a"}]), "id is '1', expected an integer"),
        (coco([image()], [], categories=[{"id": 1}]), "name is None, expected a text"),
        (coco([image()], [], categories=[{"id": 1, "name": "a\x1b[1m"}]), "expected a text that can be printed"),
        (
            coco([image()], [], categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
            "has the id 1 of category 'a'",
        ),
    ],
)
def test_what_a_file_cannot_be_is_named(content: Any, words: str, tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png"])
    file = write_coco(tmp_path / "all.json", content)
    with pytest.raises(UserError, match=rf"all\.json: .*{words}"):
        opened(tmp_path)
    file.write_text(file.read_text()[:-1])
    with pytest.raises(UserError, match=r"all\.json: is no JSON in UTF-8"):
        opened(tmp_path)


def test_a_set_without_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train: none of its 1 image\(s\) has an object to find"):
        opened(coco_set(tmp_path, thing(1, iscrowd=1)))


def test_files_may_come_from_windows(tmp_path: Path) -> None:
    write_images(tmp_path / "sub", ["caf\u00e9.png"])
    text = json.dumps(coco([image(1, "sub\\cafe\u0301.png")], [thing()]), ensure_ascii=False).replace("}", "}\r\n")
    (tmp_path / "all.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert opened(tmp_path).splits["train"].names == ["sub/caf\u00e9.png"]


def test_images_without_a_size_have_that_of_their_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path, ["1.png"])
    write_coco(tmp_path / "all.json", coco([{"id": 1, "file_name": "1.png"}], [thing(box=(30, 20, 50, 50))]))
    found = train(tmp_path)
    assert found.sizes.tolist() == [[HEIGHT, WIDTH]]
    assert found.boxes.tolist() == [[30, 20, 40, 30]]
    assert "1 image(s) without width and height in the annotations" in caplog.text


def test_splits_need_the_same_categories(tmp_path: Path) -> None:
    for split, name in {"train": "cat", "valid": "kitten"}.items():
        write_images(tmp_path / split, ["1.png"])
        content = coco([image()], [thing()], categories=[{"id": 3, "name": name}])
        write_coco(tmp_path / split / "_annotations.coco.json", content)
    words = r"train/_annotations.*valid/_annotations.*have different categories: 3 is 'cat' and 'kitten'"
    with pytest.raises(UserError, match=words):
        opened(tmp_path)


def test_images_that_no_annotations_name_are_counted(tmp_path: Path) -> None:
    root = coco_set(tmp_path, thing())
    write_images(root / "spare", ["a.png", "b.png"])
    assert opened(root).passed_over == {"image(s) that no annotations name": 2}


def test_images_of_the_same_names_are_those_of_their_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_images(tmp_path / "images" / split, ["1.png", "2.png"])
        write_coco(tmp_path / "annotations" / f"{split}.json", coco([image(1), image(2)], [thing()]))
    source = opened(tmp_path)
    assert source.splits["train"].names == ["images/train/1.png", "images/train/2.png"]
    assert source.splits["test"].names == ["images/val/1.png", "images/val/2.png"]
    (tmp_path / "images/val/2.png").unlink()
    with pytest.raises(UserError, match=r"val\.json: 1 of the 2 images that it names are not in .*images/val"):
        opened(tmp_path)


def test_one_file_with_two_folders_that_fit_is_refused(tmp_path: Path) -> None:
    for folder in ("left", "right"):
        write_images(tmp_path / folder, ["1.png"])
    write_coco(tmp_path / "all.json", coco([image()], [thing()]))
    with pytest.raises(UserError, match=r"could be those in .*left or in .*right"):
        opened(tmp_path)


def test_a_damaged_image_is_told_when_it_is_read(tmp_path: Path) -> None:
    root = coco_set(tmp_path, thing(), thing(2, 2), images=2)
    (root / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    source = opened(root)
    assert objects(source).sizes.tolist() == [[HEIGHT, WIDTH]] * 2
    first, second = source.splits["train"].read(np.arange(2), Fit())
    assert not isinstance(first, UserError)
    assert isinstance(second, UserError)


SPOT = (3, 5, 11, 25)


@pytest.mark.parametrize(
    ("orientation", "is_stored"), [*((turn, False) for turn in range(1, 9)), *((turn, True) for turn in range(5, 9))]
)
def test_boxes_lie_where_the_turned_image_shows_them(orientation: int, is_stored: bool, tmp_path: Path) -> None:
    """An image with one bright spot, whose box is given of the stored pixels or of the image as it is shown."""
    (tmp_path / "1.jpg").write_bytes(held(40, 30, orientation, SPOT))
    write_coco(tmp_path / "all.json", coco([{"id": 1, "file_name": "1.jpg"}], [thing()]))
    (shown,) = opened(tmp_path).splits["train"].read(np.array([0]), Fit())
    assert not isinstance(shown, UserError)
    rows, columns = np.nonzero(shown[:, :, 0] > 128)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    x1, y1, x2, y2 = SPOT if is_stored else seen
    height, width = (30, 40) if is_stored else shown.shape[:2]
    entry = image(1, "1.jpg", width=int(width), height=int(height))
    box = tuple(int(value) for value in (x1, y1, x2 - x1, y2 - y1))
    write_coco(tmp_path / "all.json", coco([entry], [thing(box=box)]))
    found = train(tmp_path)
    assert found.sizes.tolist() == [[*shown.shape[:2]]]
    np.testing.assert_allclose(found.boxes[0], seen, atol=1)


def test_how_an_image_was_turned_is_logged_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.jpg").write_bytes(held(40, 30, 6, SPOT))
    (tmp_path / "2.jpg").write_bytes(held(30, 30, 6, SPOT))
    square = image(2, "2.jpg", width=30, height=30)
    write_coco(tmp_path / "all.json", coco([image(1, "1.jpg"), square], [thing(), thing(2, 2)]))
    opened(tmp_path)
    assert "1 image(s) are annotated as stored, not as a camera's note turns them" in caplog.text
    assert "1 image(s) have a camera's note that turns or mirrors them, which their size does not show" in caplog.text
    write_coco(tmp_path / "all.json", coco([image(1, "1.jpg", width=80, height=60)], [thing()]))
    with pytest.raises(UserError, match=r"image 1: says that .*1\.jpg is 80 x 60 pixels, it is 30 x 40; annotate"):
        opened(tmp_path)


@pytest.mark.parametrize("behind", [True, False])
def test_a_note_in_a_png_file_counts_wherever_it_stands(behind: bool, tmp_path: Path) -> None:
    data = image_bytes(size=(40, 30))
    exif = PILImage.Exif()
    exif[0x0112] = 6
    content = exif.tobytes().removeprefix(b"Exif\x00\x00")
    chunk = len(content).to_bytes(4, "big") + b"eXIf" + content + zlib.crc32(b"eXIf" + content).to_bytes(4, "big")
    at = data.index(b"IEND" if behind else b"IDAT") - 4
    (tmp_path / "1.png").write_bytes(data[:at] + chunk + data[at:])
    write_coco(tmp_path / "all.json", coco([image()], [thing()]))
    assert train(tmp_path).sizes.tolist() == [[40, 30]]
