"""A simulated annotator: how many clicks it takes to correct a model on a scene, with places by regard and at random.

python -m experiments.refine.annotator DATA RECORDS.csv     a run that is stopped resumes; prints the table

Each click labels one pixel with its true class; after every ten the head is fitted again. Scored on 4,000 pixels of the
scene. Starts: `buildings-s` on Kampala, which it has not seen; `dubai-s` on its own city's scene; and `globe-s` there,
whose classes are others (cold start). Ways:

* suggested: the first click at random, all others where `suggest` says;
* random: places at random;
* once: a linear head on the same random clicks that knows nothing of the model's present answers.

`full` is the head fitted to 4,000 other labelled pixels. Forgotten: how much mIoU in the eastern half falls when
all clicks are in the western half, at random.
"""

from __future__ import annotations

import csv
import re
import sys
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from PIL import Image
from rasterio.transform import Affine

import regard
from regard.ops.metrics import confusion_matrix, intersection_over_union
from regard.options import Windows
from regard.refine.labels import Labels
from regard.refine.options import RefineOptions
from regard.refine.session import Session, session
from regard.refine.suggest import suggest
from regard.refine.trials import Kind, answers

STARTS = {"kampala": "buildings-s", "dubai": "dubai-s", "dubai cold": "globe-s"}
WAYS = ("suggested", "random", "once")
SEEDS, CLICKS, STEP, SCORED = range(3), 100, 10, 4000
SIDE = 2048
LINEAR = Kind("linear", True, False)


def kampala(data: Path, folder: Path) -> tuple[Path, np.ndarray]:
    """The chips of zoom 20 as one scene; no data in between."""
    chips = sorted((data / "oam_buildings" / "images").glob("kampala_20_*.jpg"))
    places = np.array([[int(number) for number in re.findall(r"\d+", chip.stem)[1:]] for chip in chips])
    origin = places.min(axis=0)
    width, height = 256 * (places.max(axis=0) - origin + 1)
    image, truth = np.zeros((3, height, width), np.uint8), np.full((height, width), 255)
    for chip, (x, y) in zip(chips, 256 * (places - origin), strict=True):
        part = np.s_[y : y + 256, x : x + 256]
        image[:, part[0], part[1]] = np.moveaxis(np.asarray(Image.open(chip).convert("RGB")), -1, 0)
        truth[part] = np.asarray(Image.open(data / "oam_buildings" / "masks" / f"{chip.stem}.png"))
    return written(folder / "kampala.tif", image, truth != 255), truth


def dubai(data: Path, folder: Path) -> tuple[Path, np.ndarray]:
    """The first 2,048 x 2,048 pixels of the scene."""
    with rasterio.open(data / "dubai_scene" / "image.tif") as file:
        image = file.read(window=((0, SIDE), (0, SIDE)))[:3]
    with rasterio.open(data / "dubai_scene" / "mask.tif") as file:
        truth = file.read(1, window=((0, SIDE), (0, SIDE))).astype(int)
    return written(folder / "dubai.tif", image, np.ones_like(truth, bool)), truth


def written(path: Path, image: np.ndarray, valid: np.ndarray) -> Path:
    """A GeoTIFF; the same file in each run, so that its features are found again."""
    if path.exists():
        return path
    profile = {"driver": "GTiff", "count": 3, "height": image.shape[1], "width": image.shape[2], "dtype": "uint8"}
    grid = {"crs": "EPSG:32636", "transform": Affine(0.15, 0, 450_000, 0, -0.15, 40_000)}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile, **grid, tiled=True) as file:
        file.write(image)
        file.write_mask(valid)
    return path


