"""What is seen on image files, from a package alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core.arrays import Pixels
from pipeline.core.errors import readable_file
from pipeline.data.decoding import decode_image
from pipeline.package.reader import Package
from pipeline.package.verify import require_signature
from pipeline.runtimes.base import Runtime, predict
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Prediction

BATCH = 32


def open_runtime(package: Package, precision: str, *, provider: str, num_threads: int) -> OnnxRuntime:
    """Return a session over the file of ``precision``, which must be as its sum says.

    Raises:
        UserError: the package has no such file, it is damaged or another than the package says, or the provider is not
            available here.
    """
    (path,) = package.verified([package.file(precision).name])
    runtime = OnnxRuntime(path, provider=provider, num_threads=num_threads)
    require_signature(package.signature, runtime, path)
    return runtime


def predict_files(package: Package, runtime: Runtime, paths: Sequence[Path], *, top: int) -> list[Prediction]:
    """Return what is seen on each image file, prepared as the package was trained; at most ``top`` things on one.

    Raises:
        UserError: a file cannot be read; names it.
    """
    found: list[Prediction] = []
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        pixels = np.stack([_pixels(path, package.image_size) for path in some])  # (B, 3, H, W)
        outputs = predict(runtime, pixels, len(some))
        found += package.task.predictions([str(path) for path in some], outputs, package.class_names, top=top)
    return found


def _pixels(path: Path, size: tuple[int, int]) -> Pixels:
    with readable_file(path):
        data = path.read_bytes()
    return decode_image(str(path), data, size).transpose(2, 0, 1)
