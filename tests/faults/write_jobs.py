"""The commands whose writing is disturbed: each a small run of one kind of output, and the files that it ends with."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from regard.checkpoints.file import save
from regard.cli import main
from regard.export import export as exporting
from regard.files import digest
from tests.support import save_image, tiny, write_set, write_tif

TIMES = re.compile(rb'\d{4}-\d\d-\d\dT[\d:.]+([+-]\d{4}|Z)|(?<=("seconds|emory_mb|px_per_s)": )[\d.e-]+')
TIMED = ("run.json", "results.jsonl")  # they state when, or how fast, they were made


@dataclass(frozen=True)
class Job:
    """One command that writes below ``disk``, from ``inputs`` that lie elsewhere.

    ``old`` are words to replace in it so that it makes other files of the same names, which then are in its way;
    ``more`` lets it replace them. ``growing`` are files that are written line by line, under their final names;
    ``results`` is one that says of each source whether it failed.
    """

    words: str
    old: tuple[tuple[str, str], ...] = ()
    more: str = ""
    growing: tuple[str, ...] = ()
    results: str = ""

    def arguments(self, *, old: bool = False, replacing: bool = False) -> list[str]:
        """The command line, from the folder in which ``inputs`` and ``disk`` lie."""
        words = f"{self.words} {self.more}" if replacing and not old else self.words
        for known, other in self.old if old else ():
            words = words.replace(known, other)
        return words.split()


MODEL, OTHER = "inputs/model.safetensors", "inputs/other.safetensors"
WINDOWS = "--tile 64 --overlap 32 --no-progress"
RASTERS = "-o disk/map.tif --confidence disk/confidence.tif --entropy disk/entropy.tif"
SHARES = "--probabilities disk/prob.tif --margin disk/margin.tif"
SIDES = "--polygons disk/map.gpkg --areas disk/areas.csv --stac disk/item.json --preview disk/preview.png"
NETWORK = "--backbone test_resnet --pretrained none --config.width 16 --config.output-stride 16"
TRAIN = f"train inputs/set {NETWORK} --batch 2 --crop 32 --workers 0 --log none --no-progress"
ANOTHER_MODEL, ANOTHER_MAP = ((MODEL, OTHER),), (("map.tif", "other.tif"),)
AGAIN = "--overwrite"

JOBS = {
    "predict": Job(f"predict {MODEL} inputs/scene.tif {RASTERS} {SIDES} {WINDOWS}", ANOTHER_MODEL, AGAIN),
    "probabilities": Job(
        f"predict {MODEL} inputs/scene.tif -o disk/map.tif {SHARES} {WINDOWS}",
        ANOTHER_MODEL,
        AGAIN,
    ),
    "several": Job(
        f"predict {MODEL} inputs/scene.tif inputs/below.tif -o disk {WINDOWS}",
        ANOTHER_MODEL,
        AGAIN,
        results="results.jsonl",
    ),
    "labels": Job(
        f"predict {MODEL} inputs/photo.png -o disk/labels.png --confidence disk/confidence.tif", ANOTHER_MODEL, AGAIN
    ),
    "geojson": Job("polygons inputs/map.tif -o disk/map.geojson --areas disk/areas.csv", ANOTHER_MAP, AGAIN),
    "fgb": Job("polygons inputs/map.tif -o disk/map.fgb", ANOTHER_MAP, AGAIN),
    "train": Job(f"{TRAIN} -o disk/run --steps 4 --evaluate-every 2", growing=("metrics.jsonl",)),
    "onnx": Job(f"export {MODEL} disk/model.onnx", ANOTHER_MODEL),
    "openvino": Job(f"export {MODEL} disk/model.xml", ANOTHER_MODEL),
    "program": Job("export inputs/resnet.safetensors disk/model.pt2", (("inputs/resnet", "inputs/wider"),)),
    "report": Job("report inputs/run -o disk/report.html", (("inputs/run", "inputs/map.tif"),)),
    "check": Job("check inputs/set -o disk/check.html --no-progress", (("inputs/set", "inputs/set2"),)),
    "scores": Job(f"evaluate {MODEL} inputs/set --save disk/scores.json --no-progress", ANOTHER_MODEL),
    "explain": Job(f"explain {MODEL} inputs/photo.png --at 20,20 -o disk/why.png", ANOTHER_MODEL),
}
GROUPS = {
    "predict": ("predict", "probabilities"),
    "export": ("onnx", "openvino", "program"),
    "polygons": ("geojson", "fgb"),
    "pages": ("report", "check"),
}


def prepare(inputs: Path) -> None:
    """Models, scenes, a data set, a finished map and a finished run, as small as they can be."""
    rng = np.random.default_rng(0)
    networks = {"model": tiny(), "other": tiny("danet")}
    # the pooling of test_resnet cannot be written as a program
    networks |= {"resnet": tiny("danet", backbone="resnet18"), "wider": tiny("danet", backbone="resnet18", width=24)}
    for name, network in networks.items():
        save(network, inputs / f"{name}.safetensors")
    for name in ("scene", "below"):
        coarse = rng.integers(1, 256, size=(3, 12, 8), dtype=np.uint8)
        write_tif(inputs / f"{name}.tif", coarse.repeat(8, 1).repeat(8, 2))
    save_image(inputs / "photo.png", rng.integers(1, 256, size=(48, 64, 3)))
    write_set(inputs / "set")
    write_set(inputs / "set2", seed=3)
    for name in ("map", "other"):
        model, scene = ("model", "scene") if name == "map" else ("other", "below")
        quietly(f"predict inputs/{model}.safetensors inputs/{scene}.tif -o inputs/{name}.tif {WINDOWS}".split())
    quietly(f"{TRAIN} -o inputs/run --steps 2 --evaluate-every 1".split())


def remember_programs() -> None:
    """Let an ONNX graph take seconds once for each model: what is written from it is what fails here."""
    program, to_onnx = exporting._program, torch.onnx.export
    programs, protos = dict[str, Any](), dict[int, Any]()

    def remembered(network: Any, whole: Any = None) -> Any:
        key = digest(network.model.state_dict())
        if whole is None:  # what is written itself: its bytes tell how often it was made
            return program(network)
        return programs.get(key) or programs.setdefault(key, program(network, whole))

    def remembered_proto(found: Any, **how: Any) -> Any:
        if id(found) not in protos:
            protos[id(found)] = to_onnx(found, **how).model_proto
        return SimpleNamespace(model_proto=copy.deepcopy(protos[id(found)]))  # it is completed

    exporting._program, torch.onnx.export = remembered, remembered_proto  # type: ignore[assignment]


def quietly(arguments: list[str]) -> None:
    """Run a command that must succeed, in this process."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main(arguments)
        except SystemExit as end:
            assert end.code == 0, arguments


def stated(path: Path) -> bytes:
    """What a file says, whenever it was made."""
    content = path.read_bytes()
    if path.suffix == ".ckpt":  # the same values may be pickled in other bytes
        with contextlib.suppress(RuntimeError, EOFError, pickle.UnpicklingError):
            return plain(torch.load(path, weights_only=True)).encode()
    return TIMES.sub(b"0", content) if path.name in TIMED else content


def plain(value: Any) -> str:
    """Nested values, and all numbers of tensors, as a text."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {value.tolist()}"
    if isinstance(value, dict):
        return str([(name, plain(item)) for name, item in value.items()])
    return str([plain(item) for item in value]) if isinstance(value, list | tuple) else str(value)
