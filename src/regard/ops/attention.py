"""Attention as plain tensor functions: no parameters, no state.

Every context module of this package is one call of :func:`attend`; the gather is one of :func:`gather_objects`:

========================  =======================  ==============  =====
module                    query                    key, value      scale
========================  =======================  ==============  =====
position attention        pixels                   pixels          1
non-local                 pixels                   pixels          1
channel attention         -channels                channels        1
OCR gather                rows of the classifier   pixels          1
OCR distribute            pixels                   object regions  d^-½
========================  =======================  ==============  =====
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.ops.attention_blockwise import attend_by_blocks
from regard.ops.attention_formula import attend_at_once, energies, without_autocast

SMALL = 1024 * 1024  # energies of one image up to which the formula as written is as fast


class Compared(NamedTuple):
    """What an attention block compares: the query of each pixel with keys of pixels, or of regions (``by_region``)."""

    query: Float[Tensor, "b d h w"]
    key: Float[Tensor, "b m d"]
    scale: float = 1.0
    by_region: bool = False


def to_tokens(feature_map: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """Pixels as rows (n = h·w), so that axis 1 is *where* and axis 2 is *what*."""
    return feature_map.flatten(2).transpose(1, 2)


def to_map(tokens: Float[Tensor, "b n c"], size: Sequence[int]) -> Float[Tensor, "b c h w"]:
    """The inverse of :func:`to_tokens` for a map of ``size`` = (height, width)."""
    return tokens.transpose(1, 2).unflatten(2, tuple(size))


def attention_map(
    query: Float[Tensor, "b n d"], key: Float[Tensor, "b m d"], *, scale: float = 1.0
) -> Float[Tensor, "b n m"]:
    """softmax(scale · query keyᵀ): row i holds the weights of query i on each key. At least float32 throughout.

    Energies that are not divided by sqrt(d) are sharp: rounding them to bfloat16 changes weights by tens of per cent.
    """
    with without_autocast(query.device):
        return energies(query, key, scale).softmax(dim=-1)


def attend(
    query: Float[Tensor, "b n d"],
    key: Float[Tensor, "b m d"],
    value: Float[Tensor, "b m c"],
    *,
    scale: float = 1.0,
) -> Float[Tensor, "b n c"]:
    """For each of n queries, the mean of m values weighted by softmax(scale · query · key).

    Energies and softmax are in float32 (float64 for float64), the mean is in the value's precision. The result lies in
    memory as the query does. All ways give the same numbers but for rounding, and all but the first keep no map.
    """
    with without_autocast(query.device):
        if _must_be_plain(query, value) or _is_small(query, key, value):
            return attend_at_once(query, key, value, scale)
        fused = _gpu_kernel(query, key, value, scale)
        return attend_by_blocks(query, key, value, scale)[0] if fused is None else fused


def gather_objects(tokens: Float[Tensor, "b n c"], region_logits: Float[Tensor, "b k n"]) -> Float[Tensor, "b k c"]:
    """One descriptor per object region: its pixels' mean, weighted by a softmax *over pixels*.

    Source: Yuan et al., Object-Contextual Representations, ECCV 2020, equation 8.
    """
    precise = region_logits.to(torch.promote_types(region_logits.dtype, torch.float32))
    return precise.softmax(dim=-1).to(tokens.dtype) @ tokens


def _must_be_plain(query: Tensor, value: Tensor) -> bool:
    """Exporters and tracers cannot take operators of ours along; and nothing cannot be cut into blocks."""
    traced = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    return traced or not query.numel() or not value.numel()


def _is_small(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """The map is no larger than the result, or than one block: there is nothing to save."""
    keys = key.shape[1]
    return keys <= value.shape[2] or query.shape[1] * keys <= SMALL


def _gpu_kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Float[Tensor, "b n c"] | None:
    """Attention with one head by torch's fused CUDA kernels, which keep energies in float32; None where none fits.

    Not yet run: no CUDA device was at hand.
    """
    if not query.is_cuda or not query.dtype == key.dtype == value.dtype:
        return None
    query, key, value = (tensor[:, None].contiguous() for tensor in (query, key, value))
    params = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, False, False)
    kernels = (torch.backends.cuda.can_use_flash_attention, torch.backends.cuda.can_use_efficient_attention)
    if not any(can_use(params) for can_use in kernels):
        return None
    return F.scaled_dot_product_attention(query, key, value, scale=scale)[:, 0]
