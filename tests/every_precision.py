"""Export one network in every precision: python -m tests.every_precision FOLDER, in any copy of this repository."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.students import build_flow_student
from pipeline.export.onnx.precisions import PRECISIONS, Source, export_precisions


def export_all(folder: Path) -> None:
    torch.manual_seed(0)
    names = {"backbone": "resnet8", "schedule": "rectified", "meta_encoder": "conv"}
    student = build_flow_student(num_classes=4, time_scale=1.0, mean=[0.5] * 3, std=[0.2] * 3, **names).eval()
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 8), dtype=np.uint8)
    options: dict[str, Any] = {"opset": 20, "input_dtype": "float32", "collapse": True, "method": "minmax"}
    folder.mkdir()
    export_precisions(Source(student, 2, images, {"method": "fm_kt"}, **options), folder, PRECISIONS)


if __name__ == "__main__":
    export_all(Path(sys.argv[1]))
