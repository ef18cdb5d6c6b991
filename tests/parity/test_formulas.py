"""openseg and NVIDIA, whose programs cannot be installed: their forward written out in plain functions, in float64.

The functions below read the peer's own key names and shapes (narrowed listings of `keys.json.gz`), so that neither our
modules nor our rename tables have a part in the answer. NVIDIA's backbone is the HRNet of the official fixture.
"""

from __future__ import annotations

from pathlib import Path

import fixtures
import pytest
import torch
import torch.nn.functional as F
from test_keys import LISTINGS
from torch import Tensor

from regard.checkpoints.file import load
from regard.checkpoints.foreign.convert import Conversion, convert
from regard.models import Segmenter

HRNET = {48: 18, 96: 36, 192: 72, 384: 144, 720: 270}
HEAD = {512: 64, 256: 32, 1024: 128, 1280: 160, 2304: 288, **HRNET}


def narrow(name: str) -> dict[str, list[int]]:
    """A listing with an eighth of the channels (ResNet), or as an HRNet-W18 with an eighth in the head."""
    shapes = {}
    for key, shape in LISTINGS[name].items():
        if name.startswith("openseg"):
            sizes = [size if size in (3, 19) else size // 8 for size in shape[:2]]
        else:
            sizes = [(HRNET if key.startswith("backbone.") else HEAD).get(size, size) for size in shape[:2]]
        if "num_batches" not in key:
            shapes[key] = [*sizes, *shape[2:]]
    return shapes


class Peer:
    """A state dict, and the layers that read it."""

    def __init__(self, state: dict[str, Tensor], *, align_corners: bool, in_place: bool = False):
        self.state = {key: value.double() for key, value in state.items()}
        self.align_corners, self.in_place = align_corners, in_place

    def conv(self, x: Tensor, name: str, *, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, padding, dilation)

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        scale = self.state[f"{name}.weight"]
        scale = scale.abs() + 1e-5 if self.in_place else scale
        spread = ((x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()) * scale[:, None, None]
        return spread + self.state[f"{name}.bias"][:, None, None]

    def block(self, x: Tensor, conv: str, norm: str, *, dilation: int = 1) -> Tensor:
        y = self.norm(self.conv(x, conv, dilation=dilation), norm)
        return torch.where(y > 0, y, 0.01 * y) if self.in_place else y.clamp(min=0)

    def nested(self, x: Tensor, name: str, first: int = 0, *, dilation: int = 1) -> Tensor:
        """Convolution ``first``, then (batch norm, ReLU) as one module, or InPlaceABN."""
        norm = f"{name}.{first + 1}" + ("" if self.in_place else ".0")
        return self.block(x, f"{name}.{first}", norm, dilation=dilation)

    def up(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=self.align_corners)

    def relation(self, pixels: Tensor, regions: Tensor, name: str) -> Tensor:
        """Gather by a softmax over pixels, compare, distribute by a softmax over regions: loops over the batch."""
        answers = []
        for x, logits in zip(pixels, regions, strict=True):
            weights = torch.exp(logits - logits.amax((1, 2), keepdim=True))
            weights = weights / weights.sum((1, 2), keepdim=True)
            objects = torch.einsum("khw,chw->ck", weights, x)[None, :, :, None]
            query = self.nested(self.nested(x[None], f"{name}.f_pixel"), f"{name}.f_pixel", 2)[0]
            key = self.nested(self.nested(objects, f"{name}.f_object"), f"{name}.f_object", 2)[0, :, :, 0]
            value = self.nested(objects, f"{name}.f_down")[0, :, :, 0]
            likeness = torch.einsum("dhw,dk->khw", query, key) / len(key) ** 0.5
            answers.append(torch.einsum("khw,dk->dhw", torch.softmax(likeness, dim=0), value))
        return self.nested(torch.stack(answers), f"{name}.f_up")

    def resnet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """openseg's deep-stemmed, dilated ResNet: the maps of the last two stages."""
        for index in (1, 2, 3):
            x = self.conv(x, f"backbone.resinit.conv{index}", stride=2 if index == 1 else 1)
            x = self.norm(x, f"backbone.resinit.bn{index}").clamp(min=0)
        maps = [F.max_pool2d(x, 3, 2, 1, ceil_mode=True)]
        for stage in (1, 2, 3, 4):
            maps.append(self.stage(maps[-1], stage))
        return maps[-2], maps[-1]

    def stage(self, x: Tensor, stage: int) -> Tensor:
        count = len({key.split(".")[2] for key in self.state if key.startswith(f"backbone.layer{stage}.")})
        for index in range(count):
            name, first = f"backbone.layer{stage}.{index}", index == 0
            stride = 2 if first and stage == 2 else 1
            dilation = {3: 1 if first else 2, 4: 2 if first else 4}.get(stage, 1)
            y = self.norm(self.conv(x, f"{name}.conv1"), f"{name}.bn1").clamp(min=0)
            y = self.norm(self.conv(y, f"{name}.conv2", stride=stride, dilation=dilation), f"{name}.bn2").clamp(min=0)
            y = self.norm(self.conv(y, f"{name}.conv3"), f"{name}.bn3")
            if first:
                x = self.norm(self.conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
            x = (x + y).clamp(min=0)
        return x

    def pyramid(self, x: Tensor, name: str) -> Tensor:
        """NVIDIA's: the image's mean, 1x1, and rates 12, 24, 36."""
        mean = self.block(x.mean((2, 3), keepdim=True), f"{name}.img_conv.0", f"{name}.img_conv.1").expand_as(
            x[:, : len(self.state[f"{name}.img_conv.0.weight"])]
        )
        parts = [
            self.block(x, f"{name}.features.{index}.0", f"{name}.features.{index}.1", dilation=rate)
            for index, rate in enumerate((1, 12, 24, 36))
        ]
        return torch.cat([mean, *parts], dim=1)

    def fuse(self, parts: list[Tensor], name: str) -> Tensor:
        return self.nested(torch.cat(parts, dim=1), f"{name}.conv_bn_dropout")


def openseg_ocr(peer: Peer, image: Tensor) -> dict[str, Tensor]:
    coarse, deep = peer.resnet(image)
    regions = peer.conv(peer.nested(coarse, "dsn_head"), "dsn_head.3")
    pixels = peer.nested(deep, "conv_3x3")
    context = peer.relation(pixels, regions, "spatial_ocr_head.object_context_block")
    main = peer.conv(peer.fuse([context, pixels], "spatial_ocr_head"), "head")
    return {"main": peer.up(main, image), "regions": peer.up(regions, image)}


def openseg_asp(peer: Peer, image: Tensor) -> dict[str, Tensor]:
    coarse, deep = peer.resnet(image)
    regions = peer.conv(peer.nested(coarse, "dsn_head"), "dsn_head.3")
    pixels = peer.nested(deep, "asp_ocr_head.context")
    context = peer.relation(pixels, regions, "asp_ocr_head.context.2.object_context_block")
    rates = (1, 12, 24, 36)
    branches = [peer.nested(deep, f"asp_ocr_head.conv{2 + i}", dilation=rate) for i, rate in enumerate(rates)]
    main = peer.conv(peer.fuse([context, *branches], "asp_ocr_head"), "head")
    return {"main": peer.up(main, image), "regions": peer.up(regions, image)}


def nvidia_block(peer: Peer, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    regions = peer.conv(peer.nested(features, "ocr.aux_head"), "ocr.aux_head.2")
    pixels = peer.nested(features, "ocr.conv3x3_ocr")
    context = peer.relation(pixels, regions, "ocr.ocr_distri_head.object_context_block")
    aspp = "ocr.ocr_distri_head.aspp"
    pyramid = [peer.pyramid(pixels, aspp)] if f"{aspp}.img_conv.0.weight" in peer.state else []
    augmented = peer.fuse([context, *pyramid, pixels], "ocr.ocr_distri_head")
    return peer.conv(augmented, "ocr.cls_head"), regions, augmented


def nvidia_features(peer: Peer, model: Segmenter, image: Tensor) -> Tensor:
    maps = model.backbone(image)
    joined = torch.cat([peer.up(x, maps[0]) for x in maps], dim=1)
    return peer.pyramid(joined, "aspp") if "aspp.img_conv.0.weight" in peer.state else joined


def nvidia_ocr(peer: Peer, model: Segmenter, image: Tensor) -> dict[str, Tensor]:
    main, regions, _ = nvidia_block(peer, nvidia_features(peer, model, image))
    return {"main": peer.up(main, image), "regions": peer.up(regions, image)}


def nvidia_scales(peer: Peer, model: Segmenter, image: Tensor, scales: tuple[float, ...]) -> dict[str, Tensor]:
    """From the finest scale to the coarsest, as the paper's section 3.2 and the authors' comments say."""
    answer: dict[str, Tensor] = {}
    for scale in sorted(scales, reverse=True):
        size = [int(side * scale) for side in image.shape[-2:]]
        scaled = F.interpolate(image, size, mode="bilinear", align_corners=peer.align_corners)
        main, regions, augmented = nvidia_block(peer, nvidia_features(peer, model, scaled))
        trust = peer.block(
            peer.block(augmented, "scale_attn.conv0", "scale_attn.bn0"), "scale_attn.conv1", "scale_attn.bn1"
        )
        trust = peer.up(1 / (1 + torch.exp(-peer.conv(trust, "scale_attn.conv2"))), scaled)
        here = {"main": peer.up(main, scaled), "regions": peer.up(regions, scaled)}
        single = {f"scale_{scale:g}": peer.up(here["main"], image)}
        if answer:
            grid = scaled if scale >= 1 else image
            here = {
                name: peer.up(trust * here[name], grid) + (1 - peer.up(trust, grid)) * peer.up(answer[name], grid)
                for name in here
            }
        answer = {**answer, **here, **single}
    return answer


def converted(name: str, state: dict[str, Tensor], folder: Path, **config: object) -> tuple[Conversion, Segmenter]:
    if name.startswith("openseg"):
        content = {"config_dict": {"network": {}}, "state_dict": state}
    else:
        content = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 175}
    torch.save(content, folder / f"{name}.pth")
    conversion = convert(folder / f"{name}.pth", folder / "ours.safetensors", **config)
    return conversion, load(conversion.path).double()


def agree(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        # Biases were folded in float32, which rounds.
        assert float((ours[name] - wanted).abs().max() / wanted.abs().max()) <= 2e-6, name
        assert float(wanted.std(dim=(2, 3)).mean() / wanted.abs().max()) >= 1e-3, f"{name} says nothing"


@pytest.mark.parametrize("in_place", [False, True], ids=["batch_norm", "in_place_abn"])
@pytest.mark.parametrize(
    ("name", "forward"), [("openseg_spatial_ocrnet", openseg_ocr), ("openseg_asp_ocrnet", openseg_asp)]
)
@torch.inference_mode()
def test_openseg(name: str, forward, in_place: bool, tmp_path: Path):
    state = fixtures.whole_state(narrow(name))
    if in_place:
        joined = {key: key.replace(".1.0.", ".1.").replace(".3.0.", ".3.") for key in state}
        state = {joined[key] if not key.startswith("backbone.") else key: value for key, value in state.items()}
        flipped = [key for key in state if key.endswith(".weight") and state[key].ndim == 1][::2]
        state |= {key: -state[key] for key in flipped}
    conversion, model = converted(name, state, tmp_path)
    assert model.bands == ("blue", "green", "red") and model.card.divisor == 1.0
    assert (model.config.recipe == "bn_leaky_relu") == in_place and len(conversion.folded) >= 9
    image = torch.randn(2, 3, 43, 58, dtype=torch.float64)
    agree(model.outputs(image), forward(Peer(state, align_corners=True, in_place=in_place), image))


def test_an_openseg_file_says_itself_how_its_images_were_scaled(tmp_path: Path):
    normalize = {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "div_value": 255}
    words = {"normalize": normalize, "data": {"input_mode": "RGB"}}
    state = fixtures.whole_state(narrow("openseg_spatial_ocrnet"))
    torch.save({"config_dict": words, "state_dict": state}, tmp_path / "x.pth")
    card = convert(tmp_path / "x.pth", tmp_path / "ours.safetensors").card
    assert (card.mean, card.std, card.divisor) == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3), 255.0)
    assert card.bands == ("red", "green", "blue")


@pytest.mark.parametrize(
    ("name", "placement"),
    [("nvidia_OCRNet", False), ("nvidia_OCRNetASPP", "before"), ("nvidia_OCRNet_ocraspp", "inside")],
)
@pytest.mark.slow
@torch.inference_mode()
def test_nvidia(name: str, placement, tmp_path: Path):
    state = fixtures.whole_state(narrow(name))
    _, model = converted(name, state, tmp_path)
    assert model.config.aspp == placement and model.config.backbone == "hrnet_w18"
    image = torch.randn(1, 3, 45, 70, dtype=torch.float64)
    agree(model.outputs(image), nvidia_ocr(Peer(state, align_corners=False), model, image))


@pytest.mark.parametrize("scales", [(0.5, 1.0), (0.5, 1.0, 1.5)], ids=str)
@pytest.mark.slow
@torch.inference_mode()
def test_nvidia_scales(scales: tuple[float, ...], tmp_path: Path):
    state = fixtures.whole_state(narrow("nvidia_MscaleOCR"))
    _, model = converted("nvidia_MscaleOCR", state, tmp_path, scales=scales, align_corners=True)
    image = torch.randn(1, 3, 45, 70, dtype=torch.float64)
    agree(model.outputs(image), nvidia_scales(Peer(state, align_corners=True), model, image, scales))
