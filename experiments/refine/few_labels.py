"""Which head a few dozen polygons fit best: on single pixels, on pixels and squares around them, on deep features.

python -m experiments.refine.few_labels DATA RECORDS.csv     a run that is stopped resumes; prints the table

Two Landsat scenes with 33 and 30 polygons. All heads get the same pixels (at most 200 of a polygon) and the same blocks
of ground, an eighth of the labelled ground a side, in five folds that each seed draws; mIoU over the classes whose
polygons lie in two blocks or more. The deep features are those of a generic backbone, ImageNet's, before any training.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyogrio.raw
import rasterio
import torch
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

import regard
from regard.models import Segmenter
from regard.options import Input, Windows
from regard.refine.heads import Task
from regard.refine.labels import Labels, class_names, read_labels
from regard.refine.options import RefineOptions
from regard.refine.session import Session, blank, session
from regard.refine.trials import FOLDS, Kind, blocks_of, try_on_blocks

SEEDS = range(5)
SETS = {
    "landsat7_nc": ("image.tif", "training_polygons.geojson", "label", tuple(range(1, 7))),
    "chiapas_l7": ("LE70220491999322EDC01_stack.gtif", "training_data.shp", "class", tuple(range(1, 8))),
}
OURS = {
    "kernel, bands": Kind("kernel", False, True),
    "linear, deep": Kind("linear", True, False),
    "linear, deep and bands": Kind("linear", True, True),
    "context, deep and bands": Kind("context", True, True),
    "kernel, deep and bands": Kind("kernel", True, True),
}
THEIRS: dict[str, Callable[[int], Any]] = {
    "Gaussian": lambda seed: QuadraticDiscriminantAnalysis(reg_param=0.01),
    "Random Forest": lambda seed: RandomForestClassifier(100, random_state=seed, class_weight="balanced"),
    "gradient boosting": lambda seed: HistGradientBoostingClassifier(max_iter=50, random_state=seed),
}


class Trial(NamedTuple):
    task: Task
    labels: Labels


def generic(start: Segmenter, data: Path) -> Segmenter:
    """A fusion on ImageNet's backbone for these bands, with the scene's own scaling; its head has learned nothing."""
    torch.manual_seed(0)
    model = regard.create(
        "danet_ocr", classes=start.classes, backbone="tf_efficientnet_lite0", in_channels=len(start.bands),
        bands=start.bands, pretrained=data / "weights" / "tf_efficientnet_lite0.pth", width=128, output_stride=8,
    )  # fmt: skip
    scaling = {name: getattr(start.card, name) for name in ("mean", "std", "divisor")}
    return model.with_card(model.card.model_copy(update=scaling)).eval()


def with_crs(scene: Path, polygons: Path, folder: str) -> Path:
    """The polygons in the scene's CRS: a GeoJSON says EPSG:4326 by its format, its coordinates are the scene's."""
    meta, _, geometry, fields = pyogrio.raw.read(polygons)
    with rasterio.open(scene) as grid:
        crs = grid.crs.to_wkt()
    names, out = list(meta["fields"]), Path(folder) / "polygons.gpkg"
    kept = [place for place, name in enumerate(names) if name.lower() not in ("id", "fid")]
    pyogrio.raw.write(
        out, geometry, [fields[place] for place in kept], [names[place] for place in kept], crs=crs,
        geometry_type="Polygon", driver="GPKG",
    )  # fmt: skip
    return out


def folds(trial: Trial) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    block = blocks_of(trial.labels)
    fold = np.random.default_rng([trial.task.seed, 3]).permutation(block.max() + 1)[block] % FOLDS
    for number in np.unique(fold):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def miou(predicted: np.ndarray, trial: Trial) -> float:
    block, truth, scores = blocks_of(trial.labels), trial.task.labels.numpy(), []
    told = [label for label in np.unique(truth) if len(np.unique(block[truth == label])) >= 2]
    among = np.isin(truth, told)
    for label in told:
        both = ((predicted == label) & (truth == label)).sum()
        scores.append(both / (((predicted == label) & among) | (truth == label)).sum())
    return 100 * float(np.mean(scores))


def theirs(make: Callable[[int], Any], values: np.ndarray, trial: Trial) -> float:
    truth, predicted = trial.task.labels.numpy(), np.full(len(trial.task.labels), -1)
    for rest, held in folds(trial):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes with fewer pixels than values
            predicted[held] = make(trial.task.seed).fit(values[rest], truth[rest]).predict(values[held])
    return miou(predicted, trial)


def scores(opened: Session, path: Path, column: str, seed: int) -> Iterator[tuple[str, float]]:
    opened.options, bands = replace(opened.options, seed=seed), len(opened.start.bands)
    labels = read_labels(path, opened.raster, opened.classes, column, seed)
    for name, kind in OURS.items():
        task, kept = opened.task(labels, kind)
        yield name, 100 * try_on_blocks(opened.start, task, kept, kind).means[1]
    trial, seen = Trial(task, kept), task.labelled.seen.numpy()
    inputs = {"pixels": seen[:, :bands], "bands": seen, "deep and bands": np.hstack([task.labelled.deep, seen])}
    for name, make in THEIRS.items():
        for what in ("pixels",) if name == "Gaussian" else inputs:
            yield f"{name}, {what}", theirs(make, inputs[what], trial)


def study(data: Path, name: str, seed: int) -> Iterator[tuple[str, float]]:
    image, polygons, column, bands = SETS[name]
    scene = data / name / image
    with tempfile.TemporaryDirectory() as folder:
        path = with_crs(scene, data / name / polygons, folder)
        names, given = class_names(path, column), Input(bands)
        with session(None, scene, RefineOptions(), given=given, names=names) as plain:
            model = generic(blank(plain.raster, names), data)
        with session(model, scene, RefineOptions(keep=0.0), Windows(96, 32), given, names=names) as opened:
            yield from scores(opened, path, column, seed)


def table(records: list[dict[str, str]]) -> str:
    found: dict[str, dict[str, list[float]]] = {}
    for record in records:
        found.setdefault(record["head"], {}).setdefault(record["set"], []).append(float(record["miou"]))
    lines = [f"| head and what it gets | {' | '.join(SETS)} |", f"| --- |{' ---: |' * len(SETS)}"]
    for head in sorted(found, key=lambda head: -float(np.mean([np.mean(found[head][name]) for name in SETS]))):
        cells = [f"{np.mean(found[head][name]):.1f} ± {np.std(found[head][name], ddof=1):.1f}" for name in SETS]
        lines.append(f"| {head} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data, kept = Path(sys.argv[1]), Path(sys.argv[2])
    records = list(csv.DictReader(kept.open())) if kept.exists() else []
    for name, seed in product(SETS, SEEDS):
        if not any(record["set"] == name and record["seed"] == str(seed) for record in records):
            records += [
                {"set": name, "seed": str(seed), "head": head, "miou": f"{score:.3f}"}
                for head, score in study(data, name, seed)
            ]
            with kept.open("w", newline="") as file:
                writer = csv.DictWriter(file, ["set", "seed", "head", "miou"], lineterminator="\n")
                writer.writeheader()
                writer.writerows(records)
    print(table(records))


if __name__ == "__main__":
    main()
