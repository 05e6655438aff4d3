"""Turn a source into splits on disk: packed pixels of one size, or an index of files that are decoded on the fly."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tqdm import tqdm

from pipeline.core.errors import UserError
from pipeline.core.files import Json, sha256, write_json, write_text
from pipeline.data.reading import Image
from pipeline.data.splits import ImageSet
from pipeline.data.statistics import ChannelStatistics

logger = logging.getLogger(__name__)

NAMED = 10
"""Unreadable files that a log names."""
SAMPLED = 20_000
"""Images of an index from which mean and standard deviation are taken."""


def write_splits(
    splits: Mapping[str, ImageSet],
    classes: tuple[str, ...],
    folder: Path,
    *,
    source: str,
    root: str | None,
    image_size: int | None,
    max_packed_gib: float,
    storage: str,
    unreadable: str,
) -> Json:
    """Write the splits and ``data.json``, which describes them, into ``folder``; return the latter.

    A packed split is ``<split>.safetensors`` (images uint8 (N, H, W, 3), labels int64 (N,)). With ``storage`` index the
    training split is ``train.index.json``: the names of its files below ``root`` and their labels, each file read once
    to know that it can be.

    Args:
        unreadable: ``stop`` at the first image that cannot be read, or ``skip`` such images.

    Raises:
        UserError: images differ in size and ``image_size`` is None, one is unreadable, or the pixels would not fit.
    """
    size = _common_size(splits["train"], image_size)
    reader = _Reader(classes, size, image_size, skip=unreadable == "skip")
    packed = [name for name in splits if storage == "packed" or name != "train"]
    _check_memory(sum(len(splits[name].labels) for name in packed), size, max_packed_gib)
    about: Json = {"task": "classification", "classes": list(classes), "image_size": list(size), "source": source}
    about |= {"resize": "none" if image_size is None else "central_square", "storage": storage}
    about |= {"sizes": {}, "skipped": {}, "sha256": {}}
    for name, split in splits.items():
        statistics = ChannelStatistics() if name == "train" else None
        if name in packed:
            path, kept = _pack(folder / f"{name}.safetensors", name, split, reader, statistics)
        else:
            assert root is not None
            path, kept, about["files_sha256"] = _index(
                folder / "train.index.json", Path(root), name, split, reader, statistics
            )
        about["sizes"][name] = kept
        about["skipped"][name] = len(split.labels) - kept
        about["sha256"][path.name] = sha256(path)
        if statistics is not None:
            about["mean"], about["std"] = statistics.mean_and_std()
    write_json(folder / "data.json", about)
    return about


def _check_memory(count: int, size: tuple[int, int], max_packed_gib: float) -> None:
    total = count * size[0] * size[1] * 3 / 2**30
    if total > max_packed_gib:
        raise UserError(
            f"prepare_data.max_packed_gib: the images take {total:.1f} GiB packed at {size[0]} x {size[1]}, allowed "
            f"are {max_packed_gib:g}; choose a smaller image_size or subset, set storage to index for training images "
            "to be decoded on the fly, or raise the limit if memory allows"
        )


def _common_size(train: ImageSet, image_size: int | None) -> tuple[int, int]:
    if image_size is not None:
        return image_size, image_size
    for position in range(len(train.labels)):
        _, image = next(train.read(np.array([position]), None))
        if not isinstance(image, UserError):
            return image.shape[0], image.shape[1]
    raise UserError("no training image can be read; prepare_data.unreadable: stop names the first one's fault")


class _Reader:
    """Read all images of a split; those that cannot be read stop it or are counted."""

    def __init__(self, classes: tuple[str, ...], size: tuple[int, int], image_size: int | None, *, skip: bool) -> None:
        self.classes = classes
        self.size = size
        self.image_size = image_size
        self.skip = skip

    def __call__(self, name: str, split: ImageSet) -> Iterator[tuple[int, Image]]:
        """Yield (position, image) of each image that can be read.

        Raises:
            UserError: an image cannot be read, or has another size; or none of a class is left.
        """
        faults: list[UserError] = []
        left = np.bincount(split.labels, minlength=len(self.classes))
        images = split.read(np.arange(len(split.labels)), self.image_size)
        shown = tqdm(images, desc=f"reading {name}", total=len(split.labels), disable=None)
        for position, (label, image) in enumerate(shown):
            if isinstance(image, UserError):
                if not self.skip:
                    raise image
                faults.append(image)
                left[split.labels[position]] -= 1
                continue
            if image.shape[:2] != self.size:
                raise UserError(
                    f"{label}: is {image.shape[1]} x {image.shape[0]} pixels, the first training image is "
                    f"{self.size[1]} x {self.size[0]}; set prepare_data.image_size to bring all images to one size"
                )
            yield position, image
        self._report(name, len(split.labels), faults, left)

    def _report(self, name: str, count: int, faults: list[UserError], left: NDArray[np.int64]) -> None:
        for fault in faults[:NAMED]:
            logger.warning("left out: %s", fault)
        if faults:
            logger.warning("%s: left out %d of %d images, which cannot be read", name, len(faults), count)
        if name == "train" and not left.all():
            raise UserError(f"{name}: no image of class {self.classes[int(left.argmin())]!r} can be read")
        logger.info("%s: %d images of %d x %d", name, count - len(faults), *self.size)


def _pack(
    path: Path, name: str, split: ImageSet, reader: _Reader, statistics: ChannelStatistics | None
) -> tuple[Path, int]:
    pixels = np.empty((len(split.labels), *reader.size, 3), dtype=np.uint8)
    kept: list[int] = []
    for position, image in reader(name, split):
        pixels[len(kept)] = image
        kept.append(position)
        if statistics is not None:
            statistics.add(image)
    save_file({"images": pixels[: len(kept)], "labels": split.labels[kept]}, path)
    path.chmod(0o644)  # safetensors leaves it to the owner alone
    return path, len(kept)


def _index(
    path: Path, root: Path, name: str, split: ImageSet, reader: _Reader, statistics: ChannelStatistics | None
) -> tuple[Path, int, str]:
    """Write the index; return its path, the number of its images, and a digest of their files."""
    digest = hashlib.sha256()
    kept = []
    stride = max(1, len(split.labels) // SAMPLED)
    for position, image in reader(name, split):
        kept.append(position)
        digest.update(split.files[position].read_bytes())
        if statistics is not None and position % stride == 0:
            statistics.add(image)
    content = {
        "root": str(root),
        "files": [str(split.files[position].relative_to(root)) for position in kept],
        "labels": split.labels[kept].tolist(),
    }
    write_text(path, f"{json.dumps(content)}\n")
    return path, len(kept), digest.hexdigest()
