"""What is seen on image files, from a package alone."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.core.errors import UserError
from pipeline.package.pictures import ImageFile, Picture, read_picture
from pipeline.package.reader import Package
from pipeline.runtimes.base import Runtime, predict
from pipeline.tasks.base import Prediction, Task

BATCH = 32


def predict_files(
    package: Package,
    runtime: Runtime,
    files: Sequence[ImageFile],
    *,
    top: int | None,
    min_score: float | None = None,
) -> Iterator[Prediction | UserError]:
    """Yield what is seen on each image, or why it cannot be read; a batch at a time.

    Images are prepared as those were that the package was trained on.

    Args:
        top: how many things to say of an image at most; None: all.
        min_score: score from which on a thing counts; None: what the package was exported with.

    Raises:
        UserError: there is nothing below ``min_score`` in the outputs of the package's files, or they have no scores.
    """
    task, classes = package.task, package.classes
    require_min_score(task, min_score)
    size = min(BATCH, task.batch_size)
    for start in range(0, len(files), size):
        some = files[start : start + size]
        read = [read_picture(file, package.image_size, resize=task.resize) for file in some]
        known = [picture for picture in read if isinstance(picture, Picture)]
        found: Iterator[Prediction] = iter(())
        if known:
            pixels = np.stack([picture.pixels for picture in known])  # (B, 3, H, W)
            outputs = predict(runtime, pixels, len(known))
            placements = [picture.placement for picture in known]
            found = iter(task.predictions(placements, outputs, classes, top=top, min_score=min_score))
        yield from (next(found) if isinstance(picture, Picture) else picture for picture in read)


def require_min_score(task: Task, min_score: float | None, key: str = "--min-score") -> None:
    """Raise UserError, naming ``key``, where the outputs of ``task`` cannot be cut at ``min_score``."""
    if min_score is None:
        return
    least = task.least_score
    if least is None:
        raise UserError(f"{key}: the task {task.name} finds no things with scores; leave it out")
    if min_score < least:
        raise UserError(
            f"{key}: got {min_score:g}, but the package's files leave out what scores below {least:g}; give "
            f"{least:g} or more, or export with a lower threshold"
        )
