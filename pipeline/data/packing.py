"""Turn a source into splits on disk: packed pixels of one size, or an index of files that are decoded on the fly."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tqdm import tqdm

from pipeline.core.arrays import Truth
from pipeline.core.errors import UserError
from pipeline.core.files import Json, sha256, write_json, write_text
from pipeline.data.decoding import Resize
from pipeline.data.file_list import FileList
from pipeline.data.image_bytes import State, read_image_bytes
from pipeline.data.letterbox import PADDING
from pipeline.data.original_sizes import original_sizes
from pipeline.data.reading import Fit, Image
from pipeline.data.splits import ImageSet
from pipeline.data.statistics import ChannelStatistics
from pipeline.data.summary import DataSummary, SplitFacts, pixel_digest

if TYPE_CHECKING:
    from pipeline.data.sources.settings import PrepareData

logger = logging.getLogger(__name__)

NAMED = 10
"""Unreadable files that a log names."""
SAMPLED = 20_000
"""Images of an index from which mean and standard deviation are taken."""


EncodeTruth = Callable[[ImageSet, Sequence[int], tuple[int, int]], Truth]
"""From a set, the positions of the images that are kept and the (H, W) that they are brought to, to what is right about
them, by the task's names."""


def write_splits(
    splits: Mapping[str, ImageSet],
    class_names: tuple[str, ...],
    folder: Path,
    settings: PrepareData,
    *,
    task: str,
    encode_truth: EncodeTruth,
    resize: Resize = "central_square",
    category_ids: tuple[int, ...] | None = None,
) -> DataSummary:
    """Write the splits and ``data.json``, which describes them, into ``folder``; return what they consist of.

    A packed split is ``<split>.safetensors``: images uint8 (N, H, W, 3), and the truth as the task names it; what its
    images are called lies beside it in ``<split>.names.json``. With
    ``storage`` index the training split is ``train.index.safetensors``: its files (see ``FileList``) and their truth,
    each file read once to know that it can be.

    Args:
        task, encode_truth: name of the task, and how it writes what is right about images.
        resize: how the task brings images to a size.
        category_ids: what the user's files call the classes; None: by their names alone.

    Raises:
        UserError: images differ in size and ``image_size`` is None, one is unreadable, the pixels would not fit, or
            ``image_size`` is not one that the task brings images to.
    """
    size = _common_size(splits["train"], settings, resize, task)
    is_resized = settings.image_size is not None or resize == "letterbox"
    fit = Fit(size if is_resized else None, settings.max_megapixels, resize)
    writer = _SplitWriter(folder, class_names, size, settings, encode_truth, fit)
    packed = [name for name in splits if settings.storage == "packed" or name != "train"]
    _check_memory(sum(len(splits[name].categories) for name in packed), size, settings.max_packed_gib)
    about: Json = {"task": task, "classes": list(class_names), "image_size": list(size), "source": settings.source}
    about |= {"resize": resize if is_resized else "none", "storage": settings.storage}
    about |= {"padding": PADDING} if resize == "letterbox" else {}
    about |= {} if category_ids is None else {"category_ids": list(category_ids)}
    about |= {"sizes": {}, "skipped": {}, "sha256": {}}
    facts: dict[str, SplitFacts] = {}
    for name, split in splits.items():
        statistics = ChannelStatistics() if name == "train" else None
        if name in packed:
            path, facts[name] = writer.pack(name, split, statistics)
        else:
            path, facts[name], about["files_sha256"] = writer.index(name, split, statistics)
        about["sizes"][name] = len(facts[name].names)
        about["skipped"][name] = facts[name].left_out
        about["sha256"][path.name] = sha256(path)
        if statistics is not None:
            about["mean"], about["std"] = statistics.mean_and_std()
    summary = DataSummary(class_names, facts, original_sizes(splits["train"]))
    write_json(folder / "data.json", about | summary.facts())
    return summary


def _check_memory(count: int, size: tuple[int, int], max_packed_gib: float) -> None:
    total = count * size[0] * size[1] * 3 / 2**30
    if total > max_packed_gib:
        raise UserError(
            f"prepare_data.max_packed_gib: the images take {total:.1f} GiB packed at {size[0]} x {size[1]}, allowed "
            f"are {max_packed_gib:g}; choose a smaller image_size or subset, set storage to index for training images "
            "to be decoded on the fly, or raise the limit if memory allows"
        )


def _common_size(train: ImageSet, settings: PrepareData, resize: Resize, task: str) -> tuple[int, int]:
    if resize == "central_square" and settings.sides is not None:
        raise UserError(
            f"prepare_data.image_size: got {list(settings.sides)}, but the task {task} cuts squares out of "
            "images; give one number of pixels"
        )
    if resize == "letterbox" and settings.known_size is None:
        raise UserError(
            f"prepare_data.image_size: got null, but the task {task} brings all images to one size; give a number of "
            "pixels or [height, width], e.g. 640 or [480, 640]"
        )
    if settings.image_size is not None and settings.known_size is not None:
        return settings.known_size
    for position in range(len(train.categories)):
        image = next(train.read(np.array([position]), Fit(max_megapixels=settings.max_megapixels)))
        if not isinstance(image, UserError):
            return image.shape[0], image.shape[1]
        if settings.unreadable == "stop":
            raise image
    raise UserError("no training image can be read; prepare_data.unreadable: stop names the first one's fault")


