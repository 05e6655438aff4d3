"""The backbones for small images, built from their configurations."""

from collections.abc import Callable, Sequence

from ..layers.shape_transform import LogitTransform
from .backbone import Backbone, BackboneAndHead
from .bottleneck_resnet import BottleneckResNet
from .catalog import SMALL_IMAGE_BACKBONES
from .cifar_mobilenet_v2 import CifarMobileNetV2
from .cifar_resnet import CifarResNet
from .cifar_shufflenet import CifarShuffleNetV1, CifarShuffleNetV2
from .cifar_vgg import CifarVgg
from .wide_resnet import WideResNet

FAMILIES: dict[str, Callable[..., Backbone]] = {
    "bottleneck_resnet": BottleneckResNet,
    "mobilenet_v2": CifarMobileNetV2,
    "resnet": CifarResNet,
    "shufflenet_v1": CifarShuffleNetV1,
    "shufflenet_v2": CifarShuffleNetV2,
    "vgg": CifarVgg,
    "wide_resnet": WideResNet,
}


def build_small_image_network(
    name: str,
    num_classes: int,
    image_size: Sequence[int] | None,  # noqa: ARG001  (they take any)
) -> BackboneAndHead:
    """Return the network ``name`` of ``models.backbones.catalog``, with random weights."""
    config = SMALL_IMAGE_BACKBONES[name]
    backbone = FAMILIES[config.family](**config.arguments)
    return BackboneAndHead(backbone, LogitTransform(backbone.channels, num_classes))
