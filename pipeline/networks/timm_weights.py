"""The pretrained weights that timm knows of its networks, with the normalisation that they were trained with."""

from typing import Any

from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.networks.given_weights import GivenWeights, Statistics
from pipeline.networks.weights import Weights

PREFIX = "timm:"


def find_timm(*, backbone: str, choice: str, entry: str | None, key: str) -> GivenWeights:  # noqa: ARG001  (of all origins)
    """Return timm's weights with the tag ``choice`` of ``backbone``; where that is empty, those that it recommends.

    Raises:
        UserError: timm is not installed, or has no weights of that tag, or none for the backbone.
    """
    try:
        from timm.models import get_pretrained_cfg, list_pretrained
    except ImportError as error:
        raise UserError(f"{key}: timm is not installed here ({error}); run pip install -e '.[timm]'") from error
    network = backbone.removeprefix(PREFIX)
    tags = [name.partition(".")[2] for name in list_pretrained(f"{network}.*")]
    if not tags:
        raise UserError(f"{key}: timm has no weights of {network!r}; give a file, or null to train from scratch")
    recommended = get_pretrained_cfg(network)
    tag = choice or (recommended.tag if recommended is not None and recommended.tag in tags else tags[0])
    if tag not in tags:
        raise UserError(
            f"{key}: timm has no weights {tag!r} of {network}; it has {', '.join(tags)}; a file's path is taken too"
        )
    about = get_pretrained_cfg(f"{network}.{tag}")
    assert about is not None
    title = f"timm's weights {tag} of {network}"
    return GivenWeights(
        title=title,
        statistics=Statistics([*about.mean], [*about.std]),
        read=lambda: Weights(_fetched(f"{network}.{tag}", key), title, ()),
    )


def _fetched(name: str, key: str) -> dict[str, Tensor]:
    """Return the tensors of timm's network ``name`` (NETWORK.TAG), from timm's cache (HF_HOME), or downloaded into it.

    Raises:
        UserError: they cannot be downloaded, or are damaged.
    """
    import timm

    try:
        network: Any = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{key}: timm's {name} cannot be fetched ({reason}); download it elsewhere and give the file's path"
        ) from error
    return dict(network.state_dict())
