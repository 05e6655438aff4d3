"""The float32 file as the source of all others."""

import shutil
from pathlib import Path

from pipeline.export.calibration import Calibration


def copy_float32(source: Path, path: Path, calibration: Calibration) -> None:  # noqa: ARG001  (signature of Derive)
    """Copy the float32 file ``source`` to ``path``."""
    shutil.copyfile(source, path)
