"""Every key and shape of the published listings has one place in our networks, and none of ours is left empty."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import fixtures
import pytest
import torch

from regard.card import Card
from regard.checkpoints.create import build
from regard.checkpoints.foreign.config_from_tensors import count_classes
from regard.checkpoints.foreign.convert import _config, recognise
from regard.checkpoints.foreign.metadata import evidence
from regard.checkpoints.foreign.rename import reconcile, rename
from regard.classes import ClassMap
from regard.errors import CheckpointError
from regard.tensor_files import strip

LISTINGS = json.loads(gzip.decompress((fixtures.HERE / "keys.json.gz").read_bytes()))
# Listing: backbone, parameters in millions that were folded away, biases folded.
FAMILIES = {
    "danet_r50-d8_4xb2-80k_cityscapes-512x1024": ("resnet50c", 0),
    "danet_r101-d8_4xb2-80k_cityscapes-769x769": ("resnet101c", 0),
    "ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024": ("resnet101c", 0),
    "ocrnet_hr48_4xb2-160k_cityscapes-512x1024": ("hrnet_w48", 0),
    "ocrnet_hr18_4xb2-160k_cityscapes-512x1024": ("hrnet_w18", 0),
    "ocrnet_hr18s_4xb2-160k_cityscapes-512x1024": ("hrnet_w18_small_v2", 0),
    "official_danet101": ("resnet101", 0),
    "openseg_spatial_ocrnet": ("resnet101s", 9),
    "openseg_asp_ocrnet": ("resnet101s", 13),
    "hrnet_ocr_w48": ("hrnet_w48", 2),
    "hrnet_ocr_w18": ("hrnet_w18", 2),
    "nvidia_OCRNet": ("hrnet_w48", 2),
    "nvidia_OCRNetASPP": ("hrnet_w48", 2),
    "nvidia_MscaleOCR": ("hrnet_w48", 2),
    "nvidia_OCRNet_ocraspp": ("hrnet_w48", 2),
}


def listed(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in LISTINGS[name].items()}


def test_every_listing_of_a_convertible_network_is_tried():
    assert set(LISTINGS) - set(FAMILIES) == {"seed_danet"}


@pytest.mark.parametrize("name", FAMILIES)
def test_one_to_one(name: str):
    path, tensors = Path(f"{name}.pth"), listed(name)
    family = recognise(path, strip(tensors))
    renamed, dropped = rename(tensors, family)
    assert dropped == [] and len(renamed) == len(tensors)
    found, notes = _config(family, renamed, evidence(path, {}))
    names = ClassMap.of([f"class {index}" for index in range(count_classes(renamed))])
    with torch.device("meta"):
        own = build(Card(architecture=family.architecture, config=found, classes=names)).state_dict()
    reconciled, folded = reconcile(renamed, own, family.zeros)
    backbone, biases = FAMILIES[name]
    assert (found["backbone"], len(folded)) == (backbone, biases)
    assert {key: value.shape for key, value in reconciled.items()} == {key: value.shape for key, value in own.items()}
    assert ("769" in name) == ("align_corners: True, as the file says" in notes)


@pytest.mark.parametrize("name", ["official_danet101", "nvidia_MscaleOCR", "openseg_asp_ocrnet"])
def test_a_key_too_many_is_an_error_that_names_it(name: str):
    tensors = listed(name) | {"head.surprise.weight": torch.empty(3, device="meta")}
    family = recognise(Path(name), tensors)
    if name == "openseg_asp_ocrnet":  # there head.* is the classifier: it lands in our names and is refused on fitting
        assert "classify.surprise.weight" in rename(tensors, family)[0]
        return
    with pytest.raises(CheckpointError, match=r"1 tensors have no place .*head\.surprise\.weight"):
        rename(tensors, family)
