"""Attention as written: every energy at once. Small problems, exporters and second derivatives use it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


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
