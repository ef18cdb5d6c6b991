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

from regard.checkpoints.create import create
from regard.checkpoints.file import load
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.datasets.mask import read_mask
from regard.evaluation.evaluate import evaluate
from regard.files import check_writable
from regard.inference.pictures import blend, colourise, panel
from regard.inference.segmentation import Segmentation
from regard.io.image import read_image, read_small
from regard.mapping.predict import predict
from regard.models import Segmenter
from regard.reports.page import report
from regard.training.record import Run, read_metrics
from regard.training.train import train

SCENE = "globe/americas_atlantic.tif"
TILE = "t4_p2"
STEPS = 40
WIDTH = 900  # pixels of the pictures of the scene


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

    with step("map", "1  Mapping land cover from 60 N to the equator with globe-s: a 1800 x 900 GeoTIFF"):
        files |= map_globe(sample / SCENE, out)
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
        pictures = [("Land cover by globe-s", out / "globe.png"), ("A tile of Dubai by dubai-s", out / "city.png")]
        files["report"] = str(report(finished, out / "report.html", data=city, pictures=pictures))
    return {"files": files, "scores": scores.as_dict(), "losses": losses(finished), "seconds": seconds}


def map_globe(scene: Path, out: Path) -> dict[str, str]:
    """The class map of the georeferenced scene, its confidence, and pictures of both."""
    model = load("globe-s", fast=True)
    class_map, confidence = out / "map.tif", out / "confidence.tif"
    predict(model, scene, class_map, confidence=confidence, tile=512, overlap=128, overwrite=True)
    image = read_small(scene, WIDTH)[:3].transpose(1, 2, 0)
    labels = colourise(read_small(class_map, WIDTH, nearest=True)[0], model.classes)
    globe = panel([("scene", image), ("map", labels)], model.classes, out / "globe.png", columns=1)
    overlay = panel([("overlay", blend(image, labels))], model.classes, out / "overlay.png")
    written = {"map": class_map, "style for QGIS": class_map.with_suffix(".qml"), "confidence": confidence}
    return {name: str(path) for name, path in {**written, "globe": globe, "overlay": overlay}.items()}


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
