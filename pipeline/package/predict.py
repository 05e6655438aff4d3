"""Labels of image files from a package alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.core.errors import readable_file
from pipeline.data.decoding import covering, decode_image
from pipeline.package.reader import LABELS, MANIFEST, Package, check_files, choose_file
from pipeline.runtimes.base import Runtime, predict
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.classification.metrics import log_softmax

BATCH = 32


class Prediction(NamedTuple):
    """What is seen on one image."""

    image: str
    labels: list[tuple[str, float]]
    """Label and probability, the most probable first."""


def open_package(package: Package, precision: str, *, provider: str, num_threads: int) -> OnnxRuntime:
    """Return a session over the file of ``precision``; it, the labels and the manifest must be as their sums say.

    Raises:
        UserError: the package has no such file, it is damaged, or the provider is not available here.
    """
    path = choose_file(package, precision)
    check_files(package, [MANIFEST, LABELS, path.name])
    return OnnxRuntime(path, provider=provider, num_threads=num_threads)


def predict_files(package: Package, runtime: Runtime, paths: Sequence[Path], *, top: int) -> list[Prediction]:
    """Return the ``top`` most probable labels of each image file, prepared as the package was trained.

    Raises:
        UserError: a file cannot be read; names it.
    """
    predictions = []
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        pixels = np.stack([_pixels(path, package.image_size) for path in some])  # (B, 3, H, W)
        logits = predict(runtime, pixels, len(some))
        for path, row in zip(some, np.exp(log_softmax(logits)), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            predictions.append(Prediction(str(path), [(package.labels[i], float(row[i])) for i in best]))
    return predictions


def _pixels(path: Path, size: tuple[int, int]) -> np.ndarray:
    with readable_file(path):
        data = path.read_bytes()
    return covering(decode_image(str(path), data), size).transpose(2, 0, 1)
