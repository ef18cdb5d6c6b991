"""The context modules are plain PyTorch: put them into a network of your own."""

import torch

from regard.blocks import ChannelAttention, ObjectContext, PositionAttention
from regard.ops.attention import attend

features = torch.randn(1, 64, 32, 32)
region_logits = torch.randn(1, 5, 32, 32)  # five kinds of object, softly

print(PositionAttention(64)(features).shape)
print(ChannelAttention()(features).shape)
print(ObjectContext(64, 32).eval()(features, region_logits).shape)

pixels = features.flatten(2).transpose(1, 2)
print(attend(pixels, pixels, pixels, scale=64**-0.5).shape)
