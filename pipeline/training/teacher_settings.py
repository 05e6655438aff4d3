"""Settings of the stage ``train_teacher``."""

from pipeline.core.settings import BackboneName, knob
from pipeline.training.network_settings import TrainedNetwork
from pipeline.training.settings import Training


class TrainTeacher(TrainedNetwork):
    """The network to learn from: trained here, from scratch or from given weights, or taken as it is."""

    backbone: BackboneName = knob("resnet8x4", "resnet20, one of torchvision's, timm:NAME or python:FILE.py:FUNCTION")
    training: Training = knob(Training(epochs=20), "how the teacher is trained")
