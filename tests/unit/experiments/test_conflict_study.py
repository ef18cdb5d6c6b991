"""What the study of the conflict records of a network."""

from __future__ import annotations

import pytest
import torch

from experiments.conflict.measure import entropies
from support import tiny


@pytest.mark.parametrize(
    ("network", "kinds"),
    [
        ("danet", {"position", "channel"}),
        ("ocrnet", {"objects"}),
        ("danet_ocr", {"position", "channel", "objects"}),
    ],
)
def test_every_attention_is_watched(network: str, kinds: set[str]) -> None:
    assert entropies(tiny(network).eval(), torch.randn(1, 3, 96, 96)).keys() == {f"entropy_{kind}" for kind in kinds}
