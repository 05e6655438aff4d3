"""The weights that torchvision publishes for its networks, with the normalisation that they were trained with."""

from typing import Any

from torch import Tensor
from torchvision import models

from pipeline.core.errors import UserError
from pipeline.networks.given_weights import GivenWeights, Statistics
from pipeline.networks.weights import Weights

SCALED_WITHIN = ("googlenet", "inception_v3")
"""Networks that torchvision gives ImageNet's normalisation, and that undo it where they have its published weights."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and std by which torchvision's detectors normalise."""
NO_EPSILON = {("retinanet_resnet50_fpn", "COCO_V1"), ("fasterrcnn_resnet50_fpn", "COCO_V1")}
"""Weights whose batch normalisations were trained with an epsilon of 0, which torchvision sets when it loads them."""
EPSILON = 1e-5
"""PyTorch's, which is added to each running variance."""


def find_torchvision(*, backbone: str, choice: str, entry: str | None, key: str) -> GivenWeights:  # noqa: ARG001  (of all origins)
    """Return torchvision's weights called ``choice`` of ``backbone``; where that is empty, those that it recommends.

    Raises:
        UserError: torchvision has no weights of that name, or none for the backbone.
    """
    network = backbone.removeprefix("torchvision:")
    try:
        known = models.get_model_weights(network).__members__
    except ValueError as error:
        raise UserError(
            f"{key}: torchvision has no weights of {network!r}; give a file, or null to train from scratch"
        ) from error
    name = choice or "DEFAULT"
    if name not in known:
        raise UserError(f"{key}: torchvision has no weights {name!r} of {network}; it has {', '.join(known)}")
    found = known[name]
    title = f"torchvision's weights {found.name} of {network}"
    return GivenWeights(
        title=title,
        statistics=_statistics(network, found),
        read=lambda: Weights(_as_trained(_fetched(found, key), network, found.name), title, ()),
    )


def _statistics(network: str, found: Any) -> Statistics:
    """Return by which the images were normalised that the entry ``found`` of ``network`` was trained on."""
    if network in SCALED_WITHIN:
        return Statistics([0.5] * 3, [0.5] * 3)
    transforms = found.transforms()
    if not hasattr(transforms, "mean"):  # of a detector, which normalises by itself
        return Statistics([*IMAGENET[0]], [*IMAGENET[1]])
    return Statistics([*transforms.mean], [*transforms.std])


def _as_trained(tensors: dict[str, Tensor], network: str, name: str) -> dict[str, Tensor]:
    """Return ``tensors`` so that PyTorch's batch normalisation computes with them what they were trained for."""
    if (network, name) not in NO_EPSILON:
        return tensors
    return {
        key: (value - EPSILON).clamp(min=0) if key.endswith("running_var") else value for key, value in tensors.items()
    }


def _fetched(found: Any, key: str) -> dict[str, Any]:
    """Return the tensors of torchvision's entry ``found``, from PyTorch's cache (TORCH_HOME), or downloaded into it.

    Raises:
        UserError: they cannot be downloaded, or are damaged.
    """
    try:
        return dict(found.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{key}: {found.url} cannot be fetched ({reason}); download it elsewhere and give the file's path"
        ) from error
