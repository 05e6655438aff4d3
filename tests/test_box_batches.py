"""Boxes follow the pixels of images that are painted boxes, through each augmentation, packed and as an index."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from pipeline.core import distributed
from pipeline.core.errors import UserError
from pipeline.data.augmentation import Geometry
from pipeline.data.batch import Batch, TrainingBatches
from pipeline.data.dataset import read_info, read_split
from pipeline.data.letterbox import PADDING
from pipeline.data.loaders import open_training_batches
from pipeline.data.objects import Objects
from pipeline.data.settings import Augment
from pipeline.params.schema import load_params
from pipeline.tasks.detection.targets import BoxTargets
from pipeline.tasks.detection.task import Detection
from pipeline.tasks.detection.truth import encode_objects
from stages import prepare_data
from tests.helpers import fill_folder, refused
from workbench.project import write_params

Prepare = Callable[..., Result]

CPU = torch.device("cpu")
HEIGHT, WIDTH = 64, 96
COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)])
"""Of the classes; no two boxes of an image have the same."""
OTHERS = np.array([(20, 20, 20), (0, 0, 0), (PADDING,) * 3])
"""Of the rest of an image, of what moves in at its edges, and of what lies beside it."""
TOLERANCE = 1.0
"""Pixels, of those that were resized last, by which a box may differ from what is painted: edges are blurred."""
LARGEST_BOX = 700
"""Pixels of the largest box of a letterboxed image."""
SIZES = [(64, 96), (50, 90), (96, 64), (40, 120), (200, 150), (130, 300)]
LARGE = {7: (1408, 2000), 8: (1407, 2003), 13: (1407, 2003), 14: (1408, 2000)}
"""Photos, which are decoded reduced where a view needs no more; of two the sides are no multiples of any reduction."""
TURNED = {7, 13}
"""Those that were taken upside down."""


def painted(size: tuple[int, int], generator: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """Return an image of ``size`` (h, w) and its objects: class and x, y, width, height; some have none."""
    image = np.full((*size, 3), 20, np.uint8)
    objects = []
    for number in np.flatnonzero(generator.random(len(COLORS)) < generator.choice([0.0, 0.5, 0.9])):
        row, column = divmod(int(number), 3)
        high, wide = size[0] // 2, size[1] // 3
        top, left = (int(side * generator.uniform(0.1, 0.25)) for side in (high, wide))
        bottom, right = (int(side * generator.uniform(0.7, 0.9)) for side in (high, wide))
        y, x = row * high + top, column * wide + left
        image[y : row * high + bottom, x : column * wide + right] = COLORS[number]
        objects.append((int(number), [x, y, right - left, bottom - top]))
    return image, objects


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of 30 painted images in COCO's format, four of them large photos."""
    root, generator = tmp_path_factory.mktemp("scenes"), np.random.default_rng(5)
    images, annotations = [], []
    for number in range(30):
        size = LARGE.get(number, SIZES[number % len(SIZES)])
        image, objects = painted(size, generator)
        name, exif = f"{number}.{'jpg' if number in LARGE else 'png'}", Image.Exif()
        if number in TURNED:
            exif[0x0112] = 3
            image = image[::-1, ::-1]
        Image.fromarray(image).save(root / name, quality=95, exif=exif)
        images.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
        for category, box in objects:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": 10 * category, "bbox": box}
                | {"iscrowd": int(category == 2 and number % 2)}
            )
    categories = [{"id": 10 * number, "name": str(number)} for number in range(len(COLORS))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "all.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def prepared(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that returns the scenes prepared as packed, or as an index, which is done once for each."""

    @functools.cache
    def run(storage: str) -> Path:
        folder = tmp_path_factory.mktemp(storage)
        data = {"source": "coco", "root": str(scenes), "image_size": [HEIGHT, WIDTH], "storage": storage}
        params = write_params(folder / "params.yaml", {f"prepare_data.{key}": value for key, value in data.items()})
        result = CliRunner().invoke(prepare_data.main, ["--params", str(params), "--out", str(folder / "out")])
        assert result.exit_code == 0, result.output
        return folder / "out"

    return run


def opened(folder: Path, batch_size: int = 6, **augment: Any) -> TrainingBatches:
    settings = Augment(**{"crop_padding": 0} | augment)
    return open_training_batches(folder, BoxTargets.of, batch_size=batch_size, augment=settings, mix=None, device=CPU)


def boxes_of(batch: Batch) -> BoxTargets:
    assert isinstance(batch.targets, BoxTargets)
    return batch.targets


def painted_boxes(image: Tensor) -> dict[int, np.ndarray]:
    """Return the extent of each colour in ``image`` (3, H, W), x1 y1 x2 y2."""
    pixels = 255 * image.permute(1, 2, 0).numpy()
    nearest = np.linalg.norm(pixels[:, :, None] - np.concatenate([COLORS, OTHERS]), axis=3).argmin(axis=2)
    found = {}
    for number in range(len(COLORS)):
        rows, columns = np.nonzero(nearest == number)
        if len(rows):
            found[number] = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return found


def assert_boxes_enclose(batch: Batch, zoom: float = 1.0) -> int:
    """Assert that boxes enclose what is painted in their colours, and nothing else is painted; return how many.

    ``zoom`` is by how much images may be enlarged along a side.
    """
    targets, tolerance = boxes_of(batch), TOLERANCE * max(1.0, zoom)
    for number, image in enumerate(batch.images):
        rows = slice(*targets.offsets[number : number + 2].tolist())
        seen = painted_boxes(image)
        for box, category in zip(targets.boxes[rows].numpy(), targets.classes[rows].tolist(), strict=True):
            if min(box[2:] - box[:2]) > 2 * tolerance:
                np.testing.assert_allclose(seen[category], box, atol=tolerance)
            seen.pop(category, None)
        for box in seen.values():
            sides = box[2:] - box[:2]
            assert min(sides) <= 2 or np.prod(sides - 1) <= 0.1 * LARGEST_BOX * zoom**2, "was dropped: little is left"
    return len(targets.boxes)


AUGMENTATIONS = [
    {},
    {"horizontal_flip": True},
    {"crop_padding": 12},
    {"resized_crop_scale": [0.3, 1.0]},
    {"resized_crop_scale": [0.5, 1.0], "horizontal_flip": True, "crop_padding": 5},
]


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("storage", ["packed", "index"])
def test_boxes_follow_what_is_painted(prepared: Callable[[str], Path], storage: str, augment: dict[str, Any]) -> None:
    batches = opened(prepared(storage), **augment)
    zoom = augment.get("resized_crop_scale", [1.0])[0] ** -0.5
    found = sum(assert_boxes_enclose(batch, zoom) for seed in range(6) for batch in batches.epoch(seed))
    assert found > 200


@pytest.mark.parametrize("span", [[0.4, 2.5], [0.5, 0.5], [2.0, 2.0]])
def test_boxes_follow_images_that_are_larger_or_smaller(prepared: Callable[[str], Path], span: list[float]) -> None:
    batches = opened(prepared("index"), scale_jitter=span, horizontal_flip=True, crop_padding=3)
    found = sum(assert_boxes_enclose(batch, span[1]) for seed in range(6) for batch in batches.epoch(seed))
    assert found > 150


def drawn(folder: Path, seed: int, **augment: Any) -> list[Batch]:
    return list(opened(folder, **augment).epoch(seed))


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first.images, second.images, rtol=0, atol=0)
        for name, values in boxes_of(first).truth().items():
            np.testing.assert_array_equal(values, boxes_of(second).truth()[name])


