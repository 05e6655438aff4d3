"""Prepared data of a detector: small images with squares of three colours, and crowds that are not to be learned."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.data.dataset import DataInfo, Split
from pipeline.tasks.detection.targets import BoxTargets

CLASSES = ("red", "green", "blue")
SIDE = 32
INFO = DataInfo("detection", CLASSES, (SIDE, SIDE), (0.2,) * 3, (0.2,) * 3, "none", "packed", (40, 40, 40))


def make_tensors(count: int, seed: int = 0) -> dict[str, Tensor]:
    """Return ``count`` images (count, H, W, 3) and what is on them, as ``prepare_data`` stores it; some are empty."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 60, (count, SIDE, SIDE, 3), dtype=np.uint8)
    boxes, classes, offsets = [], [], [0]
    for image in images:
        for _ in range(random.integers(0, 4)):
            width, height = random.integers(8, 17, 2)
            x, y = random.integers(0, SIDE - width + 1), random.integers(0, SIDE - height + 1)
            classes.append(int(random.integers(3)))
            image[y : y + height, x : x + width] = 0
            image[y : y + height, x : x + width, classes[-1]] = 220
            boxes.append([x, y, x + width, y + height])
        offsets.append(len(boxes))
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {
        "images": torch.from_numpy(images),
        "boxes": found,
        "classes": torch.tensor(classes, dtype=torch.int64),
        "offsets": torch.tensor(offsets),
        "ignored": torch.arange(len(found)) % 17 == 16,
        "areas": (found[:, 2:] - found[:, :2]).prod(dim=1),
        "sizes": torch.full((count, 2), SIDE),
        "scales": torch.ones(count, dtype=torch.float64),
    }


def make_split(count: int, seed: int = 0) -> Split:
    """Return the same as a split."""
    tensors = make_tensors(count, seed)
    return Split(tensors.pop("images").permute(0, 3, 1, 2), BoxTargets(**tensors))


def write_data(folder: Path, *, train: int = 48, held_out: int = 16) -> None:
    """Write the splits and data.json into ``folder``."""
    folder.mkdir(parents=True)
    for seed, (name, count) in enumerate({"train": train, "calib": held_out, "test": held_out}.items()):
        save_file(make_tensors(count, seed), folder / f"{name}.safetensors")
        (folder / f"{name}.names.json").write_text(json.dumps({"names": [f"{i}.png" for i in range(count)]}))
    about = {"task": INFO.task, "classes": list(CLASSES), "image_size": [SIDE, SIDE], "mean": [0.2] * 3}
    about |= {"std": [0.2] * 3, "resize": "none", "storage": "packed", "class_counts": {"train": [40] * 3}}
    about["sizes"] = {"train": train, "calib": held_out, "test": held_out}
    (folder / "data.json").write_text(json.dumps(about))
