"""The context modules as plain PyTorch modules."""

from regard.blocks.aspp import ASPP, DeepLabTail
from regard.blocks.conv import SqueezeExcite, classifier, conv_block, conv_bn_relu
from regard.blocks.object_context import ObjectAttention, ObjectContext, ObjectPyramid, QueryGrid
from regard.blocks.self_attention import ChannelAttention, NonLocal, NonLocalPosition, PositionAttention

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
    "QueryGrid",
    "SqueezeExcite",
    "classifier",
    "conv_block",
    "conv_bn_relu",
]