class _Kept:
    """The images of a split that could be read, as they come."""

    def __init__(self, split: ImageSet) -> None:
        self.split = split
        self.positions: list[int] = []
        self.digests = np.empty(len(split.categories), dtype=np.uint64)

    def add(self, position: int, image: Image) -> None:
        """Add the ``image`` at ``position`` of the split."""
        self.digests[len(self.positions)] = pixel_digest(image)
        self.positions.append(position)

    def facts(self) -> SplitFacts:
        """Return what was added."""
        return SplitFacts.of(self.split, self.positions, self.digests[: len(self.positions)])


def _with_objects(name: str, facts: SplitFacts) -> SplitFacts:
    """Return ``facts``; raises UserError where images of ``name`` should have objects, and none has one to find."""
    if facts.objects is not None and facts.objects.ignored.all():
        raise UserError(
            f"{name}: none of its {len(facts.names)} image(s) has an object to find, by which a detector learns and is "
            "judged; add images with objects, or divide them yourself into splits that each have some"
        )
    return facts


class _SplitWriter:
    """Read all images of a split and write it; images that cannot be read stop it or are counted."""

    def __init__(
        self,
        folder: Path,
        class_names: tuple[str, ...],
        size: tuple[int, int],
        settings: PrepareData,
        encode_truth: EncodeTruth,
        fit: Fit,
    ) -> None:
        self.folder = folder
        self.class_names = class_names
        self.size = size
        self.settings = settings
        self.fit = fit
        self.encode_truth = encode_truth

    def pack(self, name: str, split: ImageSet, statistics: ChannelStatistics | None) -> tuple[Path, SplitFacts]:
        """Write the pixels and the truth of ``split``; return the file and what is in it."""
        path = self.folder / f"{name}.safetensors"
        pixels = np.empty((len(split.categories), *self.size, 3), dtype=np.uint8)
        kept = _Kept(split)
        for position, image in self._read(name, split):
            pixels[len(kept.positions)] = image
            kept.add(position, image)
            if statistics is not None:
                statistics.add(image)
        facts = _with_objects(name, kept.facts())
        save_file({"images": pixels[: len(facts.names)], **self.encode_truth(split, kept.positions, self.size)}, path)
        path.chmod(0o644)  # safetensors leaves it to the owner alone
        write_text(self.folder / f"{name}.names.json", f"{json.dumps({'names': facts.names})}\n")
        return path, facts

    def index(self, name: str, split: ImageSet, statistics: ChannelStatistics | None) -> tuple[Path, SplitFacts, str]:
        """Write which files ``split`` has, and their truth.

        Returns the file, what is in it, and a digest of what the image files hold.
        """
        assert self.settings.root is not None
        root, path = Path(self.settings.root), self.folder / f"{name}.index.safetensors"
        digest = hashlib.sha256()
        kept = _Kept(split)
        states: dict[Path, State] = {}
        stride = max(1, len(split.categories) // SAMPLED)
        for position, image in self._read(name, split):
            kept.add(position, image)
            content = read_image_bytes(split.files[position], split.names[position])
            digest.update(content)
            states[split.files[position]] = State.of(content)
            if statistics is not None and position % stride == 0:
                statistics.add(image)
        facts = _with_objects(name, kept.facts())
        files = FileList.of(root, states)
        about = json.dumps({"max_megapixels": self.settings.max_megapixels, "root": str(root)})
        tensors = files.with_truth(self.encode_truth(split, kept.positions, self.size))
        save_file(tensors, path, {"about": about})  # one text: safetensors writes several in an order of chance
        path.chmod(0o644)  # safetensors leaves it to the owner alone
        return path, facts, digest.hexdigest()

    def _read(self, name: str, split: ImageSet) -> Iterator[tuple[int, Image]]:
        """Yield (position, image) of each image that can be read.

        Raises:
            UserError: an image cannot be read, or has another size; or none of a class is left.
        """
        faults: list[UserError] = []
        left = np.bincount(split.categories, minlength=len(self.class_names))
        images = split.read(np.arange(len(split.categories)), self.fit)
        shown = tqdm(images, desc=f"reading {name}", total=len(split.categories), disable=None)
        for position, image in enumerate(shown):
            if isinstance(image, UserError):
                if self.settings.unreadable == "stop":
                    raise UserError(f"{image}; prepare_data.unreadable: skip leaves out what cannot be read") from image
                faults.append(image)
                left[split.categories[position]] -= 1
                continue
            if image.shape[:2] != self.size:
                raise UserError(
                    f"{split.names[position]}: is {image.shape[1]} x {image.shape[0]} pixels, the first training image "
                    f"is {self.size[1]} x {self.size[0]}; set prepare_data.image_size to bring all images to one size"
                )
            yield position, image
        self._report(name, split, faults, left)

    def _report(self, name: str, split: ImageSet, faults: list[UserError], left: NDArray[np.int64]) -> None:
        count = len(split.categories)
        for fault in faults[:NAMED]:
            logger.warning("left out: %s", fault)
        if faults:
            logger.warning("%s: left out %d of %d images, which cannot be read", name, len(faults), count)
        if not left.any():
            raise UserError(f"{name}: none of its {count} images can be read; repair or replace them")
        if name == "train" and split.objects is None and not left.all():
            raise UserError(f"{name}: no image of class {self.class_names[int(left.argmin())]!r} can be read")
        logger.info("%s: %d images of %d x %d", name, count - len(faults), *self.size)
