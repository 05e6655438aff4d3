"""Meta-encoders in float64, against their formulas written out independently."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, group_norm, relu, silu
from torchvision.models.swin_transformer import shifted_window_attention

from models.encoder_bodies.mlp import ChannelLayerNorm
from models.encoder_bodies.transformer import WindowAttention
from models.flow import FlowTransfer
from models.layers.time_embedding import TimeEmbedding, sinusoidal_embedding
from models.meta_encoder import LayerEncoder
from models.meta_encoders import META_ENCODERS, build_meta_encoder
from models.schedules import get_schedule
from models.students import build_layered_classifier

KNOWN = ("conv", "conv_mobile", "mlp", "transformer")
"""The meta-encoders whose formulas are known here."""
every_meta_encoder = pytest.mark.parametrize("name", sorted(META_ENCODERS))


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def random_weights(network: nn.Module) -> nn.Module:
    """Return ``network`` in float64, no weight of it 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.double().parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return network


def random_maps(channels: int, height: int, width: int) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@every_meta_encoder
@pytest.mark.parametrize("velocity_norm", [None, lambda t: 1 + 10 * t])
def test_a_velocity_is_the_body_of_the_state_and_its_own_time(name: str, velocity_norm: Callable | None) -> None:
    encoder = random_weights(build_meta_encoder(name, 6, time_scale=3.0, velocity_norm=velocity_norm))
    x, t = random_maps(6, 5, 4), torch.tensor([1.0, 0.5], dtype=torch.float64)
    velocity = encoder(x=x, t=t)
    assert velocity.shape == x.shape
    assert not torch.isclose(velocity, encoder(x=x, t=t.flip(0))).flatten(1).all(dim=1).any()
    for i, factor in enumerate([11, 6] if velocity_norm else [1, 1]):
        shift = encoder.time_embedding(t[i : i + 1]).reshape(6, 1, 1)
        torch.testing.assert_close(velocity[i : i + 1], factor * encoder.body(x[i : i + 1] + shift))
    torch.testing.assert_close(encoder.velocity_at(x, encoder.condition(t)), velocity)


@pytest.mark.parametrize("width", [4, 10])
def test_meta_encoders_have_the_published_parameters(width: int) -> None:
    point = width**2 + width  # a 1x1 convolution with bias, or a linear layer
    bodies = {
        "conv": 2 * 9 * width**2 + 2 * width,
        "conv_mobile": width**2 + 2 * width + 9 * width,
        "mlp": 2 * (2 * point + 2 * width),
        "transformer": 3 * 256 * width + (256 * width + width) + 2 * width + (2 * point + 2 * width),
    }
    assert bodies.keys() == set(KNOWN)
    for name, expected in bodies.items():
        encoder = build_meta_encoder(name, width)
        assert sum(parameter.numel() for parameter in encoder.body.parameters()) == expected
        assert sum(parameter.numel() for parameter in encoder.parameters()) == expected + 2 * point


def layer_norm(x: Tensor, weights: Iterator[Tensor]) -> Tensor:
    mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, correction=0)
    gain, bias = next(weights), next(weights)
    return (x - mean) / (variance + 1e-5).sqrt() * gain[:, None, None] + bias[:, None, None]


def mlp_block(x: Tensor, weights: Iterator[Tensor]) -> Tensor:
    hidden = relu(conv2d(x, next(weights), next(weights)))
    return layer_norm(x + conv2d(hidden, next(weights), next(weights)), weights)


