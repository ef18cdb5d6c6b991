"""The context modules as plain PyTorch modules."""

from regard.blocks.aspp import ASPP
from regard.blocks.conv import conv_bn_relu
from regard.blocks.dual_attention import ChannelAttention, PositionAttention
from regard.blocks.non_local import NonLocal, NonLocalPosition
from regard.blocks.object_context import ObjectContext
from regard.blocks.squeeze_excite import SqueezeExcite

__all__ = [
    "ASPP",
    "ChannelAttention",
    "NonLocal",
    "NonLocalPosition",
    "ObjectContext",
    "PositionAttention",
    "SqueezeExcite",
    "conv_bn_relu",
]
