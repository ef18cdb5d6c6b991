"""An inverted residual in strips or in groups of phases equals its three convolutions, at every size."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

import regard.inference.inverted_residual as module
from regard.inference.fast_conv import FastConv
from regard.inference.inverted_residual import InvertedResidual, use_inverted_residuals
from regard.inference.optimise import make_fast
from support import tiny

DEPTHWISE = {
    "3x3": nn.Conv2d(24, 24, 3, padding=1, groups=24),
    "5x5 with stride 2": nn.Conv2d(24, 24, 5, stride=2, padding=2, groups=24),
    "5x5, dilated": nn.Conv2d(24, 24, 5, padding=4, dilation=2, groups=24),
    "TensorFlow's with stride 2": Conv2dSame(24, 24, 3, stride=2, groups=24),
    "TensorFlow's 5x5 with stride 2": Conv2dSame(24, 24, 5, stride=2, groups=24),
    "far": nn.Conv2d(24, 24, 5, padding=8, dilation=4, groups=24),
}
SIZES = [(32, 32), (33, 40), (2, 3), (64, 20)]


@pytest.mark.parametrize("at_once", [1.0, 2e4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", DEPTHWISE)
@torch.inference_mode()
def test_parts_equal_the_whole(
    name: str, size: tuple[int, int], at_once: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("WHOLE_BYTES", "STRIP_BYTES", "PHASES_BYTES"):
        monkeypatch.setattr(module, limit, at_once)
    convs = [nn.Conv2d(4, 24, 1), DEPTHWISE[name], nn.Conv2d(24, 6, 1)]
    image = torch.randn(2, 4, *size)
    expected: Tensor = image.double()
    for conv, last in zip(convs, (nn.ReLU6(), nn.ReLU6(), nn.Identity()), strict=True):
        expected = last(copy.deepcopy(conv).double()(expected))
    block = InvertedResidual(
        FastConv(convs[0], nn.ReLU6()), FastConv(copy.deepcopy(convs[1]), nn.ReLU6()), FastConv(convs[2])
    )
    for images in (image, image[:1]):
        torch.testing.assert_close(block(images).double(), expected[: len(images)], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_gate_or_a_shortcut_in_between_keeps_the_convolutions_apart() -> None:
    with_gates = make_fast(tiny("danet", backbone="test_efficientnet", output_stride=None))
    assert not any(isinstance(part, InvertedResidual) for part in with_gates.modules())


class Shared(nn.Module):
    """Convolutions in a row, three or more; something else takes the output of the one numbered ``shared``."""

    bands = ("red", "green", "blue")

    def __init__(self, shared: int | None, times: int = 1) -> None:
        super().__init__()
        convs = [nn.Conv2d(3, 8, 1)]
        for last in [8] * (times - 1) + [3]:
            convs += [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, last, 1)]
        self.convs = nn.ModuleList(map(FastConv, convs))
        self.shared = shared

    def forward(self, image: Tensor) -> Tensor:
        x, kept = image, image.new_zeros(())
        for number, conv in enumerate(self.convs):
            x = conv(x)
            if number == self.shared:
                kept = x.mean()
        return x + kept


@pytest.mark.parametrize(("shared", "count"), [(None, 1), (0, 0), (1, 0), (2, 1)])
@torch.inference_mode()
def test_only_what_nothing_else_takes_is_joined(shared: int | None, count: int, unchecked: None) -> None:
    network, image = Shared(shared).eval(), torch.randn(1, 3, 9, 12)
    expected = network(image)
    use_inverted_residuals(network)  # type: ignore[arg-type]
    assert sum(isinstance(part, InvertedResidual) for part in network.modules()) == count
    torch.testing.assert_close(network(image), expected)


@pytest.mark.parametrize(("times", "count"), [(2, 1), (3, 2), (4, 2)])
@torch.inference_mode()
def test_a_convolution_is_of_one_residual_alone(times: int, count: int, unchecked: None) -> None:
    """Where 1x1 and depthwise convolutions alternate (LCNetV2), one that ends a residual does not begin another."""
    network, image = Shared(None, times).eval(), torch.randn(1, 3, 9, 12)
    expected = network(image)
    use_inverted_residuals(network)  # type: ignore[arg-type]
    assert sum(isinstance(part, InvertedResidual) for part in network.modules()) == count
    torch.testing.assert_close(network(image), expected)
