"""The study's switch for the seed's reshapes: repaired, object context does not care where pixels lie."""

from __future__ import annotations

import pytest
import torch

from experiments.conflict.seed_model import Defects, SeedContext


@pytest.mark.parametrize("scrambled", [True, False])
def test_pixels_may_change_places_only_without_the_scrambled_reshapes(scrambled: bool) -> None:
    torch.manual_seed(int(scrambled))
    context = SeedContext(8, Defects(scrambled=scrambled))
    pixels, regions = torch.randn(2, 8, 4, 6), torch.randn(2, 8, 4, 6)
    order = torch.randperm(24)

    def moved(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2)[:, :, order].unflatten(2, (4, 6))

    expected, got = moved(context(pixels, regions)), context(moved(pixels), moved(regions))
    difference = float((got - expected).detach().abs().max())
    assert difference > 0.1 if scrambled else difference < 1e-5
