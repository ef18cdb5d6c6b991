"""Position attention as DANet's authors compute it. Nothing but PyTorch is imported: other files need more."""

from __future__ import annotations

import torch
from torch import Tensor

KEY, VALUE = 64, 512  # DANet's widths
SAMPLED = 64  # queries whose result is compared with float64


def authors_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0) -> Tensor:
    """Position attention as its authors write it: product, softmax, product, all in the inputs' precision."""
    energies = torch.bmm(query, key.mT)
    weights = torch.softmax(energies if scale == 1 else scale * energies, dim=-1)
    return torch.bmm(value.mT, weights.mT).mT
