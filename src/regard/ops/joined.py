"""A convolution of several maps side by side, without enlarging the coarse ones or copying the others together.

Convolution and bilinear enlarging are linear, each along one axis at a time, so they change places: a coarse map is
multiplied by the weights on its own grid, once for each tap, and one sparse matrix an axis enlarges the products, moves
them by their taps, and adds them up. For HRNet's branches this takes a quarter of the multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.ops.attention import to_map, to_tokens
from regard.ops.attention_formula import without_autocast
from regard.ops.resize import resize_logits

COARSE = 4  # how many times smaller a map must be for its own grid to be worth while
COLUMNS, ROWS = 32, 16  # of the enlarged map, made at once: the matrices have few numbers but zeros away from there


def join_maps(maps: Sequence[Float[Tensor, "b _ _ _"]], *, align_corners: bool) -> Float[Tensor, "b c h w"]:
    """All maps, brought to the size of the first, side by side."""
    return torch.cat([resize_logits(x, maps[0].shape[-2:], align_corners=align_corners) for x in maps], dim=1)


def convolve_joined(
    maps: Sequence[Float[Tensor, "b _ _ _"]],
    weight: Float[Tensor, "o c taps taps"],
    bias: Float[Tensor, " o"] | None,
    *,
    align_corners: bool,
) -> Float[Tensor, "b o h w"]:
    """``conv2d(join_maps(maps), weight, bias)``, padded with zeros to keep the size; for inference on CPU."""
    size = maps[0].shape[-2:]
    parts = weight.split([x.shape[1] for x in maps], dim=1)
    coarse = {
        index for index, x in enumerate(maps) if COARSE * x.shape[2] <= size[0] and COARSE * x.shape[3] <= size[1]
    }
    fine = [index for index in range(len(maps)) if index not in coarse]
    near = [resize_logits(maps[index], size, align_corners=align_corners) for index in fine]
    total = _convolve_fine(near, [parts[index] for index in fine], bias)
    with without_autocast(total.device):
        for index in coarse:
            x, part = maps[index].to(total.dtype), parts[index].to(total.dtype)
            _add_enlarged(total.unflatten(1, size), x, part, align_corners)
    return to_map(total, size)


def _convolve_fine(
    maps: list[Float[Tensor, "b _ h w"]],
    weights: list[Float[Tensor, "o _ taps taps"]],
    bias: Float[Tensor, " o"] | None,
) -> Float[Tensor, "b n o"]:
    """Maps of one size: one large 3x3 convolution is faster than several, several products faster than a copy."""
    taps = weights[0].shape[-1]
    if taps > 1:
        joined = F.conv2d(torch.cat(maps, dim=1), torch.cat(weights, dim=1), bias, padding=taps // 2)
        return to_tokens(joined).contiguous()
    total = F.linear(to_tokens(maps[0]), weights[0].flatten(1), bias)
    for x, weight in zip(maps[1:], weights[1:], strict=True):
        factors = to_tokens(x).to(total.dtype), weight.flatten(1).t().to(total.dtype).expand(len(x), -1, -1)
        total.baddbmm_(*factors)
    return total


def _add_enlarged(
    total: Float[Tensor, "b H W o"], x: Float[Tensor, "b c h w"], weight: Float[Tensor, "o c taps taps"], align: bool
) -> None:
    """Add the convolution of the enlarged ``x``: weights first, then the columns, then the rows."""
    (height, width), (outputs, _, taps, _) = x.shape[2:], weight.shape
    down, across = (
        _spread(low, high, taps, align).to(x) for low, high in zip((height, width), total.shape[1:3], strict=True)
    )
    columns = [(some, near, across[some, near].contiguous()) for some, near in _bands(across, COLUMNS)]
    wide = x.new_empty(height, taps, total.shape[2], outputs)
    for pixels, out in zip(to_tokens(x), total, strict=True):
        for tap in range(taps):
            products = pixels @ weight[:, :, tap].permute(1, 2, 0).flatten(1)
            rows = products.unflatten(0, (height, width)).unflatten(2, (taps, outputs)).flatten(1, 2)
            for row in range(height):
                for some, near, share in columns:
                    torch.mm(share, rows[row, near], out=wide[row, tap, some])
        for some, near in _bands(down, ROWS):
            out[some].flatten(1).addmm_(down[some, near], wide.flatten(0, 1).flatten(1)[near])


def _spread(low: int, high: int, taps: int, align: bool) -> Float[Tensor, "high _"]:
    """How much each of ``low`` cells, seen through each tap, adds to each of ``high``: bilinear, 0 beyond the ends."""
    cells = torch.eye(low, dtype=torch.float64)[:, None, None]
    line = resize_logits(cells, (1, high), align_corners=align)[:, 0, 0].t()
    padded = F.pad(line, (0, 0, taps // 2, taps // 2))
    return torch.stack([padded[tap : tap + high] for tap in range(taps)], dim=2).flatten(1)


def _bands(matrix: Float[Tensor, "rows columns"], most: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of at most that many rows, each with the columns that are not zero there."""
    for start in range(0, len(matrix), most):
        used = matrix[start : start + most].any(dim=0).nonzero()
        yield slice(start, start + most), slice(int(used.min()), int(used.max()) + 1)
