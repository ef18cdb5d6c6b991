"""Any timm network as a list of feature maps, fine to coarse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same_arg
from torch import nn

from regard.errors import CheckpointError, ConfigError, StrideUnavailable, unknown
from regard.models.any_size import fit, found_padding, takes
from regard.models.hrnet import make_bilinear, shorten
from regard.tensor_files import check_numbers, read_tensors, strip


class Backbone(NamedTuple):
    """A network whose call gives a list of maps, with the channels and strides of these maps."""

    network: nn.Module
    channels: list[int]
    strides: list[int]


CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # computed as ``conv2d`` with ``margins_of`` zeros around
# Ours, added to those of the timm network: what the published networks have and timm has not.
OTHER_FILES = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
OWN_OPTIONS = ("pad", "pool_ceil", "contract_dilation", "dilate_second", "two_steps", "modules", "blocks")

# How timm's families are asked to take images of other sizes than their weights were trained with.
FREE_SIZES: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
ENDING_TABLES = ("mvitv2",)  # of positions: without memory nobody notices where they end
WORKS = "resnet50, efficientnet_b0, convnext_tiny, swin_tiny_patch4_window7_224 or vit_small_patch16_dinov3"


def build_backbone(
    name: str,
    *,
    in_channels: int = 3,
    output_stride: int | None = None,
    align_corners: bool = False,
    pretrained: bool | str | Path = False,
    multi_grid: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """The timm network ``name`` as a feature extractor, its last map at ``output_stride``, see ``any_size``.

    HRNet gives its four branches (strides 4 to 32), without the stem's map, and joins them bilinearly, which is what
    ``align_corners`` is about. ``pretrained`` may be a file of timm's weights. ``multi_grid`` is the dilation of each
    block of a ResNet's last stage. ``options`` are further arguments of the timm network, and ours:

    * ``pad``: images are padded to a multiple of so many pixels, see ``padding_of``;
    * ``pool_ceil`` (ResNet): the stem's pooling rounds its size up (openseg);
    * ``contract_dilation`` = false (ResNet): no halved dilation in the first block of a dilated stage (NVIDIA);
    * ``dilate_second`` = false (ResNet-18, -34): see ``dilate_first_only``;
    * ``two_steps`` (HRNet): see ``BilinearExchange``; ``modules``, ``blocks`` (HRNet): see ``shorten``.

    Raises:
        UnknownName: timm has no such network.
        ConfigError: the network gives no feature maps, or does not know an option.
        StrideUnavailable: it cannot run at ``output_stride``.
        CheckpointError: the weights file cannot be read or is of another network.
    """
    name, own = name.removeprefix("tu-"), dict(options or {})
    network = _create(name, output_stride, pretrained, {**arguments_of(name, own), "in_chans": in_channels})
    if name.startswith("hrnet"):
        if "modules" in own:
            shorten(network, modules=own["modules"], blocks=own["blocks"])
        make_bilinear(network, align_corners=align_corners, two_steps=own.get("two_steps", False))
    _dilate(network, multi_grid, own)
    info: Any = network.feature_info
    fitted = fit(network, info.channels(), info.reduction(), wanted=output_stride, pad=own.get("pad", 1))
    if fitted is None:
        raise _no_stride(name, output_stride)
    return Backbone(*fitted)


def arguments_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What timm is asked for: feature maps, and those of ``options`` that are not ours."""
    if taken := sorted(options.keys() & OTHER_FILES):
        raise ConfigError(f"backbone_options may not name other files; got {taken[0]}. Give them as pretrained=.")
    own_maps = {"feature_location": "", "out_indices": (1, 2, 3, 4)} if name.startswith("hrnet") else {}
    return {"features_only": True, **{key: options[key] for key in options if key not in OWN_OPTIONS}, **own_maps}


def padding_of(name: str, output_stride: int | None, options: Mapping[str, Any]) -> int:
    """The multiple of pixels that images must be padded to, found by trying; 1 for none.

    Raises:
        ConfigError: the network takes images of one size only.
    """
    return _padding_of(name.removeprefix("tu-"), output_stride, json.dumps(dict(options), sort_keys=True, default=str))


