"""The forms of the fusion that the study adds, against their formulas written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from experiments.fusion import designs
from regard.ops.attention import to_map, to_tokens

WIDTH, CLASSES, SIZE = 16, 3, (4, 5)


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(2, WIDTH, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def regions() -> Tensor:
    return torch.randn(2, CLASSES, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def ready(block: nn.Module) -> nn.Module:
    """In float64, its gate open, in eval mode."""
    torch.manual_seed(2)
    for name, parameter in block.named_parameters():
        if name in ("gamma", "slow"):
            nn.init.constant_(parameter, 0.2)
        elif parameter.ndim == 4:  # large enough for attention that is far from uniform
            nn.init.normal_(parameter, 0.0, 0.5)
    return block.double().eval()


def objects_of(pixels: Tensor, regions: Tensor, sharper: float = 1.0) -> Tensor:
    """The regions' descriptors (b, c, k, 1), pixel by pixel."""
    weights = (sharper * regions).flatten(2).exp()
    weights = weights / weights.sum(2, keepdim=True)
    return torch.stack([(pixels.flatten(2) * row[:, None]).sum(2) for row in weights.unbind(1)], dim=2)[..., None]


def softmax_mean(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """For one query (d) the mean of values (m, c) by keys (m, d)."""
    weights = torch.stack([(scale * (query * key).sum()).exp() for key in keys])
    return (weights[:, None] * values).sum(0) / weights.sum()


def test_heads_each_see_their_part_of_the_channels(pixels: Tensor, regions: Tensor) -> None:
    block = ready(designs.Context(WIDTH, 8, heads=4, temperature=False, gate=False))
    objects = objects_of(pixels, regions)
    query, key, value = block.pixel(pixels), block.object(objects)[..., 0], block.down(objects)[..., 0]
    context = torch.zeros(2, 8, *SIZE, dtype=torch.float64)
    for b in range(2):
        for head in (slice(2 * h, 2 * h + 2) for h in range(4)):
            for y in range(SIZE[0]):
                for x in range(SIZE[1]):
                    parts = key[b, head].T, value[b, head].T
                    context[b, head, y, x] = softmax_mean(query[b, head, y, x], *parts, 2**-0.5)
    torch.testing.assert_close(block(pixels, regions), block.fuse(torch.cat([block.up(context), pixels], dim=1)))


def test_the_temperature_multiplies_the_scores_and_learns_ten_times_as_fast(pixels: Tensor, regions: Tensor) -> None:
    block = ready(designs.Context(WIDTH, 8, heads=1, temperature=True, gate=False))
    gathered = block.distribute(pixels, objects_of(pixels, regions, math.exp(10 * block.slow.item())))
    torch.testing.assert_close(block(pixels, regions), block.fuse(torch.cat([gathered, pixels], dim=1)))


def test_the_gate_adds_a_tenth_of_the_context_at_first(pixels: Tensor) -> None:
    context = torch.randn_like(pixels)
    found = designs.Gate(WIDTH).double()(torch.cat([context, pixels], dim=1))
    torch.testing.assert_close(found, pixels + 0.1 * context, rtol=1e-7, atol=1e-7)  # 0.01 as float32


def test_regions_as_keys(pixels: Tensor, regions: Tensor) -> None:
    block = ready(designs.RegionPosition(WIDTH))
    objects = objects_of(pixels, regions)
    query, key, value = block.query(pixels), block.key(objects)[..., 0], block.value(objects)[..., 0]
    rows = [[softmax_mean(q, key[b].T, value[b].T, 1.0) for q in to_tokens(query)[b]] for b in range(2)]
    context = to_map(torch.stack([torch.stack(row) for row in rows]), SIZE)
    torch.testing.assert_close(block(pixels, regions), block.gamma * context + pixels)


def test_guided_pixels_compare_class_probabilities_too(pixels: Tensor, regions: Tensor) -> None:
    block = ready(designs.GuidedPosition(WIDTH, CLASSES))
    seen = torch.cat([pixels, regions.exp() / regions.exp().sum(1, keepdim=True)], dim=1)
    query, key, value = to_tokens(block.query(seen)), to_tokens(block.key(seen)), to_tokens(block.value(pixels))
    rows = [torch.stack([softmax_mean(q, key[b], value[b], 1.0) for q in query[b]]) for b in range(2)]
    torch.testing.assert_close(block(pixels, regions), block.gamma * to_map(torch.stack(rows), SIZE) + pixels)
