"""The authors' DANet.

Source: junfu1115/DANet, today's code and its history. Files: ``{"epoch", "state_dict", "optimizer", "best_pred"}``;
images RGB, ImageNet's statistics; ``align_corners`` is true. The published network has the 7 x 7 stem and was trained
with multi-grid 4, 8, 16, which the weights cannot tell: it is taken for the 7 x 7 stem and not for the deep one, unless
the file's arguments or name, or ``multi_grid``, say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from regard.checkpoints.foreign.metadata import Evidence
from regard.checkpoints.foreign.rename import Family, Special

MULTI_GRID = (4, 8, 16)


def multi_grid(tensors: Mapping[str, Tensor], words: Evidence) -> Special:
    """The dilations of the last stage: by the file's arguments, its name, or the stem that goes with them."""
    rates: tuple[int, ...] | None = MULTI_GRID
    if "multi_grid" in words.arguments:
        rates = tuple(words.arguments.get("multi_dilation") or MULTI_GRID) if words.arguments["multi_grid"] else None
        why = "as the file's arguments say"
    elif re.search(r"multi[-_]?(grid|dilation)|[-_]mg[-_.]", words.name):
        why = "by the file's name"
    else:
        rates, why = None if "pretrained.conv1.0.weight" in tensors else MULTI_GRID, "by the stem"
    return Special(tensors, {"multi_grid": rates}, (f"multi_grid: {rates}, {why}",))


DANET = Family(
    name="official DANet",
    architecture="danet",
    signature=("head.conv5a.0.weight", "head.sa.query_conv.weight"),
    table={
        "pretrained": "backbone",
        "head.conv5a": "position.0",
        "head.conv51": "position.2",
        "head.conv5c": "channel.0",
        "head.conv52": "channel.2",
        **{f"head.sa.{part}_conv": f"position.1.{part}" for part in ("query", "key", "value")},
        "head.sa.gamma": "position.1.gamma",
        "head.sc.gamma": "channel.1.gamma",
        "head.conv8": "classify.main",
        "head.conv6": "classify.position",
        "head.conv7": "classify.channel",
    },
    licence="the authors' code is MIT; the training data has terms of its own",
    drops=("pretrained.fc",),
    config={"align_corners": True},
    special=multi_grid,
)

FAMILIES = (DANET,)
