"""Every block against its formula, written out in float64; the constants of the papers; dropout by value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.blocks import (
    ASPP,
    ChannelAttention,
    DeepLabTail,
    NonLocal,
    NonLocalPosition,
    ObjectAttention,
    ObjectContext,
    ObjectPyramid,
    PositionAttention,
    SqueezeExcite,
    classifier,
    conv_block,
)

C, SIZE = 6, (5, 7)
RECIPES: dict[str, Callable[[Tensor], Tensor]] = {
    "bn_relu": lambda y: torch.where(y > 0, y, 0.0),
    "bn_leaky_relu": lambda y: torch.where(y > 0, y, 0.01 * y),
    "in_celu": lambda y: torch.where(y > 0, y, y.exp() - 1),
}


def ready(block: nn.Module) -> nn.Module:
    """The block in float64 and evaluation mode, with random parameters, statistics and gates."""
    block = block.double().eval()
    for name, value in block.state_dict().items():
        if name.endswith("running_var"):
            nn.init.uniform_(value, 0.5, 1.5)
        elif value.is_floating_point():
            nn.init.normal_(value, std=0.5)
    return block


def pixels(channels: int = C) -> Tensor:
    return torch.randn(2, channels, *SIZE, dtype=torch.float64)


def conv(layer: nn.Conv2d, x: Tensor, dilation: int = 1) -> Tensor:
    """Written out tap by tap: zeros outside, the same size."""
    _, _, high, wide = layer.weight.shape
    top, left = dilation * (high // 2), dilation * (wide // 2)
    padded = F.pad(x, (left, left, top, top))
    out = torch.zeros(len(x), len(layer.weight), *x.shape[2:], dtype=x.dtype)
    for row in range(high):
        for column in range(wide):
            part = padded[:, :, row * dilation :, column * dilation :][:, :, : x.shape[2], : x.shape[3]]
            out += torch.einsum("oc,bchw->bohw", layer.weight[:, :, row, column], part)
    return out if layer.bias is None else out + layer.bias[:, None, None]


def block(layers: nn.Module, x: Tensor, recipe: str = "bn_relu", dilation: int = 1) -> Tensor:
    """Convolution, norm, activation."""
    y, norm = conv(layers[0], x, dilation), layers[1]
    if recipe == "in_celu":
        mean, variance = y.mean((2, 3), keepdim=True), y.var((2, 3), unbiased=False, keepdim=True)
    else:
        mean, variance = norm.running_mean[:, None, None], norm.running_var[:, None, None]
    y = (y - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    return RECIPES[recipe](y)


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
    """For maps of pixels (b, d, h, w), (b, d, ...) and (b, c, ...): every pixel's weighted mean of the values."""
    energies = scale * torch.einsum("bdn,bdm->bnm", query.flatten(2), key.flatten(2))
    weights = energies.exp() / energies.exp().sum(dim=2, keepdim=True)
    return torch.einsum("bnm,bcm->bcn", weights, value.flatten(2)).unflatten(2, query.shape[2:])


def context(layers: ObjectAttention, x: Tensor, regions: Tensor, keys: int) -> Tensor:
    """Object context by the paper's equations 8 to 10."""
    shares = regions.flatten(2).exp() / regions.flatten(2).exp().sum(dim=2, keepdim=True)
    objects = torch.einsum("bkn,bcn->bck", shares, x.flatten(2))[..., None]
    query = block(layers.pixel[1], block(layers.pixel[0], x))
    key = block(layers.object[1], block(layers.object[0], objects))
    return block(layers.up, attention(query, key, block(layers.down, objects), keys**-0.5))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 2)])
@torch.no_grad()
def test_conv_block(recipe: str, kernel: int, dilation: int):
    layers, x = ready(conv_block(C, 4, kernel, dilation=dilation, recipe=recipe)), pixels()
    torch.testing.assert_close(layers(x), block(layers, x, recipe, dilation))
    assert layers[0].bias is None


@pytest.mark.parametrize("recipe", RECIPES)
@torch.no_grad()
def test_atrous_pyramid(recipe: str):
    layers, x = ready(ASPP(C, 3, rates=(1, 2, 3), project=5, recipe=recipe)), pixels()
    parts = [block(layers.branches[0], x, recipe)]
    parts += [block(layers.branches[rate], x, recipe, rate) for rate in (1, 2, 3)]
    # InstanceNorm of the single pixel that is left of the image gives its bias.
    image = block(layers.image[1], x.mean((2, 3), keepdim=True), recipe).expand(-1, -1, *SIZE)
    expected = block(layers.project, torch.cat([image, *parts], dim=1), recipe)
    torch.testing.assert_close(layers(x), expected)


@torch.no_grad()
def test_deeplab_tail():
    layers, x = ready(DeepLabTail(C, 3, rates=(1, 2))), pixels()
    pyramids = [
        block(
            one.project, torch.cat([block(b, x, dilation=r) for b, r in zip(one.branches, (1, 1, 2), strict=True)], 1)
        )
        for one in layers.pyramids
    ]
    joined = torch.cat([block(layers.point, x), block(layers.local, x), *pyramids], dim=1)
    torch.testing.assert_close(layers(x), block(layers.fuse, joined))


