"""OCR's ``scale`` against its formula in float64: maxima of squares ask, and their context is resized bilinearly."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_block_formulas import C, attention, block, conv, ready
from torch import Tensor, nn

from regard.blocks import ObjectAttention, ObjectContext, ObjectPyramid, QueryGrid
from regard.blocks.self_attention import Embedded
from regard.models.danet_ocr import PositionContext
from support import tiny

GRIDS = [QueryGrid(scale, align) for scale in (1, 2, 4) for align in (False, True)]
SIZES = [(8, 12), (7, 9), (5, 4), (1, 3)]


def maxima(x: Tensor, scale: int) -> Tensor:
    """Of whole squares, one by one; what is left over at the end is dropped, unless there is nothing else."""
    height, width = (min(scale, side) for side in x.shape[2:])
    out = x.new_empty(*x.shape[:2], x.shape[2] // height, x.shape[3] // width)
    for row, column in itertools.product(*map(range, out.shape[2:])):
        square = x[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width]
        out[:, :, row, column] = square.amax(dim=(2, 3))
    return out


def weights(large: int, small: int, align: bool) -> Tensor:
    """What each of ``small`` cells has of each of ``large``."""
    out = torch.zeros(large, small, dtype=torch.float64)
    for index in range(large):
        place = index * (small - 1) / max(1, large - 1) if align else (index + 0.5) * small / large - 0.5
        place = min(max(place, 0.0), small - 1.0)
        out[index, int(place)] += 1 - place % 1
        out[index, min(int(place) + 1, small - 1)] += place % 1
    return out


def enlarged(x: Tensor, like: Tensor, align: bool) -> Tensor:
    down, across = (weights(large, small, align) for large, small in zip(like.shape[2:], x.shape[2:], strict=True))
    return torch.einsum("Yy,bcyx,Xx->bcYX", down, x, across)


def context(layers: ObjectAttention, x: Tensor, regions: Tensor) -> Tensor:
    """Equations 8 to 10 of the paper, with ``f_pixel`` behind the pooling and ``f_up`` before the resizing."""
    objects = torch.einsum("bkn,bcn->bck", regions.flatten(2).softmax(dim=2), x.flatten(2))[..., None]
    query = block(layers.pixel[1], block(layers.pixel[0], maxima(x, layers.queries.scale)))
    key = block(layers.object[1], block(layers.object[0], objects))
    mean = attention(query, key, block(layers.down, objects), key.shape[1] ** -0.5)
    return enlarged(block(layers.up, mean), x, layers.queries.align_corners)


def made(size: tuple[int, int], channels: int = C) -> Tensor:
    torch.manual_seed(sum(size))
    return torch.randn(2, channels, *size, dtype=torch.float64)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_object_attention(grid: QueryGrid, size: tuple[int, int]):
    layers, x, regions = ready(ObjectAttention(C, 4, queries=grid)), made(size), made(size, 3)
    torch.testing.assert_close(layers(x, regions), context(layers, x, regions))


@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_what_stands_next_to_the_context_keeps_every_pixel(grid: QueryGrid):
    x, regions = made((7, 9)), made((7, 9), 3)
    layers = ready(ObjectContext(C, 4, queries=grid))
    torch.testing.assert_close(
        layers(x, regions), block(layers.fuse[0], torch.cat([context(layers, x, regions), x], dim=1))
    )
    layers = ready(ObjectPyramid(C, C, key_channels=4, rates=(1, 2), queries=grid))
    parts = [context(layers.attention, block(layers.pixels, x), regions), layers.pyramid(x)]
    torch.testing.assert_close(layers(x, regions), block(layers.fuse[0], torch.cat(parts, dim=1)))


@pytest.mark.parametrize("by_region", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_the_position_branch_of_the_fusion(grid: QueryGrid, by_region: bool):
    layers = ready(PositionContext(C, 2, by_region=by_region, queries=grid))
    output, regions = made((7, 9)), made((7, 9), 4)
    key, value = made((7, 9), 3), made((7, 9), 3).flip(2)
    shares = regions.flatten(2).softmax(dim=2)
    keys, values = (
        torch.einsum("bkn,bdn->bdk", shares, x.flatten(2))[..., None] if by_region else x for x in (key, value)
    )
    query = conv(layers.query, maxima(output, grid.scale))
    found = enlarged(block(layers.up, attention(query, keys, values, 3**-0.5)), output, grid.align_corners)
    expected = block(layers.fuse, torch.cat([found, output], dim=1))
    torch.testing.assert_close(layers(Embedded(output, key, value), regions), expected)


def contexts(model: nn.Module) -> list[QueryGrid]:
    return [part.queries for part in model.modules() if isinstance(part, ObjectAttention | PositionContext)]


NETWORKS = [("ocrnet", {}, 1), ("ocrnet", {"aspp": "context", "rates": (2,)}, 1), ("ocrnet_multiscale", {}, 1)]
NETWORKS += [("danet_ocr", {}, 3), ("danet_ocr", {"backbone_branch": False}, 2), ("danet_ocr_serial", {}, 1)]


@pytest.mark.parametrize(("architecture", "settings", "count"), NETWORKS)
def test_the_setting_reaches_every_object_context_of_a_network(architecture: str, settings: dict, count: int):
    with torch.device("meta"):
        assert contexts(tiny(architecture, **settings)) == [QueryGrid(1, False)] * count
        assert contexts(tiny(architecture, **settings, scale=4, align_corners=True)) == [QueryGrid(4, True)] * count


def test_a_scale_has_no_parameters_so_that_trained_weights_load_at_any():
    with torch.device("meta"):
        shapes = [
            {name: value.shape for name, value in tiny("danet_ocr", scale=scale).state_dict().items()}
            for scale in (1, 2)
        ]
    assert shapes[0] == shapes[1]
