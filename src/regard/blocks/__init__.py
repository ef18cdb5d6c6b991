"""The context modules as plain PyTorch modules."""

from regard.blocks.aspp import ASPP, DeepLabTail
from regard.blocks.conv import classifier, conv_block, conv_bn_relu
from regard.blocks.dual_attention import ChannelAttention, PositionAttention
from regard.blocks.non_local import NonLocal, NonLocalPosition
from regard.blocks.object_context import ObjectAttention, ObjectContext, ObjectPyramid
from regard.blocks.squeeze_excite import SqueezeExcite

__all__ = [
    "ASPP",
    "ChannelAttention",
    "DeepLabTail",
    "NonLocal",
    "NonLocalPosition",
    "ObjectAttention",
    "ObjectContext",
    "ObjectPyramid",
    "PositionAttention",
    "SqueezeExcite",
    "classifier",
    "conv_block",
    "conv_bn_relu",
]
