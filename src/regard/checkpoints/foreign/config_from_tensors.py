"""What a network's tensors, in our names, tell of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from regard.errors import CheckpointError

RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
GROUPED = {(50, 32, 4): "resnext50_32x4d", (101, 32, 4): "resnext101_32x4d", (101, 32, 8): "resnext101_32x8d"}
HRNETS: dict[tuple[tuple[int, ...], tuple[int, ...]], str] = {
    ((1, 4, 3), (4, 4, 4, 4)): "hrnet_w{}",
    ((1, 3, 2), (2, 2, 2, 2)): "hrnet_w{}_small_v2",
}
HRNET_WIDTHS = (18, 30, 32, 40, 44, 48, 64)
STEMS = {32: "c", 64: "s"}  # width of the deep stem: timm's suffix
DEEP_STEM = "backbone.conv1.0.weight"  # the first of three convolutions

Tensors = Mapping[str, Tensor]


def settings(architecture: str, tensors: Tensors) -> dict[str, Any]:
    """The configuration of ``architecture`` that fits these tensors, their backbone's included.

    A backbone that we do not have, or a missing tensor that tells, is a CheckpointError.
    """
    try:
        head = _danet(tensors) if architecture == "danet" else _ocrnet(tensors)
        return {**head, **(_hrnet(tensors) if is_hrnet(tensors) else _resnet(tensors))}
    except KeyError as error:
        lacks = f"{architecture} needs {error}, which the file lacks"
        raise CheckpointError(f"{lacks}. It is cut or of another version.") from None


def count_classes(tensors: Tensors) -> int:
    """The number of classes."""
    return len(tensors["classify.main.1.weight" if "classify.main.1.weight" in tensors else "classify.weight"])


def in_channels(tensors: Tensors) -> int:
    """The number of bands that the first convolution takes."""
    return tensors[DEEP_STEM if DEEP_STEM in tensors else "backbone.conv1.weight"].shape[1]


def is_hrnet(tensors: Tensors) -> bool:
    """Whether the backbone is an HRNet."""
    return any(name.startswith("backbone.stage4.") for name in tensors)


def _danet(tensors: Tensors) -> dict[str, Any]:
    width, embedding = len(tensors["position.0.0.weight"]), len(tensors["position.1.query.weight"])
    found: dict[str, Any] = {"width": width, "reduction": width // embedding}
    if "auxiliary.2.weight" in tensors:
        found |= {"auxiliary": True, "auxiliary_width": len(tensors["auxiliary.0.0.weight"])}
    return found


def _ocrnet(tensors: Tensors) -> dict[str, Any]:
    attention = "object_context.attention" if "object_context.attention.down.0.weight" in tensors else "object_context"
    found: dict[str, Any] = {
        "width": tensors["classify.weight"].shape[1],
        "key_width": len(tensors[f"{attention}.down.0.weight"]),
        "fuse_kernel": tensors["object_context.fuse.0.0.weight"].shape[-1],
        "regions_kernel": tensors["regions.0.0.weight"].shape[-1],
        "regions_width": len(tensors["regions.0.0.weight"]),
        "aspp": False,
    }
    if "trust.0.0.weight" in tensors:
        found["attention_width"] = len(tensors["trust.0.0.weight"])
    if attention != "object_context":
        found["aspp"] = "context"
        return found
    for placement, prefix in (("inside", "object_context.pyramid"), ("before", "aspp")):
        if f"{prefix}.branches.0.0.weight" in tensors:
            found |= {"aspp": placement, "aspp_width": len(tensors[f"{prefix}.branches.0.0.weight"])}
    return found


def _count(tensors: Tensors, prefix: str) -> int:
    """How many numbered children ``prefix`` has."""
    parts = len(prefix.split("."))
    return len({name.split(".")[parts] for name in tensors if name.startswith(f"{prefix}.")})


def _resnet(tensors: Tensors) -> dict[str, Any]:
    layers = tuple(_count(tensors, f"backbone.layer{stage}") for stage in (1, 2, 3, 4))
    bottleneck = "backbone.layer1.0.conv3.weight" in tensors
    name = RESNETS.get((bottleneck, layers))
    if name is None:
        raise CheckpointError(f"the backbone has {layers} residual blocks, which is no ResNet that regard has.")
    width, per_group = tensors["backbone.layer1.0.conv2.weight"].shape[:2]
    groups, options = width // per_group, dict[str, Any]()
    if groups > 1:
        depth = int(name.removeprefix("resnet"))
        if (depth, groups, per_group) not in GROUPED:
            raise CheckpointError(f"the backbone has {groups} groups of {per_group}, which is no known ResNeXt.")
        name = GROUPED[depth, groups, per_group]
    elif width != 64:
        options["channels"] = [width * 2**stage for stage in range(4)]
    if DEEP_STEM in tensors:
        stem = len(tensors[DEEP_STEM])
        if stem in STEMS and name in ("resnet50", "resnet101", "resnet152"):
            name += STEMS[stem]
        else:
            options |= {"stem_type": "deep", "stem_width": stem}
    return {"backbone": name, "output_stride": 8, "backbone_options": options}


def _hrnet(tensors: Tensors) -> dict[str, Any]:
    width = len(tensors["backbone.transition1.0.0.weight"])
    modules = tuple(_count(tensors, f"backbone.stage{stage}") for stage in (2, 3, 4))
    branches = tuple(_count(tensors, f"backbone.stage{stage}.0.branches.0") for stage in (2, 3, 4))
    blocks = (_count(tensors, "backbone.layer1"), *branches)
    if width not in HRNET_WIDTHS:
        raise CheckpointError(f"the HRNet is {width} wide; regard has those of width {HRNET_WIDTHS}.")
    name, options = HRNETS.get((modules, blocks), "").format(width), dict[str, Any]()
    if not name or (name.endswith("small_v2") and width != 18):
        name, options = f"hrnet_w{width}", {"modules": list(modules), "blocks": list(blocks)}
    return {"backbone": name, "output_stride": None, "backbone_options": options}
