"""The libraries whose versions decide about the bits of a training."""

import importlib.metadata

COMPUTING = ("numpy", "pillow", "pillow-heif", "simplejpeg", "timm", "torch", "torchvision")
"""What decodes images and computes; pillow-heif and timm may not be installed."""


def library_versions() -> dict[str, str | None]:
    """Return the version of each library that computes; None for one that is not installed."""
    return {name: _version(name) for name in COMPUTING}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