@pytest.mark.parametrize(("storage", "augment"), [("packed", AUGMENTATIONS[4]), ("index", {"scale_jitter": [0.5, 2]})])
def test_a_seed_repeats_an_epoch_bit_by_bit(
    prepared: Callable[[str], Path], storage: str, augment: dict[str, Any]
) -> None:
    folder = prepared(storage)
    assert_same(drawn(folder, 3, **augment), drawn(folder, 3, **augment))
    one, other = (boxes_of(drawn(folder, seed, **augment)[0]).boxes for seed in (3, 4))
    assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.parametrize(("storage", "augment"), [("packed", AUGMENTATIONS[4]), ("index", {"scale_jitter": [0.5, 2]})])
def test_processes_share_the_batches_that_one_would_have(
    prepared: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, storage: str, augment: dict[str, Any]
) -> None:
    folder = prepared(storage)
    whole = drawn(folder, 2, **augment)
    shards = []
    monkeypatch.setattr(distributed.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.distributed, "get_world_size", lambda: 2)
    for process in range(2):
        monkeypatch.setattr(distributed.distributed, "get_rank", lambda process=process: process)
        shards.append(drawn(folder, 2, **augment))
    for one, *parts in zip(whole, *shards, strict=True):
        torch.testing.assert_close(torch.cat([part.images for part in parts]), one.images)
        for name in ("boxes", "classes", "ignored", "areas", "sizes", "scales"):
            found = np.concatenate([boxes_of(part).truth()[name] for part in parts])
            np.testing.assert_array_equal(found, boxes_of(one).truth()[name])


