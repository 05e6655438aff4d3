"""Pascal VOC's files, as tools really write them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.data.objects import Objects
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES
from pipeline.data.sources.voc import open_voc
from pipeline.data.splits import ImageSource
from tests.detection_files import HEIGHT, WIDTH, held, write_images
from tests.helpers import make_archive


def opened(root: Path) -> ImageSource:
    with open_voc(root, False) as source:  # noqa: FBT003  (signature of Open)
        return source


def train(root: Path) -> Objects:
    found = opened(root).splits["train"].objects
    assert found is not None
    return found


def state(root: Path) -> str:
    return SOURCES["voc"].state(PrepareData(source="voc", root=str(root)))


def thing(name: str = "cat", box: tuple[object, ...] = (3, 4, 12, 15), more: str = "") -> str:
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox>{more}</object>"


def xml(*things: str, size: tuple[object, object] | None = (WIDTH, HEIGHT), filename: str = "") -> str:
    shown = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{shown}{''.join(things)}</annotation>"


def voc_set(root: Path, *contents: str, lists: Mapping[str, str] | None = None) -> Path:
    """Write a set with an image for each of ``contents``, called 0, 1, ..."""
    write_images(root / "JPEGImages", [f"{number}.png" for number in range(len(contents))])
    (root / "Annotations").mkdir()
    for number, content in enumerate(contents):
        (root / f"Annotations/{number}.xml").write_text(content)
    for name, text in (lists or {}).items():
        file = root / "ImageSets/Main" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_corners_counted_from_one_and_inclusive_become_edges(tmp_path: Path) -> None:
    difficult = thing("dog", (1, 1, WIDTH, HEIGHT), "<difficult>1</difficult>")
    part = "<part><name>head</name><bndbox><xmin>5</xmin></bndbox></part>"
    source = opened(voc_set(tmp_path, xml(thing(more=part), difficult), xml(thing("dog", (5.5, 6, 5.5, 6)))))
    assert source.class_names == ("cat", "dog")
    assert source.category_ids is None
    found = source.splits["train"].objects
    assert found is not None
    assert found.boxes.tolist() == [[2, 3, 12, 15], [0, 0, WIDTH, HEIGHT], [4.5, 5, 5.5, 6]]
    assert found.ignored.tolist() == [False, True, False]
    assert found.categories.tolist() == [0, 1, 1]
    assert found.areas.tolist() == [120, WIDTH * HEIGHT, 1]
    assert found.sizes.tolist() == [[HEIGHT, WIDTH]] * 2
    assert source.splits["train"].names == ["JPEGImages/0.png", "JPEGImages/1.png"]
    assert source.passed_over == {}


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        ({"train.txt": "0\n1\n", "val.txt": "2\n"}, {"train": [0, 1], "test": [2]}),
        ({"train.txt": "0\r\n", "val.txt": "2", "test.txt": "1"}, {"train": [0], "calib": [2], "test": [1]}),
        ({"trainval.txt": "0 1\n2 -1\n", "test.txt": "1"}, {"train": [0, 2], "test": [1]}),
        ({"train.txt": "0", "val.txt": "1", "trainval.txt": "0\n1\n", "test.txt": ""}, {"train": [0], "test": [1]}),
        ({"train.txt": "0\n1", "cat_train.txt": "0 1\n", "cat_val.txt": "2 1"}, {"train": [0, 1]}),
    ],
)
def test_lists_say_what_the_splits_are(lists: dict[str, str], splits: dict[str, list[int]], tmp_path: Path) -> None:
    root = voc_set(tmp_path / "VOCdevkit/VOC2007", *[xml(thing())] * 3, lists=lists).parent.parent
    for place in (root, make_archive(root, "tar")):
        found = {name: list(split.names) for name, split in opened(place).splits.items()}
        assert {name: [int(Path(file).stem) for file in files] for name, files in found.items()} == splits


def test_folders_called_like_splits_are_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_images(tmp_path / split, ["a b.png"])
        (tmp_path / split / "a b.xml").write_text(xml(thing()))
    source = opened(tmp_path)
    assert {name: list(split.names) for name, split in source.splits.items()} == {
        "train": ["train/a b.png"],
        "test": ["valid/a b.png"],
    }


def test_the_image_is_that_of_the_same_name_and_no_mask(tmp_path: Path) -> None:
    root = voc_set(tmp_path, xml(thing(), filename="photo 1.png"))
    write_images(root / "SegmentationClass", ["0.png"], size=(9, 9))
    assert opened(root).splits["train"].names == ["JPEGImages/0.png"]
    (root / "JPEGImages/0.png").rename(root / "JPEGImages/photo 1.png")
    assert opened(root).splits["train"].names == ["JPEGImages/photo 1.png"]
    assert opened(root).passed_over == {"image(s) that no annotations name": 1}


def test_wrong_layouts_are_named_before_any_stage(tmp_path: Path) -> None:
    write_images(tmp_path / "none", ["1.png"])
    with pytest.raises(
        UserError, match=r"none: holds no \.xml file; expected are Annotations/\*\.xml beside JPEGImages"
    ):
        state(tmp_path / "none")
    for year in (2007, 2012):
        voc_set(tmp_path / "two" / f"VOC{year}", xml(thing()))
    with pytest.raises(UserError, match=r"VOC2007/Annotations and .*VOC2012/Annotations hold annotations and are not"):
        state(tmp_path / "two")
    for split in ("val", "test"):
        write_images(tmp_path / "half" / split, ["1.png"])
        (tmp_path / "half" / split / "1.xml").write_text(xml(thing()))
    with pytest.raises(UserError, match=r"half: has .*test, .*val and no train"):
        state(tmp_path / "half")
    voc_set(tmp_path / "listed", xml(thing()), lists={"val.txt": "0"})
    with pytest.raises(UserError, match=r"val\.txt: there is neither train\.txt nor trainval\.txt beside it"):
        state(tmp_path / "listed")
    voc_set(tmp_path / "lost", xml(thing()), lists={"train.txt": "0\n7\n8\n"})
    with pytest.raises(
        UserError, match=r"train\.txt: 2 of the 3 images that it names have no \.xml file, the first is '7'"
    ):
        state(tmp_path / "lost")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (xml(thing(box=(12, 4, 3, 15))), "object no. 1: ends at 3, 15, before it begins at 12, 4"),
        (xml(thing(box=("nan", 4, 12, 15))), "object no. 1: xmin: has nan, expected a finite number"),
        (xml(thing(box=(3, 4, 12, "1e999"))), "object no. 1: ymax: has inf, expected a finite number"),
        (xml(thing(box=(3, 4, 12, "wide"))), "object no. 1: ymax: has 'wide', expected a number"),
        (xml(thing(), "<object><name>cat</name></object>"), "object no. 2: has no bndbox"),
        (xml("<object><name>cat</name><bndbox/></object>"), "object no. 1: xmin: has None, expected a number"),
        (xml(thing(" ")), "object no. 1: name is '', expected the name of a class"),
        (xml(thing(more="<difficult>maybe</difficult>")), "object no. 1: difficult is 'maybe', expected 0 or 1"),
        (xml(thing(), size=(WIDTH, 31)), r"says that .*0\.png is 40 x 31 pixels, it is 40 x 30"),
        (xml(thing(), size=(WIDTH, "tall")), "size: has 'tall', expected a number"),
        (xml(thing(), size=(-1, 30)), "size is -1 x 30, expected pixels"),
        ("<html/>", "holds <html>, a file of Pascal VOC holds <annotation>"),
        ("<annotation>", "is no XML"),
        ("", "is no XML"),
        ("<!DOCTYPE annotation>" + xml(thing()), "has a DOCTYPE"),
    ],
)
def test_what_a_file_cannot_be_is_named(content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"Annotations/0\.xml: {words}"):
        opened(voc_set(tmp_path, content))


def test_entities_are_refused_before_they_grow(tmp_path: Path) -> None:
    levels = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 20))
    bomb = f'<!DOCTYPE annotation [<!ENTITY a0 "ha">{levels}]>' + xml(thing("&a19;"))
    root = voc_set(tmp_path, bomb)
    for encoding in ("utf-8", "utf-16"):
        (root / "Annotations/0.xml").write_bytes(bomb.encode(encoding))
        with pytest.raises(UserError, match=r"0\.xml: has a DOCTYPE, which files of annotations do not need"):
            opened(root)


def test_an_image_that_is_missing_is_named(tmp_path: Path) -> None:
    root = voc_set(tmp_path, xml(thing(), filename="0.jpg"))
    (root / "JPEGImages/0.png").unlink()
    with pytest.raises(UserError, match=r"Annotations/0\.xml: there is no image of its name, nor '0\.jpg', beside it"):
        opened(root)


def test_two_files_of_one_image_are_refused(tmp_path: Path) -> None:
    root = voc_set(tmp_path, xml(thing()))
    (root / "Annotations/copy.xml").write_text(xml(thing(), filename="0.png"))
    with pytest.raises(UserError, match=r"copy\.xml: is of .*0\.png, and so is .*Annotations/0\.xml; merge them"):
        opened(root)


def test_classes_are_those_of_training(tmp_path: Path) -> None:
    lists = {"train.txt": "0", "test.txt": "1"}
    with pytest.raises(UserError, match=r"1\.xml: class 'owl' is not among the 1 training classes \(cat\)"):
        opened(voc_set(tmp_path, xml(thing()), xml(thing("owl")), lists=lists))


def test_odd_boxes_and_sizes_are_put_right_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    boxes = thing(box=(0, 0, 10, 10)), thing(box=(6, 6, 5, 9)), thing(box=(50, 1, 60, 9))
    found = train(voc_set(tmp_path, xml(*boxes), xml(size=(0, 0)), xml(size=None)))
    assert found.boxes.tolist() == [[0, 0, 10, 10]]
    assert found.sizes.tolist() == [[HEIGHT, WIDTH]] * 3
    assert found.offsets.tolist() == [0, 1, 1, 1]
    for words in ("1 box(es) reach over", "1 box(es) without width", "1 box(es) outside", "2 image(s) without width"):
        assert f"train: {words}" in caplog.text


def test_boxes_of_stored_pixels_are_turned_along(tmp_path: Path) -> None:
    root = voc_set(tmp_path, xml(thing(box=(1, 1, 10, 5))))
    (root / "JPEGImages/0.png").unlink()
    (root / "JPEGImages/0.jpg").write_bytes(held(WIDTH, HEIGHT, 6, (0, 0, 1, 1)))
    found = train(root)
    assert found.sizes.tolist() == [[WIDTH, HEIGHT]]
    np.testing.assert_allclose(found.boxes, [[25, 0, 30, 10]])


def test_the_fingerprint_follows_annotations_and_lists(tmp_path: Path) -> None:
    root = voc_set(tmp_path, xml(thing()), lists={"train.txt": "0"})
    seen = {state(root)}
    (root / "Annotations/0.xml").write_text(xml(thing(), thing()))
    seen.add(state(root))
    (root / "ImageSets/Main/train.txt").write_text("0\n0\n")
    seen.add(state(root))
    assert len(seen) == 3
