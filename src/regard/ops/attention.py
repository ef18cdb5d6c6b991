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

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

HAS_TRITON = find_spec("triton") is not None
SMALL = 1024 * 1024  # energies of one image up to which the formula as written is as fast


Gather = Callable[[Float[Tensor, "b n c"], Float[Tensor, "b k n"]], Float[Tensor, "b k c"]]


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
        fused = None if has_kernel(query, key, value) else _gpu_kernel(query, key, value, scale)
        by_blocks = torch.ops.regard.attend  # registered by attention_blockwise, which knows our kernels too
        return by_blocks(query, key, value, scale)[0] if fused is None else fused


def gather_objects(tokens: Float[Tensor, "b n c"], region_logits: Float[Tensor, "b k n"]) -> Float[Tensor, "b k c"]:
    """One descriptor per object region: its pixels' mean, weighted by a softmax *over pixels*.

    Source: Yuan et al., Object-Contextual Representations, ECCV 2020, equation 8.
    """
    precise = region_logits.to(torch.promote_types(region_logits.dtype, torch.float32))
    return precise.softmax(dim=-1).to(tokens.dtype) @ tokens


def energies(query: Float[Tensor, "b n d"], key: Float[Tensor, "b m d"], scale: float) -> Float[Tensor, "b n m"]:
    """Scale · query keyᵀ, in float32 (float64 for float64)."""
    exact = exact_type(query, key)
    products = query.to(exact) @ key.to(exact).transpose(1, 2)
    return products if scale == 1 else scale * products


def attend_at_once(
    query: Float[Tensor, "b n d"], key: Float[Tensor, "b m d"], value: Float[Tensor, "b m c"], scale: float
) -> Float[Tensor, "b n c"]:
    """softmax(energies) value. Where pixels lie as a map, keys come first: every step then runs along the pixels."""
    if lies_as_map(query):
        weights = energies(key, query, scale).softmax(dim=1)
        return (value.transpose(1, 2) @ weights.to(value.dtype)).transpose(1, 2)
    return energies(query, key, scale).softmax(dim=2).to(value.dtype) @ value


def exact_type(query: Tensor, key: Tensor) -> torch.dtype:
    """The precision of energies: never below float32, whatever the inputs'."""
    return torch.promote_types(torch.promote_types(query.dtype, key.dtype), torch.float32)


def lies_as_map(tokens: Float[Tensor, "b n c"]) -> bool:
    """Whether tokens are a view of a (b, c, h, w) map in which a channel's pixels are neighbours."""
    return bool(tokens.stride(1) == 1 and tokens.stride(2) != 1)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, products keep the precision of their factors."""
    active = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if active else nullcontext()


def has_kernel(query: Float[Tensor, "b n d"], key: Float[Tensor, "b m d"], value: Float[Tensor, "b m c"]) -> bool:
    """Whether our GPU kernels compute this, see ``attention_triton``. A compiler looks at types and shapes only."""
    if not (query.is_cuda and HAS_TRITON):
        return False
    from regard.ops import attention_triton

    if not attention_triton.fits(query, key, value):
        return False
    widths = (query.shape[2], value.shape[2])
    compiling = torch.compiler.is_compiling()
    return compiling or attention_triton.working_plan(query.device, value.dtype, *widths) is not None


def _must_be_plain(query: Tensor, value: Tensor) -> bool:
    """Exporters and tracers know no operators of ours; an empty tensor cannot be cut into blocks."""
    traced = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    return traced or not query.numel() or not value.numel()


def _is_small(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """The map is no larger than the result, or than one block: there is nothing to save."""
    keys = key.shape[1]
    return keys <= value.shape[2] or query.shape[1] * keys <= SMALL


def _gpu_kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Float[Tensor, "b n c"] | None:
    """Attention with one head by torch's fused CUDA kernels, which keep energies in float32; None where none fits.

    Untested on GPU.
    """
    if not query.is_cuda or not query.dtype == key.dtype == value.dtype:
        return None
    query, key, value = (tensor[:, None].contiguous() for tensor in (query, key, value))
    params = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, False, False)
    kernels = (torch.backends.cuda.can_use_flash_attention, torch.backends.cuda.can_use_efficient_attention)
    if not any(can_use(params) for can_use in kernels):
        return None
    return F.scaled_dot_product_attention(query, key, value, scale=scale)[:, 0]
