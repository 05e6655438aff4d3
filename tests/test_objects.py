"""The table of objects, and splits and summary of images that have some."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.data.objects import Objects
from pipeline.data.packing import write_splits
from pipeline.data.sources.settings import AnnotationFiles, PrepareData
from pipeline.data.splits import ImageSet, ImageSource, hold_out, make_splits, take_balanced
from pipeline.data.summary import DataSummary, SplitFacts, report
from pipeline.tasks.table import get_task
from tests.detection_files import coco_set, opened, thing


def table(*images: Sequence[int], ignored: Sequence[int] = ()) -> Objects:
    """Return objects of the given classes for each image; the rows ``ignored`` are so."""
    classes = np.array([category for image in images for category in image], dtype=np.int64)
    count = len(classes)
    marks = np.zeros(count, dtype=np.bool_)
    marks[list(ignored)] = True
    boxes = np.arange(count)[:, None] + np.array([0.0, 0.0, 1.0, 1.0])
    offsets = np.cumsum([0, *map(len, images)], dtype=np.int64)
    sizes = np.stack([np.arange(len(images)) + 10, np.arange(len(images)) + 20], axis=1)
    return Objects(boxes, classes, marks, np.arange(count) + 0.5, offsets, sizes)


def image_set(objects: Objects, num_categories: int) -> ImageSet:
    strata = objects.strata(num_categories, objects.counts(num_categories))
    names = [f"{number}.png" for number in range(len(objects))]
    return ImageSet(strata, names, lambda *_: iter(()), objects=objects)


def test_selected_images_keep_their_objects_in_order() -> None:
    chosen = table([0], [], [1, 2, 0], [2], ignored=[2]).select([3, 2, 1, 3])
    assert chosen.offsets.tolist() == [0, 1, 4, 4, 5]
    assert chosen.categories.tolist() == [2, 1, 2, 0, 2]
    assert chosen.areas.tolist() == [4.5, 1.5, 2.5, 3.5, 4.5]
    assert chosen.boxes[:, 0].tolist() == [4, 1, 2, 3, 4]
    assert chosen.ignored.tolist() == [False, False, True, False, False]
    assert chosen.sizes.tolist() == [[13, 23], [12, 22], [11, 21], [13, 23]]
    assert chosen.images.tolist() == [0, 1, 1, 1, 3]
    assert len(chosen.select([])) == len(chosen.select([]).boxes) == 0


def test_ignored_objects_do_not_count() -> None:
    objects = table([0, 1], [1], [2], ignored=[2])
    assert objects.counts(4).tolist() == [1, 1, 1, 0]


def test_an_image_is_drawn_by_its_rarest_class() -> None:
    objects = table([0, 1], [0, 0], [], [2, 0], [1, 2], [2], ignored=[8])
    assert objects.strata(3, objects.counts(3)).tolist() == [1, 0, 3, 2, 1, 3]
    assert objects.strata(3, np.array([1, 5, 5])).tolist() == [0, 0, 3, 0, 1, 3]


def test_each_stratum_is_divided_also_that_of_empty_images() -> None:
    images = image_set(table(*[[0]] * 10, *[[0, 1]] * 10, *[[]] * 10), 2)
    kept, held = hold_out(images, ("cat", "dog"), fraction=0.2, seed=0)
    for part, each in ((kept, 8), (held, 2)):
        assert np.bincount(part.categories).tolist() == [each] * 3
        assert part.objects is not None
        found = part.objects
        assert [len(found.select([row]).boxes) for row in range(len(found))] == [
            {0: 1, 1: 2, 2: 0}[category] for category in part.categories.tolist()
        ]


def test_single_images_of_a_class_are_trained_on_and_named(caplog: pytest.LogCaptureFixture) -> None:
    images = image_set(table(*[[0]] * 5, [1], [2, 0], []), 3)
    kept, held = hold_out(images, ("cat", "dog", "owl"), fraction=0.2, seed=0)
    assert held.categories.tolist() == [0]
    assert sorted(set(kept.categories.tolist())) == [0, 1, 2, 3]
    assert (
        "2 class(es) are the rarest one of a single image, which is trained on and not held out: dog, owl"
        in caplog.text
    )


def test_nothing_to_hold_out_is_an_error() -> None:
    with pytest.raises(UserError, match=r"3 image\(s\) are left to divide into splits, and no two of them"):
        hold_out(image_set(table([0], [1], []), 2), ("cat", "dog"), fraction=0.2, seed=0)


def test_subsets_may_have_fewer_images_than_classes() -> None:
    images = image_set(table(*[[0]] * 4, *[[1]] * 4, *[[2]] * 4, []), 3)
    assert len(take_balanced(images, 3, at_least=2, seed=0).categories) == 3
    assert np.bincount(take_balanced(images, 9, at_least=2, seed=0).categories).tolist() == [3, 3, 2, 1]


def test_splits_are_drawn_and_subsets_taken() -> None:
    source = ImageSource(("cat", "dog"), {"train": image_set(table(*[[0]] * 40, *[[0, 1]] * 20, *[[]] * 20), 2)})
    settings = PrepareData(max_train_images=30, max_test_images=6)
    splits = make_splits(source, settings, seed=1)
    assert {name: len(split.names) for name, split in splits.items()} == {"train": 24, "calib": 6, "test": 6}
    names = [name for split in splits.values() for name in split.names]
    assert len(set(names)) == len(names)
    again = make_splits(source, settings, seed=1)
    assert all(list(again[name].names) == list(splits[name].names) for name in splits)


def summary(**splits: Objects) -> DataSummary:
    facts = {
        name: SplitFacts.of(
            image_set(objects, 3), range(len(objects)), np.arange(len(objects), dtype=np.uint64) + 1000 * place
        )
        for place, (name, objects) in enumerate(splits.items())
    }
    return DataSummary(("cat", "dog", "owl"), facts, None)


def test_the_summary_counts_objects_and_images_without_any() -> None:
    found = summary(
        train=table(*[[0, 0, 1]] * 30, [2], [], [], ignored=[0]), calib=table([0, 1, 2], []), test=table([0, 1, 2])
    )
    assert found.facts() == {
        "class_counts": {"train": [59, 30, 1], "calib": [1, 1, 1], "test": [1, 1, 1]},
        "original_sizes": None,
        "shared_images": {"test": 0, "calib": 0},
        "images_without_objects": {"train": 2, "calib": 1, "test": 0},
        "ignored_objects": {"train": 1, "calib": 0, "test": 0},
    }
    assert found.lines()[2:] == [
        "cat                        59      1     1",
        "dog                        30      1     1",
        "owl                         1      1     1",
        "all 3                      90      3     3",
        "images                     33      2     1",
        "images without objects      2      1     0",
        "objects to ignore           1      0     0",
    ]


def test_few_and_uneven_objects_are_named(caplog: pytest.LogCaptureFixture) -> None:
    train, test = table(*[[0, 0, 1]] * 30, [1]), table(*[[0, 1, 2]] * 5)
    uneven = (
        "train: the largest class has 60 times the objects of the smallest; AP counts both alike, so add images of the "
        "rare ones if you can"
    )
    with caplog.at_level(logging.INFO):
        report(summary(train=train, calib=table([0] * 5, [1]), test=test), {"image(s) that no annotations name": 7})
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "train: has no object of 1 class(es): owl",
        "calib: has no object of 1 class(es): owl",
        "train: 1 class(es) have fewer than 20 objects, add some if you can: owl 0",
        "calib: 1 class(es) have fewer than 5 objects to judge by, so figures on it are rough",
        uneven,
    ]
    assert "passed over: 7 image(s) that no annotations name" in caplog.text


def test_images_that_cannot_be_read_take_their_objects_with_them() -> None:
    images = image_set(table([0], [1], [2, 2]), 3)
    facts = SplitFacts.of(images, [0, 2], np.array([5, 6], dtype=np.uint64))
    assert facts.left_out == 1
    assert facts.names == ["0.png", "2.png"]
    assert facts.counts(3).tolist() == [1, 0, 2]


@pytest.mark.parametrize("storage", ["packed", "index"])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_split_in_which_nothing_is_to_be_found_is_refused(storage: str, tmp_path: Path, *, is_damaged: bool) -> None:
    root, out = coco_set(tmp_path / "photos", thing(of=1), images=6), tmp_path / "data"
    out.mkdir()
    if is_damaged:
        (root / "1.png").write_bytes((root / "1.png").read_bytes()[:-60])
    settings = PrepareData(source="coco", root=str(root), image_size=32, storage=storage, unreadable="skip")
    source, task = opened(root), get_task("detection")
    splits = make_splits(source, settings, seed=0)
    order = ("train", "calib", "test") if is_damaged else ("test", "calib", "train")
    words = f"{order[0]}: none of its . image\\(s\\) has an object to find.*splits that each have some"
    with pytest.raises(UserError, match=words):
        write_splits(
            {name: splits[name] for name in order}, source.class_names, out, settings,
            task="detection", encode_truth=task.encode_truth, resize=task.resize,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "yolo", "root": "x"}, "annotations: source yolo has no such files; leave them null, or use coco"),
        ({}, "annotations: source digits has no such files"),
    ],
)
def test_annotations_are_named_for_coco_alone(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PrepareData(**changes, annotations=AnnotationFiles(train="a.json"))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/a.json", "../a.json", "a/../../b.json"])
def test_annotations_lie_below_the_root(path: str) -> None:
    with pytest.raises(ValueError, match=r"give a path as seen from prepare_data\.root, below it"):
        AnnotationFiles(train=path)


def test_annotations_of_training_are_named_where_any_are() -> None:
    with pytest.raises(ValueError, match="names no file for train"):
        AnnotationFiles(test="a.json")
    named = PrepareData(source="coco", root="x", annotations=AnnotationFiles(train="a.json", test="b/c.json"))
    assert named.annotations.named() == {"train": "a.json", "test": "b/c.json"}
    assert Path(named.root or "") == Path("x")
