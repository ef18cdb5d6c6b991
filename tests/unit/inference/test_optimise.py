"""A network optimised for prediction, in bfloat16."""

from __future__ import annotations

import pytest
import torch

from regard.inference.optimise import has_fast_bfloat16, in_bfloat16, make_fast
from support import tiny


@pytest.mark.parametrize("architecture", ["danet", "ocrnet", "danet_ocr"])
def test_bfloat16_is_near_float32_and_gives_float32(architecture: str) -> None:
    model = tiny(architecture)
    rounded = in_bfloat16(make_fast(tiny(architecture)))
    image = torch.randn(1, 3, 65, 96)
    with torch.inference_mode():
        exact, found = (network.logits(image)["main"] for network in (model, rounded))
        assert found.dtype == torch.float32
        assert 0 < float((found - exact).abs().max()) < 0.1 * float(exact.abs().max())
        torch.testing.assert_close(rounded(image), model.at_size_of(image, found))


def test_only_known_devices_have_fast_bfloat16() -> None:
    assert not has_fast_bfloat16("mps")
    assert isinstance(has_fast_bfloat16("cpu"), bool)
