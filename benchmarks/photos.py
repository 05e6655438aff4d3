"""Make folders of photos to try the pipeline with, from the pictures that scikit-image and scikit-learn bring along.

    pip install scikit-image
    python -m benchmarks.photos data/photos --count 300          # five classes, seven formats, 150 to 600 pixels

Each photo is a part of the picture of its class, turned, mirrored, brightened, discoloured and noisy; seeded. The
classes are easy to tell apart: this shows that all works, not how good it gets. With --classes 2 scikit-learn is
enough.
"""

import importlib.util
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageEnhance

FORMATS = ("jpg", "png", "webp", "bmp", "gif", "tif", "jpeg")
PICTURES = {
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
}


def picture(package: str, path: str) -> Image.Image:
    """Return the picture at ``path`` in the installed ``package``."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise click.ClickException(f"{package} is not installed; pip install scikit-image scikit-learn")
    return Image.open(Path(spec.origin).parent / path).convert("RGB")


def photo(source: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return a random part of ``source``, 150 to 600 pixels wide."""
    height = random.uniform(0.35, 0.9) * min(source.size)
    width = min(height * random.uniform(0.85, 1.15), source.width)
    left, top = random.uniform(0, source.width - width), random.uniform(0, source.height - height)
    size = int(random.integers(150, 600))
    box = (left, top, left + width, top + height)
    found = source.resize((size, max(150, int(size * height / width))), Image.Resampling.BICUBIC, box=box)
    found = found.rotate(random.uniform(-15, 15), Image.Resampling.BICUBIC)
    found = ImageEnhance.Brightness(found).enhance(random.uniform(0.6, 1.4))
    found = ImageEnhance.Color(found).enhance(random.uniform(0.3, 1.6))
    if random.random() < 0.5:
        found = found.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    noisy = np.asarray(found) + random.normal(0, 12, (found.height, found.width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--count", default=300, show_default=True, help="Photos, of all classes together.")
@click.option("--classes", default=5, show_default=True, type=click.IntRange(2, len(PICTURES)))
@click.option("--seed", default=0, show_default=True)
def main(out: Path, count: int, classes: int, seed: int) -> None:
    """Write the photos to OUT, a folder for each class."""
    random = np.random.default_rng(seed)
    for name in list(PICTURES)[:classes]:
        folder, source = out / name, picture(*PICTURES[name])
        folder.mkdir(parents=True)
        for number in range(count // classes):
            photo(source, random).save(folder / f"{number:04}.{FORMATS[number % len(FORMATS)]}")


if __name__ == "__main__":
    main()