@cache
def _padding_of(name: str, output_stride: int | None, options: str) -> int:
    if name.startswith("hrnet"):
        return 1  # see ``make_bilinear``
    devices = () if name.startswith(ENDING_TABLES) else ("meta", "cpu")  # without memory, if the network's code can
    height, width = cast(Any, timm.get_pretrained_cfg(name)).input_size[1:]
    for device in devices:
        try:
            with torch.device(device):
                network = _create(name, output_stride, False, arguments_of(name, json.loads(options))).eval()
        except ConfigError:
            if device == "cpu":
                raise
            continue
        pad = found_padding(network, device, height)
        if pad is not None:
            return pad
        if takes(network, torch.zeros(1, 3, height, width, device=device)):
            break  # this size, and no other
    raise ConfigError(
        f"backbone {name} takes images of {width} x {height} pixels alone; maps need any size. "
        f"Choose another, as {WORKS}."
    )


def _dilate(network: nn.Module, multi_grid: Sequence[int] | None, own: Mapping[str, Any]) -> None:
    if own.get("pool_ceil"):
        cast(nn.MaxPool2d, network.maxpool).ceil_mode = True
    if not own.get("contract_dilation", True):
        keep_dilation(network)
    if not own.get("dilate_second", True):
        dilate_first_only(network)
    if multi_grid is not None:
        set_dilations(network, "layer4", multi_grid)


def _create(name: str, output_stride: int | None, pretrained: bool | str | Path, options: dict[str, Any]) -> nn.Module:
    check_name(name)
    if output_stride is not None and (name.startswith("hrnet") or output_stride not in (8, 16, 32)):
        raise _no_stride(name, output_stride)
    if isinstance(pretrained, (str, Path)):
        tensors = strip(read_tensors(Path(pretrained)))
        check_numbers(tensors, Path(pretrained))
        options = options | {"pretrained_cfg_overlay": {"state_dict": tensors}}
    try:
        network = _made(name, output_stride, bool(pretrained), options)
    except TypeError as error:
        raise ConfigError(f"backbone {name}: {error}. Correct backbone_options.") from None
    except (RuntimeError, AttributeError, AssertionError) as error:
        if isinstance(error, NotImplementedError):
            raise
        if isinstance(pretrained, (str, Path)):
            raise CheckpointError(f"{pretrained} does not fit backbone {name}. Give weights in timm's names.") from None
        raise ConfigError(f"backbone {name} gives no feature maps ({error}). Choose another, as {WORKS}.") from None
    except OSError as error:
        raise CheckpointError(
            f"the pretrained weights of {name} could not be fetched ({type(error).__name__}). Go online, give a file: "
            f"pretrained='{name}.pth', or begin with random weights: pretrained='none'."
        ) from None
    if isinstance(pretrained, (str, Path)):
        _check_found(network, tensors, name, pretrained)
    return network