def test_colours_and_erased_parts_leave_boxes_where_they_are(prepared: Callable[[str], Path]) -> None:
    folder = prepared("packed")
    plain, changed = drawn(folder, 1), drawn(folder, 1, color_jitter=0.4, random_erasing=1.0)
    for one, other in zip(plain, changed, strict=True):
        torch.testing.assert_close(boxes_of(one).boxes, boxes_of(other).boxes, rtol=0, atol=0)
        assert not torch.equal(one.images, other.images)


def test_packed_and_indexed_images_are_the_same(prepared: Callable[[str], Path]) -> None:
    assert_same(drawn(prepared("packed"), 5), drawn(prepared("index"), 5))


def test_what_is_written_says_how_images_were_brought_to_their_size(prepared: Callable[[str], Path]) -> None:
    folder = prepared("packed")
    info, split = read_info(folder), read_split(folder, "train", BoxTargets.of)
    assert (info.task, info.resize, info.padding, info.image_size) == ("detection", "letterbox", 114, (64, 96))
    assert info.category_ids == (0, 10, 20, 30, 40, 50)
    truth = split.targets.truth()
    learned = ~truth["ignored"]
    assert tuple(np.bincount(truth["classes"][learned], minlength=6)) == info.class_counts
    assert {name: (values.dtype.name, values.shape[1:]) for name, values in truth.items()} == {
        "boxes": ("float32", (4,)),
        "classes": ("int64", ()),
        "offsets": ("int64", ()),
        "ignored": ("bool", ()),
        "areas": ("float32", ()),
        "sizes": ("int64", (2,)),
        "scales": ("float64", ()),
    }
    Detection().require_truth(truth, len(split), info.class_names)
    back = truth["boxes"] / np.repeat(truth["scales"], np.diff(truth["offsets"]))[:, None]
    areas = (back[:, 2:] - back[:, :2]).prod(axis=1)
    np.testing.assert_allclose(areas, truth["areas"], rtol=1e-4, err_msg="boxes of the images as they are")


