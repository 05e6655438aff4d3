"""Feature trunks cut out of torchvision's classifiers, and those classifiers themselves."""

import functools
import math
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision import models, ops
from torchvision.models.feature_extraction import NodePathTracer, create_feature_extractor

PROBE_SIZE = 224
NO_FEATURES = (
    "pools no feature map before its classifier, so the flow has nothing to start from; "
    "choose another convolutional backbone, or method none or metric"
)


@functools.cache
def torchvision_names() -> frozenset[str]:
    """Return the names of torchvision's image classifiers."""
    return frozenset(models.list_models(module=models))


def build_torchvision_classifier(name: str, num_classes: int) -> nn.Module:
    """Return torchvision's classifier ``name`` with random weights: images (B, 3, H, W) to logits (B, num_classes)."""
    options: dict[str, Any] = {"num_classes": num_classes}
    if name in {"googlenet", "inception_v3"}:  # their auxiliary heads change what forward returns
        options.update(aux_logits=False, init_weights=True)
    return models.get_model(name, weights=None, **options)  # type: ignore[no-any-return]


class TorchvisionTrunk(nn.Module):
    """Torchvision's classifier ``name`` up to its last adaptive pooling: images to features (B, C, H', W').

    What follows the pooling is left out, also the fully connected layers of AlexNet and VGG.

    Raises:
        ValueError: the classifier pools no feature map (vision transformers), or nothing is learnt after its pooling,
            so that the map already holds the classes (SqueezeNet).
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        classifier = build_torchvision_classifier(name, num_classes=2)
        node = _pooled_node(name, classifier)
        self.extractor = create_feature_extractor(classifier, {node: "features"}, tracer_kwargs=_tracing())
        if len(list(self.extractor.parameters())) == len(list(classifier.parameters())):
            raise ValueError(f"backbone {name!r} {NO_FEATURES}")
        with torch.no_grad():
            probe = self.extractor.eval()(torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE))["features"]
        self.extractor.train()
        self.channels = int(probe.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map that the classifier would pool."""
        return self.extractor(images)["features"]  # type: ignore[no-any-return]


def _pooled_node(name: str, classifier: nn.Module) -> str:
    """Return torchvision's name of the graph node that feeds the last adaptive pooling of ``classifier``."""
    tracer = NodePathTracer(**_tracing())
    graph = tracer.trace(classifier.eval())
    classifier.train()
    pooled = [node.args[0] for node in graph.nodes if _is_global_pooling(node, classifier)]
    if not pooled:
        raise ValueError(f"backbone {name!r} {NO_FEATURES}")
    return str(tracer.node_to_qualname[pooled[-1]])


def _tracing() -> dict[str, Any]:
    """Return how both tracers work, so that they name nodes alike: torchvision's own operators are not looked into.

    A new dictionary each time, since ``create_feature_extractor`` writes to the one that it is given.
    """
    operators = [item for item in vars(ops).values() if isinstance(item, type) and issubclass(item, nn.Module)]
    return {"autowrap_modules": (math, ops), "leaf_modules": operators}


def _is_global_pooling(node: fx.Node, root: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(root.get_submodule(str(node.target)), nn.AdaptiveAvgPool2d)
    if node.target is nn.functional.adaptive_avg_pool2d:
        return True
    return node.target == "mean" and list(node.args[1:]) == [[2, 3]]
