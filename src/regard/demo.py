"""The main job from end to end with bundled models and images: map, train, evaluate, report. No network access."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from regard.checkpoints.create import create
from regard.checkpoints.file import load
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.datasets.mask import read_mask
from regard.evaluation.evaluate import evaluate
from regard.evaluation.finished import ALL, evaluate_map
from regard.files import check_writable
from regard.inference.pictures import colourise, panel
from regard.inference.segmentation import Segmentation
from regard.io.image import read_image
from regard.io.raster import open_raster
from regard.io.vectors import read_polygons
from regard.mapping.predict import predict
from regard.models import Segmenter
from regard.reports.page import report
from regard.training.record import Run, read_metrics
from regard.training.train import train

SAMPLE = ("ortho.tif", "buildings.geojson", "mapped.geojson", "labels.json", "SOURCE.txt")  # of Banepa
TILE = "t4_p2"  # of Dubai
STEPS = 40
PICTURE = 1100  # pixels of the image that a picture of the sample shows, from its top left corner
DRAWN, FOUND = (255, 220, 0), (255, 45, 85)  # colours of outlines


def run(out: Path) -> dict[str, Any]:
    """Do all steps and print each; the files by what they show, the scores, the losses and the seconds of each step.

    Raises:
        OutputError: ``out`` cannot be written to.
    """
    check_writable(out / "map.tif")
    sample = Path(str(resources.files("regard") / "bundled"))
    seconds: dict[str, float] = {}
    files: dict[str, str] = {}

    @contextmanager
    def step(name: str, text: str) -> Iterator[None]:
        print(f"\n{text}", file=sys.stderr, flush=True)
        began = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - began

    with step("map", "1  Mapping the buildings of a drone's orthophoto with buildings-s, next to OpenStreetMap's"):
        files |= map_buildings(sample / "banepa", out)
    with step("city", "2  Mapping a tile of Dubai with dubai-s"):
        city = folder(sample / "city")
        model = load("dubai-s")
        files |= map_city(model, city, out)
    with step("train", f"3  Training new heads on 24 tiles for {STEPS} steps"):
        finished = fine_tune(model, city, out / "run")
        files["new model"] = str(finished.best)
    with step("evaluate", "4  Scoring dubai-s on the 6 held-out tiles"):
        scores = evaluate(model, city)
        files["scores"] = str(scores.save(out / "scores.json"))
        print(scores.table(), file=sys.stderr)
    with step("report", "5  Writing the report"):
        buildings = ("Buildings by buildings-s", out / "buildings.png")
        pictures = [buildings, ("A tile of Dubai by dubai-s", out / "city.png")]
        files["report"] = str(report(finished, out / "report.html", data=city, pictures=pictures))
    return {"files": files, "scores": scores.as_dict(), "losses": losses(finished), "seconds": seconds}


def map_buildings(sample: Path, out: Path) -> dict[str, str]:
    """The class map, its polygons and areas, and a picture of them; the sample is copied for further commands."""
    model, here = load("buildings-s", fast=True), out / "banepa"
    here.mkdir(parents=True, exist_ok=True)
    for name in SAMPLE:
        shutil.copyfile(sample / name, here / name)
    scene, class_map, polygons = here / "ortho.tif", out / "map.tif", out / "buildings.gpkg"
    asked: dict[str, Any] = {"confidence": out / "confidence.tif", "polygons": polygons, "areas": out / "areas.csv"}
    predict(model, scene, class_map, **asked, regularise=["building"], minimum_area=4.0, overwrite=True)
    scores = evaluate_map(class_map, here / "labels.json", split=ALL, progress=False).scores
    print(f"\nThe map against OpenStreetMap's buildings\n\n{scores.table()}", file=sys.stderr)
    image = read_image(scene).values[:, :PICTURE, :PICTURE].transpose(1, 2, 0)
    pictures = [
        ("drone image: OpenAerialMap, HOT (CC-BY)", image),
        ("buildings of OpenStreetMap contributors", outlined(image, scene, here / "buildings.geojson", DRAWN)),
        ("buildings found by regard", outlined(image, scene, polygons, FOUND)),
    ]
    picture = panel(pictures, None, out / "buildings.png")
    written = {"map": class_map, "style for QGIS": class_map.with_suffix(".qml"), **asked, "picture": picture}
    return {name: str(path) for name, path in written.items()}


def outlined(
    image: UInt8[np.ndarray, "h w 3"], scene: Path, polygons: Path, colour: tuple[int, int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The top left part of a scene with the outlines of polygons."""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    with open_raster(scene) as raster:
        shapes = read_polygons(polygons, raster).shapes
    for part in shapely.get_parts(shapes):
        for ring in (part.exterior, *part.interiors):
            pen.line([*ring.coords], fill=colour, width=5, joint="curve")
    return np.asarray(picture)


def map_city(model: Segmenter, city: LabelledData, out: Path) -> dict[str, str]:
    """A tile, its reference labels and its prediction side by side."""
    pair = next(pair for pair in city.split("val") if pair.name == TILE)
    predicted = predict(model, pair.image)
    assert isinstance(predicted, Segmentation)
    labels = predicted.save(out / "city_labels.png")
    reference = read_mask(pair.mask, city.classes)
    pictures = [
        ("image", read_image(pair.image).values.transpose(1, 2, 0)),
        ("reference", colourise(reference, city.classes)),
        ("dubai-s", predicted.colours()),
    ]
    return {"city": str(panel(pictures, city.classes, out / "city.png")), "city labels": str(labels)}


def fine_tune(model: Segmenter, city: LabelledData, out: Path) -> Run:
    """Train new heads on the trained backbone for a minute; an earlier run in the folder is replaced."""
    if (out / "run.json").is_file():
        shutil.rmtree(out)
    config = dict(model.card.config)
    fresh = create(model.card.architecture, classes=city.classes, **config)
    fresh.get_submodule("backbone").load_state_dict(model.get_submodule("backbone").state_dict())
    schedule: dict[str, Any] = {"steps": STEPS, "evaluate_every": STEPS, "warmup": 5, "ema": 0.9}
    return train(fresh, city, out, batch=4, crop=256, workers=0, rot90=True, learning_rate=2e-3, **schedule)


def losses(finished: Run) -> dict[str, float]:
    """The mean training loss over the first and the last five steps."""
    values = [line["loss"] for line in read_metrics(finished.folder) if "loss" in line]
    return {"first": float(np.mean(values[:5])), "last": float(np.mean(values[-5:]))}
