"""Parameters and multiplications of every network, against the table of the reference, and our catalogue."""

from __future__ import annotations

import pytest
import torch
from test_keys import LISTINGS

from benchmarks.complexity import counter
from regard.checkpoints.create import catalogue, create
from regard.models import Segmenter
from support import own_architectures

K = [f"class {index}" for index in range(19)]
HRNET = {"output_stride": None}
POOL = {"backbone_options": {"pool_ceil": True}}
CLASSIFIER = 19 * 512 * 64 * 128 / 1e9  # GMAC of one 1x1 classifier at stride 8
# Backbone and settings; parameters in millions and GMAC of the reference; parameters that are no longer there (biases
# folded into batch norms); whether the reference counts the auxiliary classifiers' multiplications.
REFERENCE = [
    ("danet", {"backbone": "resnet50c", "auxiliary": True}, 49.847, 440.99, 0, 2 * CLASSIFIER),
    ("danet", {"backbone": "resnet101c", "auxiliary": True}, 68.839, 596.14, 0, 2 * CLASSIFIER),
    ("danet", {"backbone": "resnet50c"}, 47.482, 440.99, 0, 2 * CLASSIFIER),
    ("danet", {"backbone": "resnet101c"}, 66.474, 596.14, 0, 2 * CLASSIFIER),
    ("danet", {"backbone": "resnet50", "multi_grid": (4, 8, 16)}, 47.463, 438.49, 0, 2 * CLASSIFIER),
    ("danet", {"backbone": "resnet50s", "multi_grid": (4, 8, 16)}, 47.586, 452.65, 0, 2 * CLASSIFIER),
    ("danet", {"backbone": "resnet101", "multi_grid": (4, 8, 16)}, 66.455, 593.64, 0, 2 * CLASSIFIER),
    ("danet", {"backbone": "resnet101s", "multi_grid": (4, 8, 16)}, 66.579, 607.80, 0, 2 * CLASSIFIER),
    ("ocrnet", {"backbone": "resnet101c", "regions_width": 256}, 55.516, 460.90, 0, 0),
    ("ocrnet", {"backbone": "resnet101s", **POOL}, 57.989, 503.06, 512 * 4 + 256 * 5, 0),
    (
        "ocrnet",
        {"backbone": "resnet101s", **POOL, "aspp": "context", "width": 256, "key_width": 128, "regions_width": 512},
        67.256,
        582.75,
        512 + 256 * 5 + 128 * 5 + 256 * 2,
        0,
    ),
    ("ocrnet", {"backbone": "hrnet_w48", **HRNET}, 70.371, 324.47, 0, 0),
    ("ocrnet", {"backbone": "hrnet_w48", **HRNET}, 70.373, 324.47, 720 + 512, 0),
    ("ocrnet", {"backbone": "hrnet_w18", **HRNET}, 12.080, 106.50, 0, 0),
    ("ocrnet", {"backbone": "hrnet_w18", **HRNET}, 12.081, 106.50, 270 + 512, 0),
    ("ocrnet", {"backbone": "hrnet_w18_small_v2", **HRNET}, 6.378, 88.86, 0, 0),
    ("ocrnet", {"backbone": "hrnet_w48", "aspp": "before", **HRNET}, 79.433, 615.19, 1280 + 512, 0),
    ("ocrnet", {"backbone": "hrnet_w48", "aspp": "inside", **HRNET}, 74.832, 466.21, 720 + 512, 0),
    ("ocrnet_multiscale", {"backbone": "hrnet_w48", **HRNET}, 72.143, 478.09, 720 + 512, 0),
]


def on_meta(architecture: str, **config) -> Segmenter:
    with torch.device("meta"):
        return create(architecture, classes=K, **config).eval()


def parameters(model: Segmenter) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def gmac(run, height: int = 512, width: int = 1024) -> float:
    with counter() as counted:
        run(torch.empty(1, 3, height, width, device="meta"))
    return counted.get_total_flops() / 2e9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "config", "millions", "cost", "folded", "unpaid"), REFERENCE, ids=lambda value: str(value)[:60]
)
def test_reference(architecture, config, millions, cost, folded, unpaid):
    model = on_meta(architecture, **config)
    assert f"{(parameters(model) + folded) / 1e6:.3f}" == f"{millions:.3f}"
    assert f"{gmac(model) + unpaid:.2f}" == f"{cost:.2f}"


def test_one_danet_quickly():
    """The auxiliary classifier costs parameters and training time, and nothing in prediction."""
    model = on_meta("danet", backbone="resnet50c", auxiliary=True)
    plain = on_meta("danet", backbone="resnet50c")
    assert (round(parameters(model) / 1e6, 3), round(parameters(plain) / 1e6, 3)) == (49.847, 47.482)
    assert gmac(model) == gmac(plain) < gmac(plain.outputs) < gmac(model.outputs)


@pytest.mark.slow
@pytest.mark.parametrize(("auxiliary", "millions", "cost"), [(False, 329.077, 200.44), (True, 329.194, 200.50)])
def test_the_seeds_danet(auxiliary: bool, millions: float, cost: float):
    """Its ResNeXt-50 carries a classifier, and each of its pyramids an image branch, that no forward calls."""
    unused = {
        key: shape for key, shape in LISTINGS["seed_danet"].items() if key.startswith("resnext.fc.") or ".pool1." in key
    }
    dead = sum(int(torch.tensor(shape).prod()) for shape in unused.values())
    model = on_meta(
        "danet_three_branch", backbone="resnext50_32x4d", output_stride=32, recipe="in_celu", auxiliary=auxiliary
    )
    assert len(unused) == 2 + 2 * 3
    assert f"{(parameters(model) + dead) / 1e6:.3f}" == f"{millions:.3f}"
    assert f"{gmac(model.outputs):.2f}" == f"{cost:.2f}"
    trainable = (
        parameters(model)
        - sum(parameter.numel() for parameter in model.backbone.parameters())
        + (dead - 2048 * 1000 - 1000)
    )
    assert auxiliary or f"{trainable / 1e6:.2f}" == "304.05"


def test_the_catalogue_names_every_architecture():
    rows = catalogue()
    assert {row.architecture for row in rows} == own_architectures() - {"refined"}  # which has any base
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("row", catalogue(), ids=lambda row: row.name)
def test_the_catalogue_is_true(row):
    model = on_meta(row.architecture, **row.config)
    assert (round(parameters(model) / 1e6, 3), round(gmac(model), 2)) == (row.parameters, row.gmac)
    assert model.stride == row.stride
