"""Attention as plain tensor functions: no parameters, no state.

Every context module of this package is one call of :func:`attend`:

========================  =======================  ==============  =====
module                    query                    key, value      scale
========================  =======================  ==============  =====
position attention        pixels                   pixels          1
non-local                 pixels                   pixels          1
channel attention         channels, negated        channels        1
OCR gather                rows of the classifier   pixels          1
OCR distribute            pixels                   object regions  d^-½
========================  =======================  ==============  =====
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor


def to_tokens(feature_map: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """Pixels as rows (n = h·w), so that axis 1 is *where* and axis 2 is *what*."""
    return feature_map.flatten(2).transpose(1, 2)


def to_map(tokens: Float[Tensor, "b n c"], size: Sequence[int]) -> Float[Tensor, "b c h w"]:
    """The inverse of :func:`to_tokens` for a map of ``size`` = (height, width)."""
    return tokens.transpose(1, 2).unflatten(2, tuple(size))


def attention_map(
    query: Float[Tensor, "b n d"], key: Float[Tensor, "b m d"], *, scale: float = 1.0
) -> Float[Tensor, "b n m"]:
    """softmax(scale · query keyᵀ): row i says how much query i listens to each key. Float32 throughout.

    Energies that are not divided by sqrt(d) are sharp: rounding them to bfloat16 changes the weights by tens of per cent.
    """
    energies = scale * query.float() @ key.float().transpose(1, 2)
    return energies.softmax(dim=-1)


def attend(
    query: Float[Tensor, "b n d"],
    key: Float[Tensor, "b m d"],
    value: Float[Tensor, "b m c"],
    *,
    scale: float = 1.0,
) -> Float[Tensor, "b n c"]:
    """For each of n queries, the mean of m values weighted by softmax(scale · query · key)."""
    return attention_map(query, key, scale=scale).to(value.dtype) @ value


def gather_objects(tokens: Float[Tensor, "b n c"], region_logits: Float[Tensor, "b k n"]) -> Float[Tensor, "b k c"]:
    """One descriptor per object region: its pixels' mean, weighted by a softmax *over pixels*.

    Source: Yuan et al., Object-Contextual Representations, ECCV 2020, equation 8.
    """
    return region_logits.float().softmax(dim=-1).to(tokens.dtype) @ tokens
