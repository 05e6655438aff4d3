"""Export one network in every precision: python -m tests.every_precision FOLDER, in any copy of this repository."""

import sys
from pathlib import Path

import numpy as np
import torch

from models.deploy import SampledNetwork
from models.students import build_flow_student
from pipeline.export.onnx.files import Source, export_precisions
from pipeline.export.precisions import PRECISIONS
from pipeline.export.settings import ExportOnnx
from pipeline.tasks.table import get_task


def export_all(folder: Path) -> None:
    """Write the files of a student of two steps into the new ``folder``."""
    torch.manual_seed(0)
    names = {"backbone": "resnet8", "schedule": "rectified", "meta_encoder": "conv"}
    student = build_flow_student(num_classes=4, time_scale=1.0, mean=[0.5] * 3, std=[0.2] * 3, **names).eval()
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 8), dtype=np.uint8)
    task = get_task("classification")
    signature = task.signature(image_size=(8, 8), input_dtype="float32", class_names=["a", "b", "c", "d"])
    metadata = {"method": "fm_kt"}
    source = Source(SampledNetwork(student, 2), signature, task.training(), images, metadata, ExportOnnx())
    folder.mkdir()
    export_precisions(source, folder, list(PRECISIONS))


if __name__ == "__main__":
    export_all(Path(sys.argv[1]))
