"""Samples are written: images by which a file or an engine is verified elsewhere."""

from pathlib import Path

from safetensors.numpy import save

from pipeline.core.files import write_bytes
from pipeline.export.folder import SAMPLES
from pipeline.tasks.verification import Reference


def write_samples(folder: Path, reference: Reference) -> None:
    """Write images and the trained network's outputs; see ``pipeline.export.folder.read_samples``."""
    truth = reference.truth if reference.task.scored_on_samples else {}
    write_bytes(folder / SAMPLES, save({"images": reference.pixels, **truth, **reference.outputs}))
