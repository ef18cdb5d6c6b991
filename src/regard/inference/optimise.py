"""A trained network made faster for prediction: the same sums, for fewer FLOPs.

Each step is exact but for rounding, and replaces parts of the network.

* Each batch norm is folded into its convolution.
* OCR's object descriptors are projected before they are distributed to the pixels, not after.
* HRNet's branches are convolved without being resized and concatenated. Convolution and bilinear resizing are linear,
  each along one axis at a time, so they commute: a coarse map is multiplied by the weights on its own grid, once for
  each tap, and one sparse matrix an axis resizes the products, shifts them by their taps, and adds them up. For HRNet's
  branches this takes a quarter of the multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks import ObjectAttention, ObjectContext
from regard.execution import Precision
from regard.files import digest
from regard.inference.fast_conv import FastConv, use_fast_convs
from regard.inference.fold import fold_norms
from regard.inference.inverted_residual import use_inverted_residuals
from regard.inference.runtimes import Runner
from regard.models import MultiScaleOCRNet, OCRNet, Segmenter
from regard.ops.attention import to_map, to_tokens, without_autocast
from regard.ops.resize import resize_logits

COARSE = 4  # how many times smaller a map must be for its own grid to be worth while
COLUMNS, ROWS = 32, 16  # of the enlarged map, made at once: the matrices have few numbers but zeros away from there

Maps = list[Float[Tensor, "b _ _ _"]]


def optimise(model: Segmenter, device: str, precision: Precision) -> Segmenter:
    """:func:`make_fast`, and in bfloat16 if ``precision`` says so, or is ``auto`` and ``device`` is faster in it."""
    model = make_fast(model)
    rounded = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device))
    return in_bfloat16(model).eval() if rounded else model


@torch.no_grad()
def make_fast(model: Segmenter) -> Segmenter:
    """Change ``model`` in place; it can predict then, but neither be trained, saved nor exported."""
    model.saved_sha256 = digest(model.state_dict())
    fold_norms(model.eval())
    for module in list(model.modules()):
        if isinstance(module, ObjectAttention):
            project_objects(module)
    if isinstance(model, OCRNet) and model.joins_branches:
        keep_branches(model)
    use_fast_convs(model)
    use_inverted_residuals(model)
    model.fast = True
    return model.requires_grad_(False)


def project_objects(attention: ObjectAttention) -> None:
    """Project the k objects instead of every pixel's mean of them: with weights that sum to 1, affine maps commute."""
    conv, norm, activation = attention.up
    if isinstance(norm, nn.Identity):
        attention.down, attention.up = nn.Sequential(attention.down, conv), nn.Sequential(activation)


def keep_branches(model: OCRNet) -> None:
    """Let the convolutions of an HRNet-OCR that follow a concatenation take its maps as they are, in place."""
    model.to(memory_format=torch.channels_last)
    for module in list(model.modules()):
        if isinstance(module, ObjectContext):
            module.__class__ = UnjoinedContext  # the same parameters, another forward
            replace_conv(module, "fuse.0.0")
    if model.config.aspp is False:
        model.__class__ = UnjoinedMultiScale if isinstance(model, MultiScaleOCRNet) else UnjoinedOCRNet
        corners = model.config.align_corners
        replace_conv(model, "pixels.0", align_corners=corners)
        replace_conv(model, "regions.0.0", align_corners=corners)


def replace_conv(owner: nn.Module, name: str, *, align_corners: bool = False) -> None:
    """Let a convolution of ``owner`` take several maps."""
    conv = owner.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    owner.set_submodule(name, MapsConv(conv, align_corners=align_corners))


class UnjoinedContext(ObjectContext):
    """An ``ObjectContext`` that does not concatenate."""

    def forward(self, pixels: Float[Tensor, "b c h w"], regions: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c h w"]:
        return self.fuse(self.parts(pixels, regions))


class UnjoinedOCRNet(OCRNet):
    """An ``OCRNet`` that does not concatenate HRNet's branches."""

    def features(self, image: Float[Tensor, "b c h w"]) -> Any:
        maps = self.backbone(image)
        return maps, maps


class UnjoinedMultiScale(UnjoinedOCRNet, MultiScaleOCRNet):
    """The same at several scales."""


class MapsConv(nn.Module):
    """A convolution of several maps, as if they were resized to the first and concatenated; for inference."""

    def __init__(self, conv: nn.Conv2d, *, align_corners: bool) -> None:
        super().__init__()
        self.conv, self.align_corners = conv, align_corners

    def forward(self, maps: Maps) -> Float[Tensor, "b c h w"]:
        if maps[0].device.type == "cpu":
            return convolve_maps(maps, self.conv.weight, self.conv.bias, align_corners=self.align_corners)
        size = maps[0].shape[-2:]
        return self.conv(torch.cat([resize_logits(x, size, align_corners=self.align_corners) for x in maps], dim=1))


def convolve_maps(
    maps: Sequence[Float[Tensor, "b _ _ _"]],
    weight: Float[Tensor, "o c taps taps"],
    bias: Float[Tensor, " o"] | None,
    *,
    align_corners: bool,
) -> Float[Tensor, "b o h w"]:
    """``conv2d`` of all maps, resized to the first and concatenated, with zeros around; for inference on CPU."""
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


def in_bfloat16(network: Segmenter) -> Runner:
    """``network`` with products and convolutions in bfloat16; energies of attention and the logits stay in float32."""
    for module in network.modules():
        if isinstance(module, FastConv):
            module.to(torch.bfloat16)

    def run(image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, torch.bfloat16):
            return network.logits(image)["main"].float()

    return Runner(network.card, run, stride=network.stride, mark=b"bfloat16".ljust(32), network=network)


def has_fast_bfloat16(device: str) -> bool:
    """Whether products of bfloat16 are faster than of float32 there: CUDA, or AMX or AVX512-BF16 in the processor."""
    if device != "cpu":
        return device.startswith("cuda") and torch.cuda.is_bf16_supported()
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
