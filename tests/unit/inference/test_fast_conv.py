"""A fast convolution equals the convolution as written, of every kind that networks have."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from regard.inference.fast_conv import FUSED, FastConv, use_fast_convs
from regard.inference.fold import fold_norms, followers
from regard.inference.optimise import make_fast
from regard.models import Segmenter
from support import tiny

CONVS = {
    "1x1": nn.Conv2d(12, 7, 1),
    "3x3 without bias": nn.Conv2d(12, 7, 3, padding=1, bias=False),
    "dilated": nn.Conv2d(12, 8, 3, padding=4, dilation=4),
    "strided": nn.Conv2d(12, 8, (3, 5), stride=2, padding=(1, 2)),
    "grouped": nn.Conv2d(12, 24, 3, padding=1, groups=4),
    "depthwise": nn.Conv2d(12, 12, 7, padding=3, groups=12),
    "far depthwise": nn.Conv2d(12, 12, 5, padding=16, dilation=8, groups=12),
    "far depthwise 3x3": nn.Conv2d(12, 12, 3, padding=9, dilation=9, groups=12, bias=False),
    "far depthwise, not padded": nn.Conv2d(12, 12, 3, dilation=8, groups=12),
    "far depthwise of another padding": nn.Conv2d(12, 12, 3, padding=8, dilation=9, groups=12),
}
SIZES = [(24, 32), (31, 18), (33, 40)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CONVS)
@torch.inference_mode()
def test_every_kind_of_convolution(name: str, size: tuple[int, int]) -> None:
    conv, image = CONVS[name], torch.randn(2, 12, *size)
    expected = conv.double()(image.double())
    fast = FastConv(copy.deepcopy(conv).float())
    assert fast.by_phases == (name in ("far depthwise", "far depthwise 3x3"))
    for x in (image, image.contiguous(memory_format=torch.channels_last), image[:1]):
        torch.testing.assert_close(fast(x).double(), expected[: len(x)], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(FastConv(copy.deepcopy(conv))(image.double()), expected)


@pytest.mark.parametrize("kind", FUSED, ids=lambda kind: kind.__name__)
@torch.inference_mode()
def test_every_activation_that_is_fused(kind: type[nn.Module]) -> None:
    conv, activation = nn.Conv2d(5, 9, 3, padding=1), kind()
    image = 8 * torch.randn(1, 5, 20, 20)
    torch.testing.assert_close(FastConv(copy.deepcopy(conv), activation)(image), activation(conv(image)))


@torch.inference_mode()
def test_bfloat16_weights_compute_in_bfloat16() -> None:
    conv = FastConv(nn.Conv2d(5, 9, 3, padding=1), nn.ReLU()).to(torch.bfloat16)
    image = torch.randn(1, 5, 20, 20)
    out = conv(image)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), conv.float()(image), rtol=0.02, atol=0.05)


class Net(nn.Module):
    """A few layers in a row with a shortcut that begins at ``branch``."""

    bands = ("red", "green", "blue")

    def __init__(self, branch: str, inplace: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace)
        self.branch = branch

    def forward(self, image: Tensor) -> Tensor:
        at = {"conv": self.conv(image)}
        at["norm"] = self.norm(at["conv"])
        kept = at[self.branch].flatten(2) if self.branch in at else None  # taken before the activation
        out: Tensor = self.act(at["norm"])
        return out if kept is None else out.flatten(2) + kept


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("branch", "folded", "fused"), [("none", 1, 1), ("conv", 0, 0), ("norm", 1, 0)])
@torch.inference_mode()
def test_an_output_that_something_else_takes_stays(
    branch: str, folded: int, fused: int, inplace: bool, unchecked: None
) -> None:
    network = Net(branch, inplace).eval()
    nn.init.uniform_(network.norm.running_mean, -1, 1)
    image = torch.randn(2, 3, 16, 16)
    expected = network(image)
    assert len(followers(network, (nn.Conv2d,), (nn.BatchNorm2d,))) == folded  # type: ignore[arg-type]
    fold_norms(network)  # type: ignore[arg-type]
    use_fast_convs(network)  # type: ignore[arg-type]
    convs = [module for module in network.modules() if isinstance(module, FastConv)]
    assert [not isinstance(conv.activation, nn.Identity) for conv in convs] == [bool(fused)]
    torch.testing.assert_close(network(image), expected)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_convnext", "test_byobnet"])
@torch.inference_mode()
def test_whole_networks_in_float32(backbone: str) -> None:
    plain = tiny("danet", backbone=backbone, output_stride=None)
    for norm in (module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean, -0.2, 0.2)
    fast: Segmenter = make_fast(copy.deepcopy(plain))
    assert not any(isinstance(module, nn.BatchNorm2d | BatchNormAct2d) for module in fast.modules())
    image = torch.randn(1, 3, 65, 97)
    torch.testing.assert_close(fast(image), plain(image), rtol=1e-3, atol=1e-4)
