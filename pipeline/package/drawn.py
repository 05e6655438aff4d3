"""Images with what is seen on them drawn in, written into a folder of their own."""

from collections.abc import Sequence
from pathlib import Path, PurePath

from PIL import Image

from pipeline.core.errors import UserError, written_file
from pipeline.core.printable import printable
from pipeline.package.pictures import ImageFile, read_whole
from pipeline.tasks.base import Painter, Prediction, Task

QUALITY = 90
"""Of JPEG files."""
KEPT = frozenset({".jpg", ".jpeg", ".png"})
"""Endings that a copy has too; a copy of another kind of file becomes a PNG file."""


class DrawnImages:
    """Copies of some images in a folder that held nothing before, so that nothing in it is overwritten."""

    def __init__(self, folder: Path, painter: Painter, files: Sequence[ImageFile]) -> None:
        """Prepare ``folder`` for the copies of ``files``.

        Raises:
            UserError: the folder holds something.
        """
        self.folder = folder
        self.painter = painter
        self.places = _apart(files)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"--draw: {printable(folder)} is no empty folder; give a new one, so that no image is lost")

    def write(self, file: ImageFile, prediction: Prediction) -> None:
        """Write the image in ``file`` with what ``prediction`` says drawn in; it is read anew, since it may be large.

        Raises:
            UserError: it cannot be read any more.
        """
        path = self.folder / self.places[file]
        drawn = self.painter(read_whole(file), prediction)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_file(path):
            Image.fromarray(drawn).save(path, quality=QUALITY)


def required_painter(task: Task) -> Painter:
    """Return what draws predictions of ``task``; raises UserError where there is nothing to draw."""
    painter = task.painter()
    if painter is None:
        raise UserError(f"--draw: what the task {task.name} finds has no place on an image; leave it out")
    return painter


def _apart(files: Sequence[ImageFile]) -> dict[ImageFile, PurePath]:
    """Return where the copy of each image lies in the folder; of equal places the later ones get a number."""
    places: dict[ImageFile, PurePath] = {}
    taken = set[PurePath]()
    for file in dict.fromkeys(files):
        name = file.place.name if file.place.suffix.lower() in KEPT else f"{file.place.name}.png"
        place, number = file.place.with_name(name), 2
        while place in taken:
            place, number = file.place.with_name(f"{Path(name).stem}-{number}{Path(name).suffix}"), number + 1
        taken.add(place)
        places[file] = place
    return places
