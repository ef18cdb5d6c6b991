"""Use the context modules in a network of your own: they are plain PyTorch modules."""

import torch

from regard.blocks import ChannelAttention, ObjectContext, PositionAttention
from regard.ops.attention import attend

features = torch.randn(1, 64, 32, 32)
region_logits = torch.randn(1, 5, 32, 32)  # soft object regions of five classes

print(PositionAttention(64)(features).shape)
print(ChannelAttention()(features).shape)
print(ObjectContext(64, 32).eval()(features, region_logits).shape)

pixels = features.flatten(2).transpose(1, 2)
print(attend(pixels, pixels, pixels, scale=64**-0.5).shape)
