"""Every block's derivative, of its input and of each parameter, against finite differences in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from regard.blocks import (
    ASPP,
    ChannelAttention,
    DeepLabTail,
    NonLocal,
    NonLocalPosition,
    ObjectAttention,
    ObjectContext,
    ObjectPyramid,
    PositionAttention,
    SqueezeExcite,
    classifier,
    conv_block,
)
from regard.blocks.self_attention import Embedded
from regard.models.danet_ocr import PositionContext

C, SIZE, REGIONS = 4, (2, 3), 3


class OnEmbedded(nn.Module):
    """The fusion's position branch: attention, then the context of its own embeddings."""

    def __init__(self, *, by_region: bool):
        super().__init__()
        self.attention = NonLocalPosition(C, 2)
        self.context = PositionContext(C, 2, by_region=by_region)

    def forward(self, x, regions):
        embedded = self.attention.embed(x)
        assert isinstance(embedded, Embedded)
        return self.context(embedded, regions)


BLOCKS = {
    "position": lambda: PositionAttention(C, 2),
    "channel": ChannelAttention,
    "non_local": lambda: NonLocal(C),
    "non_local_position": lambda: NonLocalPosition(C, 2),
    "squeeze_excite": lambda: SqueezeExcite(C, 2),
    "aspp": lambda: ASPP(C, 2, rates=(1, 2)),
    "deeplab_tail": lambda: DeepLabTail(C, 2, rates=(1, 2)),
    "classifier": lambda: classifier(C, 3, width=3),
    "bn_relu": lambda: conv_block(C, 3, 3, dilation=2),
    "bn_leaky_relu": lambda: conv_block(C, 3, 3, recipe="bn_leaky_relu"),
    "in_celu": lambda: conv_block(C, 3, 3, recipe="in_celu"),
    "object_attention": lambda: ObjectAttention(C, 2),
    "object_context": lambda: ObjectContext(C, 2, dropout=0.0),
    "object_context_3x3": lambda: ObjectContext(C, 2, kernel=3, pyramid=ASPP(C, 2, rates=(1,))),
    "object_pyramid": lambda: ObjectPyramid(C, 3, key_channels=2, rates=(1, 2)),
    "position_context_R2": lambda: OnEmbedded(by_region=True),
    "position_context_R1": lambda: OnEmbedded(by_region=False),
}


def prepared(name: str) -> nn.Module:
    """The block in evaluation mode, with every parameter away from zero: gates start closed."""
    block = BLOCKS[name]().double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5 + 0.3)
        for key, buffer in block.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_()
    return block


@pytest.mark.parametrize("name", BLOCKS)
def test_gradcheck(name: str):
    block = prepared(name)
    needs_regions = name.startswith(("object", "position_context"))
    inputs = [torch.randn(2, C, *SIZE, dtype=torch.float64)]
    inputs += [torch.randn(2, REGIONS, *SIZE, dtype=torch.float64)] if needs_regions else []
    names, values = zip(*block.named_parameters(), strict=True)

    def run(*tensors: torch.Tensor) -> torch.Tensor:
        state = dict(zip(names, tensors[len(inputs) :], strict=True))
        return functional_call(block, state, tensors[: len(inputs)])

    tensors = [tensor.detach().requires_grad_() for tensor in (*inputs, *values)]
    assert torch.autograd.gradcheck(run, tensors, fast_mode=True)
    run(*tensors).square().sum().backward()
    # R1 knows no regions.
    silent = [key for key, tensor in zip(("x", "regions")[: len(inputs)], tensors, strict=False) if tensor.grad is None]
    assert silent == (["regions"] if name.endswith("R1") else [])
