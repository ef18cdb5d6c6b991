"""The three data sets, whole or the part of train that chooses designs and rates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import regard
from experiments.fusion.plan import ON_VAL
from regard.datasets.labelled_data import LabelledData, Pair

AERIAL = ("dubai", "buildings", "city")
# Of train: two of Dubai's nine places, and the drive of CamVid that val is not from.
HELD_OUT: dict[str, Callable[[Pair], bool]] = {
    "dubai": lambda pair: pair.name.endswith(("_p1", "_p8")),
    "camvid": lambda pair: pair.name.startswith("0006R0"),
    "city": lambda pair: False,
}


def read(name: str, source: Path, out: Path) -> LabelledData:
    """A data set of ``source``; `buildings` (Banepa and Zanzibar, val Kampala) is cut into ``out`` first."""
    if name != "buildings":
        return regard.folder(source / name)
    if not (out / "buildings" / "train.txt").is_file():  # written last
        command = [sys.executable, "-m", "experiments.buildings.data", str(source), str(out / "buildings")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return regard.folder(out / "buildings")


def part_of(data: LabelledData, name: str, stage: str) -> LabelledData:
    """Train and val, or a stage before: then both are parts of train."""
    if stage in ON_VAL:
        return replace(data, splits={split: data.split(split) for split in ("train", "val")})
    train = data.split("train")
    held = tuple(pair for pair in train if HELD_OUT[name](pair))
    return replace(data, splits={"train": tuple(pair for pair in train if pair not in held), "val": held})
