"""Convolutions as a CPU computes them fastest: by oneDNN, channels last, with their activation; for inference alone.

* PyTorch sends some convolutions of one image to MKL, which is slow on AMD (see ``ops.products``); these go to oneDNN.
* The activation is applied while the result is written, not in a second pass over the map.
* oneDNN has no fast kernel for depthwise convolutions whose taps reach 8 pixels or farther from the centre, as in the
  last stage of a dilated EfficientNet. With dilation d, such a convolution is the same without dilation on each of d²
  phases: the maps of every d-th pixel, beginning at d x d places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.inference.fold import followers, is_hooked
from regard.models import Segmenter
from regard.models.backbone import CONVOLUTIONS, margins_of
from regard.ops.products import HAS_ONEDNN

FAR = 8  # pixels from the centre of a depthwise kernel, from which on oneDNN is slow
FUSED: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "hardtanh",
    nn.LeakyReLU: "leaky_relu",
    nn.SiLU: "swish",
    nn.Hardswish: "hardswish",
}
Margins = tuple[int, int, int, int]  # left, right, above, below


class FastConv(nn.Module):
    """A convolution and its activation (one of ``FUSED``), computed in the precision of the weights."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.activation = conv.to(memory_format=torch.channels_last), activation or nn.Identity()
        self.fused = FUSED.get(type(self.activation), "none")
        self.numbers = _numbers(self.activation)
        self.by_phases = _has_far_taps(conv)

    def __getattr__(self, name: str) -> Any:
        """What some networks ask of a convolution that they hold: its stride, the size of its kernel."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("conv"), name)

    @property
    def weight(self) -> Float[Tensor, "o i kh kw"]:
        return self.conv.weight

    @property
    def bias(self) -> Float[Tensor, " o"] | None:
        return self.conv.bias

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o _ _"]:
        if not self.by_phases:
            return self.convolve(x, self.margins(x.shape[2:]))
        step = self.conv.dilation[0]
        return joined(self.convolve_phases(phases(x, step)), step, x.shape)

    def margins(self, size: Sequence[int]) -> Margins:
        """The zeros around a map of ``size`` = (height, width)."""
        return margins_of(self.conv, size)

    def convolve(self, x: Float[Tensor, "b c h w"], margins: Margins) -> Float[Tensor, "b o _ _"]:
        """The convolution and its activation with zeros around, whatever margins are its own."""
        left, right, above, below = margins
        if left != right or above != below:
            x, above, left = F.pad(x, margins), 0, 0
        return self._convolve(x, (above, left), self.conv.dilation)

    def convolve_phases(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        """The convolution of the :func:`phases` of a map, of a kernel with far taps."""
        return self._convolve(x, (self.conv.kernel_size[0] // 2,) * 2, (1, 1))

    def _convolve(
        self, x: Float[Tensor, "b c h w"], padding: tuple[int, ...], dilation: tuple[int, ...]
    ) -> Float[Tensor, "b o _ _"]:
        x, stride, groups = x.to(self.weight.dtype), self.conv.stride, self.conv.groups
        if not (HAS_ONEDNN and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and x.numel()):
            out: Tensor = self.activation(F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups))
            return out
        settings = (padding, stride, dilation, groups, self.fused, self.numbers, "")
        x = x.contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *settings)


def use_fast_convs(model: Segmenter) -> None:
    """Replace each convolution, with the activation that takes its output."""
    activations = dict(followers(model, (nn.Conv2d,), tuple(FUSED)))
    names = {module: name for name, module in model.named_modules()}
    for module, name in names.items():
        if type(module) not in CONVOLUTIONS or is_hooked(module):
            continue
        if module.padding_mode == "zeros" and not isinstance(module.padding, str):
            activation = activations.get(module)
            model.set_submodule(name, FastConv(module, activation))
            if activation is not None:
                model.set_submodule(names[activation], nn.Identity())


def _numbers(activation: nn.Module) -> list[float]:
    """What oneDNN must know of an activation but its name."""
    if isinstance(activation, nn.ReLU6):
        return [0.0, 6.0]
    return [activation.negative_slope] if isinstance(activation, nn.LeakyReLU) else []


def is_dilated_depthwise(conv: nn.Conv2d) -> bool:
    """Whether it is a dilated depthwise convolution that keeps the size of a map: one that phases can compute."""
    taps, step = conv.kernel_size[0], conv.dilation[0]
    square = conv.kernel_size == (taps, taps) and conv.dilation == (step, step) and taps % 2 == 1
    same = conv.stride == (1, 1) and conv.padding == (step * (taps // 2),) * 2
    return conv.groups == conv.in_channels and step > 1 and square and same


def _has_far_taps(conv: nn.Conv2d) -> bool:
    return is_dilated_depthwise(conv) and conv.dilation[0] * (conv.kernel_size[0] // 2) >= FAR


def phases(x: Float[Tensor, "b c h w"], step: int) -> Float[Tensor, "_ c _ _"]:
    """The maps of every ``step``-th pixel, channels last, with zeros to a whole number of steps: as beyond the edge."""
    height, width = x.shape[2:]
    if height % step or width % step:
        x = F.pad(x, (0, -width % step, 0, -height % step))
    x = x.permute(0, 2, 3, 1)
    x = x.unflatten(2, (-1, step)).unflatten(1, (-1, step)).permute(0, 2, 4, 1, 3, 5)
    return x.flatten(0, 2).permute(0, 3, 1, 2)


def joined(parts: Float[Tensor, "_ c _ _"], step: int, shape: torch.Size) -> Float[Tensor, "b c h w"]:
    """The inverse of :func:`phases`."""
    images, _, height, width = shape
    x = parts.permute(0, 2, 3, 1).unflatten(0, (images, step, step)).permute(0, 3, 1, 4, 2, 5)
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width].permute(0, 3, 1, 2)
