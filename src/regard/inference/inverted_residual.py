"""Inverted residuals (MobileNet, EfficientNet) without their widest map: expanded, convolved and projected in parts.

The expanded map has 3 to 6 times the channels of what enters and leaves. It is the largest map of such a network, and
is needed nowhere else: a part of it can be made, used and dropped. The sums of each pixel stay the same.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.inference.fast_conv import FastConv, joined, phases
from regard.inference.fold import followers
from regard.models import Segmenter

WHOLE_BYTES = 64e6  # an expanded map up to that is made whole
STRIP_BYTES = 4e6  # of a larger one, held at once: a few rows are about as fast as the whole, as they stay in the cache
PHASES_BYTES = 20e6  # of the expanded phases of a map, held at once


class InvertedResidual(nn.Module):
    """A 1x1 convolution, a depthwise one, and a 1x1 convolution, each taking the output of the one before alone."""

    def __init__(self, expand: FastConv, depthwise: FastConv, project: FastConv) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = expand, depthwise, project

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o _ _"]:
        step = self.depthwise.conv.dilation[0]
        if self.depthwise.by_phases and x.shape[2] % step == x.shape[3] % step == 0:
            return joined(self._in_groups(phases(x, step)), step, x.shape)
        if self._expanded_bytes(x) > WHOLE_BYTES:
            return self._in_strips(x)
        return self.project(self.depthwise(self.expand(x)))

    def _in_groups(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        """Phases of a map, whose taps are near: the narrow map is split, not the expanded one."""
        at_once = max(1, int(PHASES_BYTES / self._expanded_bytes(x[:1])))
        groups = [self.project(self.depthwise.convolve_phases(self.expand(group))) for group in x.split(at_once)]
        return torch.cat(groups)

    def _in_strips(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o _ _"]:
        """Rows of the output, a few at a time; the expanded rows between two strips are made twice."""
        conv, height = self.depthwise.conv, x.shape[2]
        left, right, above, below = self.depthwise.margins(x.shape[2:])
        stride, reach = conv.stride[0], conv.dilation[0] * (conv.kernel_size[0] - 1)
        count = (height + above + below - reach - 1) // stride + 1
        at_once = max(1, int(STRIP_BYTES * height / self._expanded_bytes(x)) // stride)
        strips = []
        for row in range(0, count, at_once):
            top = row * stride - above
            end = (min(row + at_once, count) - 1) * stride - above + reach + 1
            expanded = self.expand(x[:, :, max(top, 0) : end])
            margins = (left, right, max(-top, 0), max(end - height, 0))
            strips.append(self.project(self.depthwise.convolve(expanded, margins)))
        return torch.cat(strips, dim=2)

    def _expanded_bytes(self, x: Float[Tensor, "b c h w"]) -> int:
        return len(x) * x[0, 0].numel() * len(self.expand.weight) * self.expand.weight.element_size()


def use_inverted_residuals(model: Segmenter) -> None:
    """Join the three convolutions of each inverted residual whose depthwise one has no gate behind it."""
    after = dict(followers(model, (FastConv,), (FastConv,)))
    names = {module: name for name, module in model.named_modules()}
    projecting = set[nn.Module]()
    for expand, depthwise in after.items():
        project = after.get(depthwise)
        if expand in projecting:
            continue  # it ends a residual already
        assert isinstance(expand, FastConv) and isinstance(depthwise, FastConv)
        if isinstance(project, FastConv) and _is_pointwise(expand, project) and _is_depthwise(depthwise):
            projecting.add(project)
            model.set_submodule(names[expand], InvertedResidual(expand, depthwise, project))
            model.set_submodule(names[depthwise], nn.Identity())
            model.set_submodule(names[project], nn.Identity())


def _is_pointwise(*modules: FastConv) -> bool:
    return all(module.conv.kernel_size == module.conv.stride == (1, 1) for module in modules)


def _is_depthwise(module: FastConv) -> bool:
    return module.conv.groups == module.conv.in_channels > 1