@torch.no_grad()
def test_squeeze_excite():
    layers, x = ready(SqueezeExcite(20, 2)), pixels(20)
    _, narrow, _, wide, _ = layers.excite
    hidden = conv(narrow, x.mean((2, 3), keepdim=True))
    assert hidden.min() < 0 < hidden.max()
    torch.testing.assert_close(layers(x), x / (1 + torch.exp(-conv(wide, RECIPES["in_celu"](hidden)))))


@torch.no_grad()
def test_position_attention():
    layers, x = ready(PositionAttention(C, 2)), pixels()
    mean = attention(conv(layers.query, x), conv(layers.key, x), conv(layers.value, x))
    torch.testing.assert_close(layers(x), layers.gamma * mean + x)


@torch.no_grad()
def test_channel_attention():
    layers, x = ready(ChannelAttention()), pixels()
    tokens = x.flatten(2)
    weights = (-torch.einsum("bin,bjn->bij", tokens, tokens)).softmax(dim=2)
    mean = torch.einsum("bij,bjn->bin", weights, tokens).unflatten(2, SIZE)
    torch.testing.assert_close(layers(x), layers.gamma * mean + x)


@torch.no_grad()
def test_channel_attention_of_half_precision_is_rounded_once():
    layers, x = ChannelAttention().bfloat16(), (3 * torch.randn(2, 40, *SIZE)).bfloat16()
    layers.gamma.fill_(1.0)
    tokens = x.double().flatten(2)
    mean = (-torch.einsum("bin,bjn->bij", tokens, tokens)).softmax(dim=2) @ tokens
    expected = mean.bfloat16().unflatten(2, SIZE) + x
    assert float((layers(x) != expected).float().mean()) < 0.01


@torch.no_grad()
def test_non_local():
    layers, x = ready(NonLocal(C)), pixels()
    query, key, value = (RECIPES["in_celu"](conv(part[0], x)) for part in (layers.query, layers.key, layers.value))
    torch.testing.assert_close(layers(x), attention(query, key, value))


@torch.no_grad()
def test_non_local_position_and_the_embeddings_that_it_hands_on():
    layers, x = ready(NonLocalPosition(C, 2)), pixels()
    query, key, assembled = (conv(part[0], x).clamp(min=0) for part in (layers.query, layers.key, layers.assemble))
    found = layers.embed(x)
    torch.testing.assert_close(found.output, layers.alpha * attention(query, key, x) + assembled)
    torch.testing.assert_close((found.query, found.key), (query, key))


@pytest.mark.parametrize(("kernel", "rates"), [(1, None), (3, (1, 2))])
@torch.no_grad()
def test_object_context_between_context_pyramid_and_pixels(kernel: int, rates: tuple[int, ...] | None):
    pyramid = None if rates is None else ASPP(C, 3, rates=rates)
    layers = ready(ObjectContext(C, 4, kernel=kernel, pyramid=pyramid))
    x, regions = pixels(), pixels(3)
    parts = [context(layers, x, regions, 4), *([] if pyramid is None else [pyramid(x)]), x]
    torch.testing.assert_close(layers(x, regions), block(layers.fuse[0], torch.cat(parts, dim=1)))


@torch.no_grad()
def test_object_pyramid():
    layers, x, regions = ready(ObjectPyramid(C, 12, key_channels=8, rates=(1, 2))), pixels(), 9 * pixels(3)
    parts = [context(layers.attention, block(layers.pixels, x), regions, 8), layers.pyramid(x)]
    assert parts[0].std(dim=(2, 3)).max() > 1e-3
    torch.testing.assert_close(layers(x, regions), block(layers.fuse[0], torch.cat(parts, dim=1)))


def dilations(module: nn.Module) -> list[int]:
    return [part.dilation[0] for part in module.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]


def test_the_published_rates():
    assert dilations(ASPP(8, 2)) == [12, 24, 36]
    assert dilations(DeepLabTail(8, 2)) == [1, *(1, 8, 12, 16), *(1, 8, 12, 16)]
    assert dilations(ObjectPyramid(8, 4, key_channels=2)) == [1, 12, 24, 36]


def test_the_published_widths():
    assert len(PositionAttention(64).query.weight) == len(PositionAttention(64).key.weight) == 8
    assert len(NonLocalPosition(64).query[0].weight) == len(SqueezeExcite(64).excite[1].weight) == 8
    assert len(ObjectPyramid(8).attention.down[0].weight) == 128 and ObjectPyramid(8).pyramid.out_channels == 4 * 256
    assert ASPP(8).out_channels == 5 * 256 and DeepLabTail(8).out_channels == 256
    assert classifier(8, 3, width=4)[0][0].kernel_size == (3, 3)


def test_gates_start_closed():
    assert [PositionAttention(8).gamma.item(), ChannelAttention().gamma.item(), NonLocalPosition(8).alpha.item()] == [
        0
    ] * 3


DROPOUTS: dict[str, tuple[Callable[..., nn.Module], float]] = {
    "classifier": (lambda **rate: classifier(C, 3, width=4, **rate)[1], 0.1),
    "object context": (lambda **rate: ObjectContext(C, 2, **rate).fuse[1], 0.05),
    "object pyramid": (lambda **rate: ObjectPyramid(C, 4, key_channels=2, **rate).fuse[1], 0.1),
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_drops_whole_channels_at_the_published_or_the_given_rate(name: str):
    make, published = DROPOUTS[name]
    assert make().p == published
    dropped = make(dropout=0.25).train()(torch.ones(2, 2000, 3, 2))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(dropped, dropped[:, :, :1, :1].expand_as(dropped))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
