"""The faster convolutions of training have the values and the gradients of PyTorch's in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from regard.training.convolutions import faster_forwards

FASTER = {
    "1x1": nn.Conv2d(6, 10, 1),
    "1x1 without bias": nn.Conv2d(6, 10, 1, bias=False),
    "dilated 3x3": nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6, bias=False),
    "dilated 3x3, two maps a channel": nn.Conv2d(6, 12, 3, padding=2, dilation=2, groups=6),
    "dilated 5x5": nn.Conv2d(6, 6, 5, padding=8, dilation=4, groups=6),
}
AS_THEY_ARE = {
    "1x1 with stride": nn.Conv2d(6, 10, 1, stride=2),
    "1x1 in groups": nn.Conv2d(6, 12, 1, groups=3),
    "3x3": nn.Conv2d(6, 10, 3, padding=1),
    "dilated, all channels": nn.Conv2d(6, 6, 3, padding=2, dilation=2),
    "depthwise": nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "dilated, not padded": nn.Conv2d(6, 6, 3, dilation=2, groups=6),
    "dilated 4x4": nn.Conv2d(6, 6, 4, padding=4, dilation=2, groups=6),
    "dilated with stride": nn.Conv2d(6, 6, 3, padding=2, dilation=2, stride=2, groups=6),
}


def gradients(conv: nn.Module, image: Tensor, weight: Tensor, *, of_image: bool = True) -> list[Tensor]:
    image = image.detach().clone().requires_grad_(of_image)
    conv.zero_grad()
    out = conv(image)
    (out * weight).sum().backward()
    found = [out.detach(), *(parameter.grad for parameter in conv.parameters())]
    return [*found, image.grad] if of_image else found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
@pytest.mark.parametrize("name", FASTER)
def test_values_and_gradients(name: str, size: tuple[int, int], layout: torch.memory_format) -> None:
    conv = copy.deepcopy(FASTER[name]).to(memory_format=layout)
    image = torch.randn(3, 6, *size).contiguous(memory_format=layout)
    weight = torch.randn(3, conv.out_channels, *size)
    exact = copy.deepcopy(conv).double()
    (forward,) = faster_forwards(conv).values()
    conv.forward = forward  # type: ignore[method-assign]
    for of_image in (True, False):
        expected = gradients(exact, image.double(), weight.double(), of_image=of_image)
        for found, right in zip(gradients(conv, image, weight, of_image=of_image), expected, strict=True):
            torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_other_convolutions_stay(name: str) -> None:
    assert not faster_forwards(AS_THEY_ARE[name])
