"""Images per second of this pipeline's loader against torchvision's, on the same files and the same crops, in one run.

    python -m benchmarks.loader                      # 600 photographs of 500 x 375, crops of 8 to 100%, to 224 x 224
    python -m benchmarks.loader --width 4000 --height 3000 --count 60
    python -m benchmarks.loader --output benchmarks/results/loader.json

Each loader has one worker process, batches of 64, and hands out uint8 on the CPU, as ours does before its images go to
the device. ``pil`` is torchvision's ImageFolder with Pillow's decoder and v2's resized crop on Pillow images;
``tensor`` decodes with ``torchvision.io.decode_jpeg`` and crops tensors. Whole epochs of all three alternate, and a
ratio is that of neighbouring epochs. The photographs are parts of the two that scikit-learn ships, cut and resized with
a seed.
"""

import itertools
import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms.v2 import functional

from benchmarks.measuring import output_option, ratios, spread, take_turns, write_result
from pipeline.core.torch_setup import derive_seed
from pipeline.data.augmentation import Augmentation
from pipeline.data.dataset import ImageIndex
from pipeline.data.file_list import FileList
from pipeline.data.image_bytes import State
from pipeline.data.index_readers import SquareReader
from pipeline.data.random_crops import random_box
from pipeline.data.reading import Fit
from pipeline.data.streamed_batches import StreamedBatches
from pipeline.tasks.classification.targets import ClassTargets

Epoch = Callable[[int], Iterator[Tensor]]
"""From a seed to the batches of an epoch, uint8."""


def write_photos(folder: Path, count: int, width: int, height: int) -> None:
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    generator = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        wide = int(generator.integers(photo.width // 3, photo.width + 1))
        high = min(photo.height, wide * height // width)
        left, top = (int(generator.integers(0, end + 1)) for end in (photo.width - wide, photo.height - high))
        part = photo.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
        file = folder / str(number % 2) / f"{number:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        part.save(file, quality=90)


class Plain(Dataset[Tensor]):
    """torchvision's way: a file of an ImageFolder, decoded whole, cropped as ``random_box`` says."""

    def __init__(self, root: Path, size: int, scale: tuple[float, float], decoder: str) -> None:
        self.paths = [path for path, _ in ImageFolder(root).samples]
        self.size, self.scale, self.decoder = size, scale, decoder

    def __getitem__(self, wanted: tuple[int, int, int]) -> Tensor:
        position, place, seed = wanted
        path = self.paths[position]
        generator = random.Random(derive_seed(seed, place))  # noqa: S311
        if self.decoder == "pil":
            image = default_loader(path)
            box = random_box(image.width, image.height, self.scale, generator)
        else:
            image = decode_jpeg(read_file(path), ImageReadMode.RGB)
            box = random_box(image.shape[2], image.shape[1], self.scale, generator)
        shown = functional.resized_crop(
            image, box.top, box.left, box.height, box.width, [self.size] * 2, antialias=True
        )
        return torch.as_tensor(functional.pil_to_tensor(shown) if self.decoder == "pil" else shown)


class Order:
    """Batches of (position, place, seed) in the order of our epochs; the seed is set before each."""

    def __init__(self, count: int, batch: int) -> None:
        self.count, self.batch, self.seed = count, batch, 0

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        used = self.count // self.batch * self.batch
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.seed))[:used].tolist()
        wanted = [(position, place, self.seed) for place, position in enumerate(order)]
        return (wanted[start : start + self.batch] for start in range(0, used, self.batch))


def plain_epochs(root: Path, decoder: str, config: dict[str, Any]) -> Epoch:
    order = Order(config["count"], config["batch"])
    images = Plain(root, config["size"], config["scale"], decoder)
    loader: Iterable[Tensor] = DataLoader(
        images, batch_sampler=order, num_workers=config["workers"], prefetch_factor=4, persistent_workers=True
    )

    def epoch(seed: int) -> Iterator[Tensor]:
        order.seed = seed
        yield from loader

    return epoch


def our_epochs(root: Path, config: dict[str, Any]) -> Epoch:
    images = [Path(path) for path, _ in ImageFolder(root).samples]
    files = FileList.of(root, {image: State.of(image.read_bytes()) for image in images})
    index = ImageIndex(files, ClassTargets(torch.zeros(len(files), dtype=torch.int64)), Fit((config["size"],) * 2))
    augmentation = Augmentation(crop_padding=0, horizontal_flip=False, color_jitter=0.0)
    batches = StreamedBatches(
        index, batch_size=config["batch"], device=torch.device("cpu"), num_workers=config["workers"],
        read=SquareReader(index, config["scale"]), augmentation=augmentation, mix=None,
    )  # fmt: skip

    def epoch(seed: int) -> Iterator[Tensor]:
        for images, *_ in batches.decoded(seed):
            yield images

    return epoch


def one_after_the_other(epoch: Epoch) -> Callable[[], None]:
    """Return what passes over the next epoch each time that it is called."""
    seeds = itertools.count()

    def pass_over() -> None:
        for _ in epoch(next(seeds)):
            pass

    return pass_over


def largest_difference(epochs: dict[str, Epoch]) -> dict[str, float]:
    """Return the mean absolute difference, in levels of 255, between our first batch and each of the others'."""
    batches = {name: next(iter(epoch(0))).clone() for name, epoch in epochs.items()}
    ours = batches.pop("ours").permute(0, 3, 1, 2).float()
    return {name: round(float((batch.float() - ours).abs().mean()), 3) for name, batch in batches.items()}


@click.command()
@click.option("--count", default=600, show_default=True, help="Photographs.")
@click.option("--width", default=500, show_default=True)
@click.option("--height", default=375, show_default=True)
@click.option("--size", default=224, show_default=True, help="Pixels of a crop's side.")
@click.option("--scale", type=(float, float), default=(0.08, 1.0), show_default=True, help="Share of an image cut.")
@click.option("--batch", default=64, show_default=True)
@click.option("--workers", default=1, show_default=True, help="Processes of each loader.")
@click.option("--blocks", default=11, show_default=True, help="Epochs of each loader, which alternate.")
@output_option
def main(output: Path | None, **config: Any) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    config["batch"] = min(config["batch"], config["count"])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_photos(root, config["count"], config["width"], config["height"])
        epochs = {kind: plain_epochs(root, kind, config) for kind in ("pil", "tensor")}
        epochs["ours"] = our_epochs(root, config)
        apart = largest_difference(epochs)
        calls = {kind: one_after_the_other(epoch) for kind, epoch in epochs.items()}
        seconds = take_turns(calls, turns=config["blocks"])  # the warm-up starts processes and fills the file cache
    images = config["count"] // config["batch"] * config["batch"]
    click.echo(json.dumps(config))
    click.echo("loader  images/s  ours is faster (range)  mean difference of a pixel")
    results = {}
    for kind, spent in seconds.items():
        row = {"images_per_s": round(images / float(np.median(spent)), 1), "mean_difference": apart.get(kind, 0.0)}
        row = results[kind] = row | spread("speedup", ratios(spent, seconds["ours"]))
        low, high = row["speedup_range"]
        click.echo(
            f"{kind:6}  {row['images_per_s']:8}  {row['speedup']:5.2f} ({low:.2f} to {high:.2f})"
            f"     {row['mean_difference']:8.3f}"
        )
    write_result(output, config=config, results=results)


if __name__ == "__main__":
    main()
