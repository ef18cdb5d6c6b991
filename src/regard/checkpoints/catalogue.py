"""The networks that stand, what they cost, and whose files become which: the table of ``regard models``."""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """A network with 19 classes: parameters in millions, and 10^9 multiplications to predict 512 x 1024 pixels."""

    name: str
    architecture: str
    config: dict[str, Any]
    parameters: float
    gmac: float
    stride: int
    converts: tuple[str, ...] = ()


_MMSEG, _DANET, _SSSEG = "mmseg", "official DANet", "sssegmentation"
_HRNET = {"output_stride": None}
_GRID = {"multi_grid": (4, 8, 16)}
_COARSE = {"regions_width": 256}
_POOL = {"backbone_options": {"pool_ceil": True}}
_ASP: dict[str, Any] = {"aspp": "context", "width": 256, "key_width": 128, "regions_width": 512}


def catalogue() -> list[Row]:
    """One row a network, by architecture and size; a test holds the numbers against the networks themselves."""
    return [
        Row("danet resnet50", "danet", {"backbone": "resnet50", **_GRID}, 47.463, 438.33, 8, (_DANET,)),
        Row("danet resnet50c", "danet", {"backbone": "resnet50c"}, 47.482, 440.83, 8, (_MMSEG, _DANET, _SSSEG)),
        Row("danet resnet101", "danet", {"backbone": "resnet101", **_GRID}, 66.455, 593.48, 8, (_DANET,)),
        Row("danet resnet101c", "danet", {"backbone": "resnet101c"}, 66.474, 595.99, 8, (_MMSEG, _DANET, _SSSEG)),
        Row("ocrnet resnet101c", "ocrnet", {"backbone": "resnet101c", **_COARSE}, 55.516, 460.90, 8, (_MMSEG, _SSSEG)),
        Row("ocrnet resnet101s", "ocrnet", {"backbone": "resnet101s", **_POOL}, 57.986, 503.06, 8, ("openseg",)),
        Row(
            "ocrnet resnet101s asp",
            "ocrnet",
            {"backbone": "resnet101s", **_POOL, **_ASP},
            67.253,
            582.75,
            8,
            ("openseg",),
        ),
        Row(
            "ocrnet hrnet_w18_small_v2",
            "ocrnet",
            {"backbone": "hrnet_w18_small_v2", **_HRNET},
            6.378,
            88.86,
            4,
            (_MMSEG, _SSSEG),
        ),
        Row(
            "ocrnet hrnet_w18",
            "ocrnet",
            {"backbone": "hrnet_w18", **_HRNET},
            12.080,
            106.50,
            4,
            (_MMSEG, "official HRNet-OCR", _SSSEG),
        ),
        Row(
            "ocrnet hrnet_w48",
            "ocrnet",
            {"backbone": "hrnet_w48", **_HRNET},
            70.371,
            324.47,
            4,
            (_MMSEG, "official HRNet-OCR", "openseg", "NVIDIA", _SSSEG),
        ),
        Row(
            "ocrnet hrnet_w48 aspp before",
            "ocrnet",
            {"backbone": "hrnet_w48", "aspp": "before", **_HRNET},
            79.432,
            615.19,
            4,
            ("NVIDIA",),
        ),
        Row(
            "ocrnet hrnet_w48 aspp inside",
            "ocrnet",
            {"backbone": "hrnet_w48", "aspp": "inside", **_HRNET},
            74.830,
            466.21,
            4,
            ("NVIDIA",),
        ),
        Row(
            "ocrnet_multiscale hrnet_w48",
            "ocrnet_multiscale",
            {"backbone": "hrnet_w48", **_HRNET},
            72.142,
            478.09,
            1,
            ("NVIDIA",),
        ),
        Row("danet_ocr resnet50", "danet_ocr", {"backbone": "resnet50"}, 65.357, 579.97, 8),
        Row("danet_ocr_serial resnet50", "danet_ocr_serial", {"backbone": "resnet50"}, 51.017, 464.88, 8),
        Row("non_local resnet50", "non_local", {"backbone": "resnet50"}, 38.469, 371.22, 8),
        Row("deeplab resnet50", "deeplab", {"backbone": "resnet50"}, 70.843, 567.67, 8),
        Row(
            "danet_three_branch resnext50_32x4d",
            "danet_three_branch",
            {"backbone": "resnext50_32x4d", "output_stride": 32},
            326.095,
            200.44,
            32,
        ),
    ]
