"""The table of meta-encoders, the small networks g(Z, t) that predict the velocity of the flow.

To add one: a function from the number of channels to its layers, in a file of ``models/encoder_bodies``, and an entry
here. Any of them can have a width of its own, and a fixed number of steps then folds; at the states' full width it does
where the last layer is affine (a convolution, or a normalisation's scale and shift). See ``models.folding``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from .core.numbers import amount, positive
from .core.table import Entry, Table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .meta_encoder import MetaEncoder

    Body = Callable[[int], nn.Sequential]
    """From the channels of the states to the layers."""

InitialWeights = Literal["pytorch", "fan_out"]
"""From which distribution the first weights of convolutions are drawn."""
Predicts = Literal["velocity", "target"]
"""What a meta-encoder returns: v, or the estimate of X_T."""


@dataclass(frozen=True, kw_only=True)
class MetaEncoderEntry(Entry):
    """A meta-encoder in the table."""

    load: Callable[[], Body]


def _conv() -> Body:
    from .encoder_bodies.conv import conv_body

    return conv_body


def _conv_mobile() -> Body:
    from .encoder_bodies.conv import conv_mobile_body

    return conv_mobile_body


def _convnext() -> Body:
    from .encoder_bodies.convnext import convnext_body

    return convnext_body


def _mlp() -> Body:
    from .encoder_bodies.mlp import mlp_body

    return mlp_body


def _transformer() -> Body:
    from .encoder_bodies.transformer import transformer_body

    return transformer_body


def _transformer_shifted() -> Body:
    from .encoder_bodies.transformer import transformer_shifted_body

    return transformer_shifted_body


META_ENCODERS = Table(
    "meta-encoder",
    MetaEncoderEntry(name="conv", description="two 3x3 convolutions, the authors' form", load=_conv),
    MetaEncoderEntry(name="conv_mobile", description="1x1 and depthwise 3x3 convolution", load=_conv_mobile),
    MetaEncoderEntry(name="convnext", description="a ConvNeXt block: depthwise 7x7, twice 1x1", load=_convnext),
    MetaEncoderEntry(name="mlp", description="residual 1x1 convolutions", load=_mlp),
    MetaEncoderEntry(name="transformer", description="attention within windows", load=_transformer),
    MetaEncoderEntry(
        name="transformer_shifted",
        description="attention within windows and shifted ones, with relative positions",
        load=_transformer_shifted,
    ),
)


def build_meta_encoder(
    name: str,
    channels: int,
    *,
    width: int | None = None,
    time_scale: float = 1.0,
    velocity_norm: Callable[[Tensor], Tensor | None] | None = None,
    initial_weights: InitialWeights = "pytorch",
) -> MetaEncoder:
    """Return the meta-encoder called ``name`` for states of ``channels`` channels; see ``MetaEncoder``.

    Args:
        width: channels of its own, between two projections; None: those of the states, as the authors have it.
        time_scale: what times are multiplied by before their sinusoids; the authors use 1.
        initial_weights: of its convolutions; ``fan_out``, the authors' choice, is normal with variance 2 over the
            fan-out (He et al. 2015), 2.45 times as wide as PyTorch's own where both fans are alike.

    Raises:
        ValueError: a name is unknown, where the message lists the known ones; or width or time_scale is out of range.
    """
    from .layers.initialization import normal_by_fan_out
    from .meta_encoder import MetaEncoder

    time_scale = amount("time_scale", time_scale)
    if initial_weights not in get_args(InitialWeights):
        raise ValueError(f"initial_weights: got {initial_weights!r}; give {' or '.join(get_args(InitialWeights))}")
    body = META_ENCODERS[name].load()(channels if width is None else positive("width", width))
    encoder = MetaEncoder(channels, body, width=width, time_scale=time_scale, velocity_norm=velocity_norm)
    if initial_weights == "fan_out":
        normal_by_fan_out(encoder)
    return encoder