def attention(x: Tensor, rows: int, columns: int, weights: Iterator[Tensor]) -> Tensor:
    """Return ``x`` plus attention with 4 heads in windows, by loops over images, windows, tokens and heads."""
    project_in, project_out, bias = next(weights)[..., 0, 0], next(weights)[..., 0, 0], next(weights)
    out = x.clone()
    for image in range(len(x)):
        for top in range(0, x.shape[2], rows):
            for left in range(0, x.shape[3], columns):
                places = [(top + row, left + column) for row in range(rows) for column in range(columns)]
                projected = torch.stack([project_in @ x[image, :, row, column] for row, column in places])
                query, key, value = projected.reshape(-1, 3, 4, 64).unbind(1)  # (tokens, heads, head width)
                for token, (row, column) in enumerate(places):
                    joined = []
                    for head in range(4):
                        scores = (key[:, head] @ query[token, head] / 8).exp()
                        joined.append(scores / scores.sum() @ value[:, head])
                    out[image, :, row, column] += project_out @ torch.cat(joined) + bias
    return out


@pytest.mark.parametrize("name", KNOWN)
def test_a_body_follows_its_formula(name: str) -> None:
    body, x = random_weights(META_ENCODERS[name].load()(6)), random_maps(6, 4, 4)
    weights = iter(body.parameters())
    if name == "mlp":
        expected = mlp_block(mlp_block(x, weights), weights)
    elif name == "transformer":
        expected = mlp_block(layer_norm(attention(x, 2, 2, weights), weights), weights)
    else:
        activation, groups = (silu, 1) if name == "conv" else (relu, 6)
        hidden = conv2d(activation(x), next(weights), padding="same")
        hidden = activation(group_norm(hidden, 1, next(weights), next(weights)))
        expected = conv2d(hidden, next(weights), padding="same", groups=groups)
    assert next(weights, None) is None
    torch.testing.assert_close(body(x), expected)


@pytest.mark.parametrize(
    ("size", "window"), [((14, 28), (7, 7)), ((4, 6), (2, 2)), ((14, 4), (2, 2)), ((5, 3), (5, 3)), ((7, 6), (7, 6))]
)
def test_window_attention_equals_loops_and_does_not_mix_windows(size: tuple[int, int], window: tuple[int, int]) -> None:
    layer, x = random_weights(WindowAttention(3)), random_maps(3, *size)
    output = layer(x)
    torch.testing.assert_close(output, attention(x, *window, layer.parameters()))
    x[0, :, 0, 0] += 1
    reached = torch.zeros(2, *size, dtype=torch.bool)
    reached[0, : window[0], : window[1]] = True
    assert torch.equal((layer(x) != output).any(dim=1), reached)


def test_channel_layer_norm_treats_each_position_on_its_own() -> None:
    norm, x = random_weights(ChannelLayerNorm(6)), random_maps(6, 3, 2)
    torch.testing.assert_close(norm(x), layer_norm(x, norm.parameters()))


@every_meta_encoder
def test_meta_encoder_layers_are_one_rectified_step_without_the_time(name: str) -> None:
    layers, x = random_weights(LayerEncoder(6, META_ENCODERS[name].load()(6))), random_maps(6, 4, 4)
    torch.testing.assert_close(layers(x), x - layers.body(x))
    encoder = build_meta_encoder(name, 6).double()
    encoder.body.load_state_dict(layers.body.state_dict())
    for parameter in encoder.time_embedding.parameters():
        parameter.zero_()
    flow = FlowTransfer(velocity=encoder, schedule=get_schedule("rectified"), transform=nn.Identity())
    torch.testing.assert_close(layers(x), flow.trajectory(x, 1).states[-1])


def test_an_unknown_meta_encoder_lists_the_known_ones() -> None:
    known = "unknown meta-encoder 'lstm'; known: conv, conv_mobile, convnext, mlp, transformer"
    with pytest.raises(ValueError, match=known):
        build_meta_encoder("lstm", 4)
    with pytest.raises(ValueError, match=known):
        build_layered_classifier(backbone="resnet8", num_classes=3, mean=[0.5] * 3, std=[0.25] * 3, layers="lstm")


