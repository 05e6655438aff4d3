"""Networks with random weights that several measurements take, and what runs them by ONNX Runtime."""

from pathlib import Path

from torch import nn

from models.classifier import Classifier
from models.factory import build_classifier
from models.students import FlowStudent, build_flow_student
from pipeline.core.signature import image_input
from pipeline.export.onnx.exporter import export_image_network
from pipeline.runtimes.onnx import OnnxRuntime

CLASSES = 100
SIZE = (32, 32)
MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
"""Of CIFAR-100."""


def plain_network(backbone: str, *, classes: int = CLASSES) -> Classifier:
    """Return a plain network."""
    return build_classifier(backbone=backbone, num_classes=classes, mean=MEAN, std=STD)


def flow_student(backbone: str, *, classes: int = CLASSES) -> FlowStudent:
    """Return a student that ends in a flow, with the authors' settings."""
    return build_flow_student(
        backbone=backbone, num_classes=classes, mean=MEAN, std=STD,
        schedule="rectified", meta_encoder="conv", time_scale=1.0,
    )  # fmt: skip


def exported(network: nn.Module, path: Path, *, size: tuple[int, int] = SIZE) -> OnnxRuntime:
    """Write ``network``, images to logits, to ``path`` and return a session of one thread over it."""
    export_image_network(network, path, image_input(size, "float32"), ["logits"], opset=20, metadata={})
    return OnnxRuntime(path)
