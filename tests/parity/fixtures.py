"""The fixtures that the authors' own programs made, and files as these programs write them.

``python tests/parity/fixtures.py`` copies the small ones beside this file, without tensors that no test reads.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from regard.models import Segmenter

HERE = Path(__file__).parent / "data"
SHARED = Path(os.environ.get("REGARD_SHARED", Path(__file__).parents[2].parent / "shared")) / "fixtures"
FULL = ("mmseg_danet_r50_full", "mmseg_ocrnet_hr18_full", "official_danet_resnet50_full", "official_hrnet18s_ocr")
NARROW = ("mmseg_danet_r18_narrow", "mmseg_danet_r50_narrow", "mmseg_ocrnet_hr18_shallow", "mmseg_ocrnet_r50_narrow")
SSSEG = ("sssegmentation_danet_r50", "sssegmentation_ocrnet_r50", "sssegmentation_ocrnet_hr18s")
PARTS = ("official_danethead", "official_ocr_modules", "official_pam_cam_c64")
# Raw outputs of the peers, and ours.
OUTPUTS = {
    "fusion": "main",
    "pam": "position",
    "cam": "channel",
    "ocr": "main",
    "aux": "regions",
    "auxiliary": "auxiliary",
}


class Fixture(NamedTuple):
    name: str
    meta: dict[str, Any]
    state: dict[str, Tensor]
    tensors: dict[str, Tensor]

    @property
    def cases(self) -> list[str]:
        return sorted({key.split("/")[0] for key in self.tensors if key.startswith("case")})

    @property
    def classes(self) -> int:
        weight = next(
            value
            for key, value in self.state.items()
            if key.endswith(("conv_seg.weight", "cls_head.weight", "conv8.1.weight"))
        )
        return len(weight)

    def tolerance(self, case: str, expected: Tensor) -> float:
        """Ten times the peer's own rounding, where it was measured."""
        noise = self.meta["checks"].get(f"{case}_max_abs_f32_vs_f64")
        return 10 * noise if noise else 1e-4 * float(expected.abs().max())


class Row(NamedTuple):
    fixture: str
    case: str
    output: str
    difference: float
    tolerance: float


def available(name: str) -> Path | None:
    return next((folder / name for folder in (HERE, SHARED) if (folder / f"{name}.json").is_file()), None)


def procedural(key: str, shape: list[int], gain: float) -> Tensor:
    """The weight that a key and a shape stand for: numpy's legacy stream, seeded by the key's CRC."""
    stream = np.random.RandomState(zlib.crc32(key.encode()))
    values = stream.standard_normal(tuple(shape)).astype(np.float32)
    scale = gain * (2.0 / int(np.prod(shape[1:]))) ** 0.5 if len(shape) >= 2 else 0.1
    return torch.from_numpy(values * np.float32(scale))


def whole_state(keys: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """A whole state from names and shapes: convolutions as above, batch norms near 1 and 0, attention switched on."""
    return {key: _whole(key, list(shape), keys) for key, shape in keys.items()}


def _whole(key: str, shape: list[int], keys: Mapping[str, list[int]]) -> Tensor:
    noise = torch.from_numpy(np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32))
    norm = key.rpartition(".")[0] + ".running_mean" in keys
    if key.endswith(".running_var"):
        return (0.3 * noise).exp()
    if norm and key.endswith(".weight"):
        return 1 + 0.2 * noise
    if "gamma" in key:
        return torch.full_like(noise, 0.7)
    return procedural(key, shape, 0.7)


@cache
def load(name: str) -> Fixture:
    base = available(name)
    assert base is not None
    meta = json.loads(base.with_suffix(".json").read_text())
    tensors, state = load_file(base.with_suffix(".safetensors")), {}
    if not any(how == "stored" for how, _ in meta["keys"].values()):
        shapes = {key: shape for key, (_, shape) in meta["keys"].items()}
        return Fixture(name, meta, whole_state(shapes), tensors)
    gains = meta.get("gains") or {}
    for key, (how, shape) in meta["keys"].items():
        gain = next((value for part, value in gains.items() if part in key), 1.0)
        state[key] = tensors[f"sd/{key}"] if how == "stored" else procedural(key, shape, gain)
    return Fixture(name, meta, state, {key: value for key, value in tensors.items() if not key.startswith("sd/")})


def container(fixture: Fixture) -> dict[str, Any]:
    """The state in the container that its program saves."""
    if fixture.name.startswith("mmseg"):
        meta = {"mmseg_version": "1.2.2", "CLASSES": None, "config": "align_corners=False,", "epoch": 1}
        return {"meta": meta, "state_dict": dict(fixture.state)}
    if fixture.name.startswith("sssegmentation"):
        return {"model": dict(fixture.state), "cur_epoch": 40, "optimizer": {"state": {}}}
    if "danet" in fixture.name:
        best = np.float64(0.7993)
        return {"epoch": 240, "state_dict": dict(fixture.state), "optimizer": {"state": {}}, "best_pred": best}
    return {f"model.{key}": value for key, value in fixture.state.items()} | {"loss.criterion.weight": torch.ones(19)}


def save(fixture: Fixture, folder: Path) -> Path:
    path = folder / f"{fixture.name}.pth"
    torch.save(container(fixture), path)
    return path


def expected(fixture: Fixture, case: str) -> dict[str, Tensor]:
    """The peer's outputs on its own grid, in our names."""
    prefix = f"{case}/raw_"
    return {OUTPUTS[key[len(prefix) :]]: value for key, value in fixture.tensors.items() if key.startswith(prefix)}


@torch.inference_mode()
def compare(model: Segmenter, fixture: Fixture, case: str) -> list[Row]:
    """Every output of one case at the image's size, against the peer's brought to that size as the peer does it."""
    image = fixture.tensors[f"{case}/input"]
    outputs, rows = model.outputs(image), []
    for name, raw in expected(fixture, case).items():
        align = bool(fixture.meta["align_corners"])
        wanted = F.interpolate(raw, image.shape[-2:], mode="bilinear", align_corners=align)
        rows.append(_row(fixture, case, name, outputs[name], wanted))
    logits = fixture.tensors.get(f"{case}/logits")
    if logits is not None:
        step = 4 if f"{case}_logits_subsampled" in fixture.meta["checks"] else 1
        rows.append(_row(fixture, case, "prediction", model(image)[:, :, ::step, ::step], logits))
    return rows


def _row(fixture: Fixture, case: str, name: str, ours: Tensor, wanted: Tensor) -> Row:
    difference = float((ours - wanted).abs().max())
    return Row(fixture.name, case, name, difference, fixture.tolerance(case, wanted))


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _copy_small() -> None:
    for name in (*FULL, *PARTS):
        meta = json.loads((SHARED / f"{name}.json").read_text())
        tensors = load_file(SHARED / f"{name}.safetensors")
        unread = ("feat",) if name in FULL else ()
        second = name in FULL and "case1/logits"
        kept = {k: v for k, v in tensors.items() if k != second and not any(f"/{part}" in k for part in unread)}
        save_file(kept, HERE / f"{name}.safetensors")
        (HERE / f"{name}.json").write_text(json.dumps(meta, separators=(",", ":")))


if __name__ == "__main__":
    _copy_small()
