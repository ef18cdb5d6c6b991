"""Whole networks next to mmsegmentation's own code, with the same weights, in one process.

    python -m venv peers
    peers/bin/pip install -c constraints.txt -e ".[export]"
    peers/bin/pip install mmsegmentation==1.2.2 mmcv-lite==2.1.0 mmengine==0.10.7 ftfy regex
    peers/bin/python -m benchmarks mmseg danet_r50 512x1024 --ways plain fast auto openvino openvino-bf16 --memory

One thread, processor time, denormals flushed on both sides, both sides interleaved; the outputs are compared first.
Prints a row of a table. ``--memory`` takes the peak of one forward pass above what the model holds, each side in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import regard
from benchmarks import parser
from benchmarks.cases import open_gates
from benchmarks.measure import difference, in_fresh_process, peak_above_now_mb, spent, steady
from benchmarks.stand_ins import stand_in_for_mmcv_operations
from regard.export.export import export

CONFIGS = {
    "danet_r50": "danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "ocrnet_hr18": "ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py",
    "ocrnet_hr48": "ocrnet/ocrnet_hr48_4xb2-40k_cityscapes-512x1024.py",
}
WAYS = {
    "plain": {},
    "fast": {"fast": True},
    "auto": {"precision": "auto"},
    "openvino": {"runtime": "openvino"},
    "openvino-bf16": {"runtime": "openvino", "precision": "auto"},
}
Run = Callable[[Tensor], Tensor]


def theirs(name: str) -> nn.Module:
    """mmsegmentation's network, random, with open gates and norms that have the statistics of one batch of noise."""
    stand_in_for_mmcv_operations()
    import mmseg.models
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    torch.manual_seed(0)
    config = Config.fromfile(str(Path(mmseg.__file__).parent / ".mim" / "configs" / CONFIGS[name])).model
    init_default_scope("mmseg")
    model = MODELS.build(plain_norms(config.to_dict() | {"pretrained": None, "data_preprocessor": None}))
    open_gates(model, lambda: model.encode_decode(torch.randn(2, 3, 128, 128), [meta(128, 128)] * 2))
    return model


def plain_norms(config: Any) -> Any:
    """The same settings with batch norm of one process, and no weights from the network."""
    if isinstance(config, dict):
        kept = {name: plain_norms(value) for name, value in config.items() if name != "init_cfg"}
        return kept | ({"type": "BN"} if config.get("type") == "SyncBN" else {})
    return [plain_norms(value) for value in config] if isinstance(config, list | tuple) else config


def meta(height: int, width: int) -> dict[str, Any]:
    size = (height, width)
    return {"ori_shape": size, "img_shape": size, "pad_shape": size, "padding_size": [0, 0, 0, 0]}


def side(name: str, way: str) -> Run:
    """One side: image to logits at its size."""
    model = theirs(name)
    if way == "mmseg":
        return lambda image: model.encode_decode(image, [meta(*image.shape[-2:])])
    folder = Path(tempfile.mkdtemp())
    torch.save({"state_dict": model.state_dict(), "meta": {}}, folder / "theirs.pth")
    ours = regard.convert(folder / "theirs.pth", folder / "ours.safetensors").path
    if way.startswith("openvino"):
        ours = export(regard.load(ours), folder / "ours.xml")
    return regard.load(ours, **WAYS[way])


def times(name: str, image: Tensor, ways: list[str], pairs: int) -> dict[str, Any]:
    """Seconds of mmsegmentation, and of each way: seconds, median ratio, and largest difference."""
    reference = side(name, "mmseg")
    runs = {way: side(name, way) for way in ways}
    exact = reference(image)
    row: dict[str, Any] = {way: {"difference": difference(run(image), exact)} for way, run in runs.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ("mmseg", *ways)}
    for _ in range(pairs):
        for way, run in {"mmseg": reference, **runs}.items():
            seconds[way].append(spent(lambda run=run: run(image)))
    for way in ways:
        ratios = [slow / fast for slow, fast in zip(seconds["mmseg"], seconds[way], strict=True)]
        row[way] |= {"seconds": median(seconds[way]), "faster": median(ratios)}
    return {"mmseg": {"seconds": median(seconds["mmseg"])}, **row}


def main(arguments: list[str]) -> None:
    options = parser("mmseg", __doc__)
    options.add_argument("network", choices=CONFIGS)
    options.add_argument("size", help="HEIGHTxWIDTH")
    options.add_argument("--ways", nargs="+", choices=WAYS, default=["plain", "fast", "auto"])
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--memory", action="store_true")
    options.add_argument("--peak", help=argparse.SUPPRESS)
    given = options.parse_args(arguments)
    warnings.simplefilter("ignore")
    height, width = map(int, given.size.split("x"))
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    with steady(1), torch.inference_mode():
        if given.peak:
            run = side(given.network, given.peak)
            run(image[..., :64, :64])
            print(peak_above_now_mb(lambda: run(image)))
            return
        row = times(given.network, image, given.ways, given.pairs)
    if given.memory:
        for way in ("mmseg", *given.ways):
            row[way]["peak_mb"] = float(in_fresh_process("mmseg", given.network, given.size, "--peak", way))
    print(json.dumps({"network": given.network, "size": given.size} | row))
    cells = [
        f"{name} {found['seconds']:.2f} s"
        + (f" {found['faster']:.2f}x" if "faster" in found else "")
        + (f" {found['peak_mb']:.0f} MB" if "peak_mb" in found else "")
        for name, found in row.items()
    ]
    print(f"| {given.network} | {given.size} | " + " | ".join(cells) + " |")