class Annotator:
    """What the annotator knows: the truth; and what is scored: some pixels of it."""

    def __init__(self, opened: Session, truth: np.ndarray, seed: int) -> None:
        self.opened, self.truth, self.rng = opened, truth, np.random.default_rng([seed, 7])
        self.layout = opened.layout(LINEAR)
        self.known = np.argwhere(truth < len(opened.classes))
        rows, columns = self.drawn(SCORED)
        self.scored = self.layout.samples(rows, columns)
        held = self.scored.valid.numpy()
        self.labels, self.columns = torch.from_numpy(truth[rows[held], columns[held]]), columns[held]

    def drawn(self, count: int, *, west: bool = False) -> tuple[np.ndarray, np.ndarray]:
        among = self.known[self.known[:, 1] < self.truth.shape[1] // 2] if west else self.known
        rows, columns = among[self.rng.permutation(len(among))[:count]].T
        return rows, columns

    def clicked(self, rows: np.ndarray, columns: np.ndarray) -> Labels:
        return Labels("clicks", "", rows, columns, self.truth[rows, columns], np.arange(len(rows)))

    def miou(self, model: Any, among: np.ndarray | None = None) -> float:
        found = answers(model, self.scored.deep, self.scored.seen).argmax(dim=1)
        which = slice(None) if among is None else torch.from_numpy(among)
        count = len(self.opened.classes)
        confusion = confusion_matrix(self.labels[which], found[which], classes=count, ignore_index=-1)
        return 100 * float(intersection_over_union(confusion).nanmean())


def run(opened: Session, truth: np.ndarray, way: str, seed: int) -> list[dict[str, Any]]:
    person, records = Annotator(opened, truth, seed), []
    rows, columns = person.drawn(CLICKS)
    if way == "suggested":
        rows, columns = rows[:1], columns[:1]
        if max(opened.like) < 0:  # it has to know of two classes at least
            rows, columns = person.drawn(STEP)
    for clicks in range(STEP, CLICKS + 1, STEP):
        before = time.perf_counter()
        if way == "suggested" and len(rows) < clicks:
            labels = person.clicked(rows, columns)
            places = suggest(opened, opened.fit(labels, LINEAR), labels, 2 * STEP, worth=False).places
            good = [place for place in places if truth[place.row, place.column] < len(opened.classes)]
            good = good[: clicks - len(rows)]
            rows = np.append(rows, [place.row for place in good]).astype(int)
            columns = np.append(columns, [place.column for place in good]).astype(int)
        labels = person.clicked(rows[:clicks], columns[:clicks])
        if len(set(labels.labels.tolist())) < 2 and max(opened.like) < 0:
            continue
        model = opened.fit(labels, LINEAR)
        seconds = time.perf_counter() - before
        records.append({"clicks": clicks, "miou": f"{person.miou(model):.2f}", "seconds": f"{seconds:.2f}"})
    if way == "random":
        east = person.columns >= truth.shape[1] // 2
        full = opened.fit(person.clicked(*person.drawn(SCORED)), LINEAR)
        records.append({"clicks": "full", "miou": f"{person.miou(full):.2f}", "seconds": ""})
        if max(opened.like) >= 0:
            west = opened.fit(person.clicked(*person.drawn(CLICKS, west=True)), LINEAR)
            change = person.miou(west, east) - person.miou(opened.start, east)
            records += [
                {"clicks": "0", "miou": f"{person.miou(opened.start):.2f}", "seconds": ""},
                {"clicks": "forgotten", "miou": f"{-change:.2f}", "seconds": ""},
            ]
    return records


def study(data: Path, name: str, way: str, seed: int, cache: Path) -> list[dict[str, Any]]:
    scene, truth = (kampala if name == "kampala" else dubai)(data, cache)
    classes = ("building", "land", "road", "vegetation", "water") if name == "dubai cold" else ()
    keep = 0.0 if way == "once" else 1.0
    options = RefineOptions(head="linear", seed=seed, classes=classes, keep=keep, cache=cache / "features")
    with session(regard.load(STARTS[name]), scene, options, Windows(512, 128)) as opened:
        if way == "once":
            opened.like = (-1,) * len(opened.like)
        return run(opened, truth, way, seed)


def table(records: list[dict[str, str]]) -> str:
    lines = [
        "| scene | start | full | way | 10 | 20 | 50 | 100 clicks | clicks to 95 % of full | forgotten | seconds |"
    ]
    lines.append("| --- | ---: | ---: | --- |" + " ---: |" * 7)
    for name, way in product(STARTS, WAYS):
        mine = [one for one in records if one["set"] == name]

        def mean(clicks: str, way: str, mine: list[dict[str, str]] = mine) -> float:
            found = [float(one["miou"]) for one in mine if (one["way"], one["clicks"]) == (way, clicks)]
            return float(np.mean(found)) if found else float("nan")

        steps = [str(clicks) for clicks in range(STEP, CLICKS + 1, STEP)]
        full = mean("full", "random")
        reached = next((clicks for clicks in steps if mean(clicks, way) >= 0.95 * full), f"> {CLICKS}")
        seconds = [float(one["seconds"]) for one in mine if one["way"] == way and one["seconds"]]
        cells = [f"{mean(clicks, way):.1f}" for clicks in ("10", "20", "50", "100")]
        forgotten = f"{mean('forgotten', way):.1f}" if way == "random" else ""
        start = f"{name} | {mean('0', 'random'):.1f} | {full:.1f} | {way}"
        lines.append(
            f"| {start} | {' | '.join(cells)} | {reached} | {forgotten} | {np.median(seconds or [np.nan]):.1f} |"
        )
    return "\n".join(lines).replace("nan", "-")


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data, kept = Path(sys.argv[1]), Path(sys.argv[2])
    records = list(csv.DictReader(kept.open())) if kept.exists() else []
    for seed, name, way in product(SEEDS, STARTS, WAYS):
        key = {"set": name, "way": way, "seed": str(seed)}
        if any({field: record[field] for field in key} == key for record in records):
            continue
        records += [key | found for found in study(data, name, way, seed, kept.parent)]
        with kept.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["set", "way", "seed", "clicks", "miou", "seconds"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(records)
    print(table(records))


if __name__ == "__main__":
    main()