def _made(name: str, output_stride: int | None, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """Timm's network, dilated to the output stride and for images of any size, as far as its family can."""
    fixed = cast(Any, timm.get_pretrained_cfg(name)).fixed_input_size
    dilated: list[dict[str, Any]] = [{}] if output_stride is None else [{"output_stride": output_stride}, {}]
    *asked, last = [{**sizes, **stride} for stride in dilated for sizes in (FREE_SIZES if fixed else ({},))]
    for more in asked:
        try:
            return timm.create_model(name, pretrained=pretrained, **more, **options)
        except (TypeError, AssertionError, NotImplementedError) as error:
            if isinstance(error, TypeError) and not any(key in str(error) for key in more):
                raise
    return timm.create_model(name, pretrained=pretrained, **last, **options)


def check_name(name: str) -> None:
    """Raise an UnknownName if timm has no network of this name."""
    if not timm.is_model(name):
        family = next((family for family in timm.list_modules() if name.startswith(family)), "")
        raise unknown("backbone", name, timm.list_models(module=family) or timm.list_models("resnet*"))


def _check_found(network: nn.Module, tensors: Mapping[str, Any], name: str, path: str | Path) -> None:
    """Timm passes over names that it does not find; here nine in ten must be there."""
    given = {key.replace(".", "_") for key in tensors}
    wanted = {key.replace(".", "_") for key in network.state_dict()}
    if len(wanted & given) < 0.9 * len(wanted):
        raise CheckpointError(
            f"{path} does not fit backbone {name}: it holds {len(wanted & given)} of {len(wanted)} tensors. "
            "Give weights in timm's names."
        )


def _no_stride(name: str, output_stride: int | None) -> StrideUnavailable:
    """The error for an output stride that a network cannot have."""
    fault = f"{name} cannot run at output_stride={output_stride}"
    if name.startswith("hrnet"):
        return StrideUnavailable(f"{fault}: it keeps stride 4 throughout. Set output_stride=None.")
    return StrideUnavailable(f"{fault}; possible are 8, 16 and 32, not for every network. Set another, or None.")


def preprocessing(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (of RGB in 0..1) that the network's ImageNet weights were trained with."""
    check_name(name.removeprefix("tu-"))
    config: Any = timm.get_pretrained_cfg(name.removeprefix("tu-"))
    return tuple(config.mean), tuple(config.std)


def licence_of(name: str) -> tuple[str, str]:
    """The licence of timm's weights of a network as timm states it ("" where it does not), and where they are from."""
    config: Any = timm.get_pretrained_cfg(name.removeprefix("tu-"))
    return config.license or "", config.hf_hub_id or config.url or "timm"


def set_dilations(network: nn.Module, stage: str, rates: Sequence[int]) -> None:
    """Give the 3x3 convolution of each block of a stage its own dilation, absolute, in place.

    DANet's multi-grid is 4, 8, 16 in the last stage, which also replaces the halved rate of the first block.
    Source: the authors' training command (``--multi-grid --multi-dilation 4 8 16``). Another number of blocks than of
    rates, or no such stage, is a ConfigError.
    """
    blocks = dict(network.named_children()).get(stage)
    if not isinstance(blocks, nn.Sequential) or len(blocks) != len(rates):
        count = f"{len(blocks)} blocks" if isinstance(blocks, nn.Sequential) else "no such stage"
        raise ConfigError(
            f"dilations {tuple(rates)} for {stage}, but the backbone has {count}. multi_grid needs a ResNet and one "
            "rate per block of its last stage."
        )
    for block, rate in zip(blocks, rates, strict=True):
        # The dilated 3x3 convolution: the second of a bottleneck, the first of a basic block.
        conv = cast(nn.Conv2d, block.conv2 if hasattr(block, "conv3") else block.conv1)
        conv.dilation = conv.padding = (rate, rate)


def dilate_first_only(network: nn.Module) -> None:
    """No dilation in the second convolution of basic blocks (ResNet-18, -34), as mmseg and sssegmentation have it."""
    for block in network.modules():
        if hasattr(block, "conv2") and not hasattr(block, "conv3"):
            conv = cast(nn.Conv2d, block.conv2)
            conv.dilation = conv.padding = (1, 1)


def keep_dilation(network: nn.Module) -> None:
    """Dilation 2 and 4 in every block of the last two stages, the first ones included, as NVIDIA's ResNets have it."""
    for stage, rate in (("layer3", 2), ("layer4", 4)):
        set_dilations(network, stage, [rate] * len(cast(nn.Sequential, getattr(network, stage))))


def margins_of(conv: nn.Conv2d, size: Sequence[int]) -> tuple[int, int, int, int]:
    """The zeros that a convolution adds left, right, above and below a map of ``size`` = (height, width)."""
    if isinstance(conv, Conv2dSame):
        left, right, above, below = pad_same_arg([*size], [*conv.kernel_size], [*conv.stride], [*conv.dilation])
        return left, right, above, below
    assert not isinstance(conv.padding, str)
    return conv.padding[1], conv.padding[1], conv.padding[0], conv.padding[0]