def test_the_steps_of_a_chain_are_conditioned_as_their_times_one_by_one() -> None:
    for velocity_norm in (None, lambda t: 1 + 10 * t):
        encoder = random_weights(build_meta_encoder("conv", 6, time_scale=3.0, velocity_norm=velocity_norm))
        x = random_maps(6, 5, 4)
        along = encoder.along(encoder.condition_steps(3))
        for time in (1.0, 2 / 3, 1 / 3):
            t = torch.full((2,), time, dtype=torch.float64)
            torch.testing.assert_close(along(x=x, t=t), encoder(x=x, t=t))


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_a_time_embedding_is_two_layers_on_the_sinusoids_of_scaled_times(width: int) -> None:
    embedding, t = random_weights(TimeEmbedding(width, scale=50.0)), torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64)
    half, first, second = width // 2, embedding.project[0], embedding.project[2]
    for row, time in enumerate(t.tolist()):
        angles = [50 * time * 10_000 ** (-j / half) for j in range(half)]
        sinusoids = [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + [0.0] * (width % 2)
        assert sinusoidal_embedding(50 * t, width)[row].tolist() == pytest.approx(sinusoids, abs=1e-12)
        hidden = relu(first.weight @ torch.tensor(sinusoids, dtype=torch.float64) + first.bias)
        torch.testing.assert_close(embedding(t)[row], second.weight @ hidden + second.bias)


@pytest.mark.parametrize(("size", "window"), [((14, 14), 7), ((8, 6), 2), ((7, 7), 7)])
@pytest.mark.parametrize("shifted", [False, True])
def test_shifted_windows_with_relative_positions_are_those_of_swin(
    size: tuple[int, int], window: int, *, shifted: bool
) -> None:
    heads, head_width, channels = 2, 3, 6
    layer = WindowAttention(channels, heads=heads, head_width=head_width, relative=True, shifted=shifted)
    random_weights(layer)
    x = random_maps(channels, *size)
    steps = torch.arange(window)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    down = rows.flatten()[:, None] - rows.flatten() + 6
    right = columns.flatten()[:, None] - columns.flatten() + 6
    shift = window // 2 if shifted else 0
    attended = shifted_window_attention(
        x.permute(0, 2, 3, 1),
        layer.project_in.weight.flatten(1),
        layer.project_out.weight.flatten(1),
        layer.relative[:, down, right][None],
        [window, window],
        heads,
        [shift, shift],
        qkv_bias=x.new_zeros(3 * channels),
        proj_bias=layer.project_out.bias,
        training=False,
    )
    torch.testing.assert_close(layer(x), x + attended.permute(0, 3, 1, 2), rtol=1e-9, atol=1e-9)


def test_the_authors_first_weights_are_normal_over_the_fan_out() -> None:
    torch.manual_seed(0)
    usual, theirs = (build_meta_encoder("conv", 64, initial_weights=name) for name in ("pytorch", "fan_out"))
    spread = [float(encoder.body[1].weight.std()) for encoder in (usual, theirs)]
    assert spread[1] == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert spread[1] / spread[0] == pytest.approx(math.sqrt(6), rel=0.02)
    with pytest.raises(ValueError, match="initial_weights: got 'xavier'; give pytorch or fan_out"):
        build_meta_encoder("conv", 4, initial_weights="xavier")


def test_the_layers_bias_is_the_time_embedding_of_a_single_step() -> None:
    layers = random_weights(LayerEncoder(6, META_ENCODERS["conv"].load()(6), bias=True))
    flow = FlowTransfer(
        velocity=random_weights(build_meta_encoder("conv", 6)),
        schedule=get_schedule("rectified"),
        transform=nn.Identity(),
    )
    layers.body.load_state_dict(flow.velocity.body.state_dict())
    layers.bias.copy_(flow.velocity.condition_steps(1)[0].shift[0])
    x = random_maps(6, 4, 4)
    torch.testing.assert_close(layers(x), flow(x, 1))
    assert not LayerEncoder(6, META_ENCODERS["conv"].load()(6), bias=True).bias.any()