@pytest.mark.parametrize(
    ("source", "changes", "words"),
    [
        ("coco", {}, ("prepare_data.image_size: got null", "[height, width]")),
        ("imagefolder", {"image_size": [32, 48]}, ("prepare_data.image_size: got [32, 48]", "one number of pixels")),
    ],
)
def test_sizes_that_a_task_cannot_have_are_refused(
    scenes: Path, prepare: Prepare, tmp_path: Path, source: str, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    fill_folder(tmp_path / "photos", {"cat": 9, "dog": 9})
    refused(prepare(scenes if source == "coco" else tmp_path / "photos", source, **changes), *words)


@pytest.mark.parametrize("source", ["coco", "imagefolder"])
def test_the_parameters_are_checked_before_anything_runs(params_file: Callable[..., Path], source: str) -> None:
    given = {"prepare_data.source": source, "prepare_data.root": "x"}
    given |= {} if source == "coco" else {"prepare_data.image_size": [32, 48]}
    with pytest.raises(UserError, match=r"prepare_data\.image_size: got (null|\[32, 48\]), but"):
        load_params(params_file(given))


def test_packed_images_are_not_jittered(prepared: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match=r"augment\.scale_jitter: got \[0\.5, 2\.0\].*prepare_data\.storage to index"):
        opened(prepared("packed"), scale_jitter=[0.5, 2.0])


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ({"scale_jitter": [2.0, 0.5]}, "give the smaller factor first"),
        ({"scale_jitter": [0.5, 2.0], "resized_crop_scale": [0.5, 1.0]}, "leave one out"),
    ],
)
def test_scales_are_drawn_once_and_ascend(augment: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Augment(**augment)


def of_objects(*images: list[list[float]], size: tuple[int, int] = (40, 40)) -> BoxTargets:
    """Return the targets of images of ``size`` with boxes; the classes are 0, 1, 2 ... over all images."""
    boxes = np.array([box for image in images for box in image], dtype=np.float64).reshape(-1, 4)
    objects = Objects(
        boxes,
        np.arange(len(boxes)),
        np.arange(len(boxes)) % 2 == 1,
        (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        np.cumsum([0, *map(len, images)]),
        np.array([size] * len(images), dtype=np.int64).reshape(-1, 2),
    )
    return BoxTargets.of({name: torch.from_numpy(a) for name, a in encode_objects(objects, (40, 40)).items()})


def shifted(count: int, x: float, y: float) -> Geometry:
    ones = torch.ones(count)
    return Geometry(ones, x * ones, ones, y * ones, (40, 40))


def test_little_that_is_left_of_a_box_is_dropped_and_its_image_stays() -> None:
    """The classes tell which: 0 is cut, 1 leaves an eleventh, 2 half a pixel; the next image keeps its own."""
    targets = of_objects([[0, 0, 20, 10], [10, 0, 32, 10], [0, 0, 30.5, 10]], [[35, 5, 40, 10]], [])
    moved = targets.moved(shifted(3, -18, 0)).moved(shifted(3, 0, 0))
    assert moved.classes.tolist() == [0, 1, 2, 3]
    assert moved.boxes[0].tolist() == [0, 0, 2, 10]
    gone = targets.moved(shifted(3, -30, 0))
    assert (gone.classes.tolist(), gone.offsets.tolist(), len(gone)) == ([3], [0, 0, 1, 1], 3)
    assert gone.ignored.tolist() == [True]


def test_a_selection_takes_the_boxes_of_its_images() -> None:
    targets = of_objects([[0, 0, 5, 5]], [], [[1, 1, 9, 9], [2, 2, 8, 8]])
    chosen = targets.select(torch.tensor([2, 1, 0, 2]))
    assert chosen.classes.tolist() == [1, 2, 0, 1, 2]
    assert chosen.offsets.tolist() == [0, 2, 2, 3, 5]
    assert targets.select(slice(1, 3)).classes.tolist() == [1, 2]


def test_batches_without_any_box() -> None:
    for targets in (of_objects([], []), of_objects()):
        chosen = targets.moved(shifted(len(targets), 1, 1)).select(slice(0, 1)).to(CPU)
        assert chosen.boxes.shape == (0, 4)
        assert chosen.offsets.tolist() == [0] * (len(chosen) + 1)
        Detection().require_truth(chosen.truth(), len(chosen), ["a"])


def test_a_box_thinner_than_float32_keeps_some_extent() -> None:
    targets = of_objects([[30, 10, 30 + 1e-9, 20], [40 - 1e-9, 0, 40, 40]])
    assert (targets.boxes[:, 2:] > targets.boxes[:, :2]).all()
    assert targets.boxes.max() <= 40


def test_a_box_that_was_thin_before_it_moved_stays_while_it_is_whole() -> None:
    targets = of_objects([[10, 10, 10.4, 20], [30, 10, 30.4, 20]])
    assert targets.moved(shifted(1, 0, 0)).classes.tolist() == [0, 1]
    assert targets.moved(shifted(1, 5, -3)).classes.tolist() == [0, 1]
    assert targets.moved(shifted(1, 9.8, 0)).classes.tolist() == [0], "the second is cut in half"
