"""The page is one complete, valid, harmless file, whatever it is about."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

import regard
from regard.card import Card
from regard.classes import ClassMap
from regard.datasets.labelled_data import LabelledData
from regard.errors import (
    ClassMismatch,
    ConfigError,
    OutputError,
    RegardError,
    SizeMismatch,
    TrainingError,
    UnreadableImage,
)
from regard.evaluation.evaluate import Scores, evaluate
from regard.inference.segmentation import Segmentation
from regard.io.areas import class_areas
from regard.io.raster import Box, open_raster
from regard.models import Segmenter
from regard.reports import page
from regard.reports.class_map import describe
from regard.reports.page import report
from regard.training.config import TrainConfig
from regard.training.record import Record, Run
from support import save_image, write_tif

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Reader(HTMLParser):
    """Elements, words and the balance of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> stands twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes what is not open"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(path: Path) -> Reader:
    """The page, after the checks that every page must pass."""
    html = path.read_text(encoding="utf-8")
    reader = Reader(html)
    assert html.startswith("<!DOCTYPE html>") and not reader.open
    assert not re.search(r"https?:|//[\w-]+\.|url\((?!#)|@import|<script|javascript:", html)
    assert not [key for _, attrs in reader.elements for key in attrs if key.startswith("on")]
    addresses = [value for _, attrs in reader.elements for key, value in attrs.items() if key in ("src", "href")]
    assert all(value and value.startswith(("data:image/", "#")) for value in addresses)
    ids = [attrs["id"] for _, attrs in reader.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    inner = [
        attrs[key] for _, attrs in reader.elements for key in ("href", "xlink:href", "aria-labelledby") if key in attrs
    ]
    assert {name.lstrip("#") for name in inner if name} <= set(ids)
    assert all(attrs.get("alt") for attrs in reader.all("img"))
    assert all(attrs.get("scope") for attrs in reader.all("th"))
    assert "default-src 'none'" in next(attrs["content"] for attrs in reader.all("meta") if "http-equiv" in attrs)
    assert {"header", "nav", "main", "footer", "h1"} <= {tag for tag, _ in reader.elements}
    assert not re.search(r"\b(nan|None|inf)\b", reader.text)
    assert len(html) < page.SIZE_LIMIT
    return reader


def random_scores(count: int, absent: tuple[int, ...] = ()) -> Scores:
    rng = np.random.default_rng(count)
    counts = rng.integers(0, 40, size=(count, count)) + 500 * np.eye(count, dtype=np.int64)
    counts[list(absent)], counts[:, list(absent)] = 0, 0
    return Scores(ClassMap.of([f"kind {index} of thing" for index in range(count)]), counts)


@pytest.fixture
def run(tmp_path: Path, tiny_model: Segmenter, toy: LabelledData) -> Run:
    """A finished run of forty steps, as training leaves it."""
    config = TrainConfig.of(steps=40, batch=2, crop=64, evaluate_every=20)
    record = Record(tmp_path / "run", tiny_model, toy, config)
    record.start(0)
    for step in range(1, 41):
        record.add_step(step, {"loss": 2 / step, "main": 1 / step, "regions": 1.5 / step, "rate": 1e-3})
        if step % 20 == 0:
            record.add_scores(step, tiny_model, evaluate(tiny_model, toy))
    record.finish()
    return Run(record.folder, record.best_file, record.best_scores())


@pytest.mark.parametrize("count", [2, 3, 8, 9, 20, 21, 150])
def test_scores_of_any_number_of_classes_name_them_all(tmp_path: Path, count: int):
    scores = random_scores(count)
    reader = read(report(scores, tmp_path / "page.html"))
    for name in scores.classes.names:
        assert name in reader.text
    assert f"{100 * scores.miou:.1f}" in reader.text
    assert ("of 150 classes" in reader.text) == (count == 150)


def test_an_absent_class_shows_dashes_and_counts_in_no_mean(tmp_path: Path):
    scores = random_scores(5, absent=(1, 3))
    reader = read(report(scores, tmp_path / "page.html"))
    assert "kind 1 of thing – – – – 0.0" in reader.text
    assert "kind 1 of thing – – – – –" in reader.text  # its row of the matrix
    assert f"mean {100 * scores.miou:.1f}" in reader.text


def test_nothing_labelled_at_all_shows_dashes_and_says_so(tmp_path: Path):
    text = read(report(random_scores(3, absent=(0, 1, 2)), tmp_path / "page.html")).text
    assert "0.0" not in text and "mean IoU – %" in text and "kind 1 of thing – – – – –" in text
    assert "No pixel is labelled." in text and "predicted correctly" not in text


EVIL = "bank\u202egnp.exe\x1b[2J\x07\u2066"


def test_control_and_bidirectional_characters_are_shown_as_escapes(tmp_path: Path, run: Run):
    scores = Scores(ClassMap.of([EVIL, "b"]), np.array([[5, 3], [2, 9]]))
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 41, "loss": 1.0, EVIL: 1.0, "rate": 1e-3}) + "\n")
    for source in (scores, run.folder):
        html = report(source, tmp_path / "page.html", title=EVIL).read_text()
        assert not [letter for letter in html if not letter.isprintable() and letter != "\n"]
        assert "bank\\u202egnp.exe\\x1b[2J\\x07\\u2066" in html
    assert scores.save(tmp_path / "s.json").read_text().isascii()


FALSE: dict[str, dict[str, Any]] = {
    "not square": {"confusion": [[1, 2]]},
    "of more classes": {"confusion": [[1, 1, 1]] * 3},
    "below zero": {"confusion": [[1, -2], [0, 3]]},
    "no number": {"confusion": [[1, math.nan], [0, 3]]},
    "without end": {"confusion": [[1, math.inf], [0, 3]]},
    "half a pixel": {"confusion": [[1.5, 1], [0, 3]]},
    "more than a file can hold": {"confusion": [[1e30, 1], [0, 3]]},
    "words": {"confusion": [["a", 1], [0, 3]]},
    "an interval of another class": {"intervals": {"c": [0.1, 0.2]}},
    "an interval upside down": {"intervals": {"a": [0.3, 0.2], "b": None, "mean": None}},
    "an interval beyond all": {"intervals": {"a": [0.3, math.inf], "b": None, "mean": None}},
    "bins below zero": {"reliability": {"pixels": [-1], "right": [0], "confidence": [0.5]}},
    "bins of another number": {"reliability": {"pixels": [1, 2], "right": [0], "confidence": [0.5]}},
}


@pytest.mark.parametrize("kind", FALSE)
def test_a_file_of_scores_is_checked_whole(tmp_path: Path, kind: str):
    facts = Scores(ClassMap.of(["a", "b"]), np.array([[5, 3], [2, 9]])).as_dict()
    (tmp_path / "s.json").write_text(json.dumps(facts))
    report(tmp_path / "s.json", tmp_path / "page.html")
    (tmp_path / "bad.json").write_text(json.dumps({**facts, **FALSE[kind]}))
    with pytest.raises(ConfigError, match=r"bad\.json holds no scores"):
        report(tmp_path / "bad.json", tmp_path / "bad.html")


def test_a_matrix_explains_itself(tmp_path: Path):
    names = ("building", "land", "road")
    scores = Scores(ClassMap.of(names), np.array([[80, 20, 0], [5, 95, 0], [31, 9, 60]]))
    reader = read(report(scores, tmp_path / "page.html"))
    for words in (
        "31 % of the reference pixels of road are predicted as building.",
        "predicted",
        "reference",
    ):
        assert words in reader.text
    assert "road 31 9 60" in reader.text
    html = (tmp_path / "page.html").read_text()
    assert re.search(r"var\(--orange\)/0.21\)\">31<", html) and re.search(r"var\(--blue\)/0.36\)\">60<", html)


def test_names_are_escaped_everywhere(tmp_path: Path, tiny_model: Segmenter):
    evil = "<script>alert('x')</script>"
    scores = Scores(ClassMap.of([evil, '"><img src=x onerror=alert(1)>']), np.array([[5, 3], [2, 9]]))
    tiny_model.card = tiny_model.card.model_copy(update={"credit": evil, "origin": evil})
    reader = read(report(scores, tmp_path / "page.html", model=tiny_model, title=evil))
    assert reader.text.count(evil) > 6
    assert reader.all("img") == []


def test_intervals_appear_where_each_image_was_counted(tmp_path: Path):
    images = np.random.default_rng(8).integers(1, 99, size=(7, 3, 3))
    scores = Scores(ClassMap.of(["a", "b", "c"]), images.sum(axis=0), images)
    reader = read(report(scores, tmp_path / "page.html"))
    low, high = scores.intervals["b"]
    assert f"{100 * low:.1f}–{100 * high:.1f}" in reader.text and "7 images" in reader.text
    assert "interval" not in read(report(Scores(scores.classes, scores.confusion), tmp_path / "plain.html")).text


def test_a_run_tells_what_was_trained_on_what_and_how_it_went(tmp_path: Path, run: Run):
    reader = read(report(run, tmp_path / "page.html"))
    for words in ("danet_ocr on toy", "test_resnet", "trained on 4 images of toy for 40 steps", "2 validation images"):
        assert words in reader.text
    for words in ("learning rate", "evaluate every 20", "Model card", "Machine and time", "red, green, blue"):
        assert words in reader.text
    drawn = [attrs["aria-label"] for attrs in reader.all("svg") if attrs.get("role") == "img"]
    assert len(drawn) == 4 and "Expected calibration error" in drawn[0]
    assert (
        "2 images (bootstrap, 1,000 resamples)" in reader.text
    )  # what the run kept of its images is enough for the intervals


def test_a_run_its_folder_and_its_folders_name_give_the_same_bytes(tmp_path: Path, run: Run):
    pages = [
        report(source, tmp_path / f"{index}.html") for index, source in enumerate((run, run.folder, str(run.folder)))
    ]
    assert len({path.read_bytes() for path in pages}) == 1


def test_an_unfinished_run_shows_its_step(tmp_path: Path, run: Run):
    facts = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({name: facts[name] for name in facts if name != "finished"}))
    metrics = (run.folder / "metrics.jsonl").read_text().splitlines()
    (run.folder / "metrics.jsonl").write_text("\n".join(metrics[:7]) + '\n{"step": 8, "lo')
    run.best.unlink()
    reader = read(report(run.folder, tmp_path / "page.html"))
    assert "The run is at step 7 of 40" in reader.text and "not been validated yet" in reader.text


def test_model_and_data_add_pictures_intervals_and_the_card(
    tmp_path: Path, run: Run, tiny_model: Segmenter, toy: LabelledData
):
    tiny_model.train()
    path = report(run, tmp_path / "page.html", model=tiny_model, data=toy)
    reader = read(path)
    assert tiny_model.training
    assert len(reader.all("img")) == 10 and "95 % interval" in reader.text and "no label" in reader.text
    assert reader.text.count("shown above") == 2 and "is not the one" not in reader.text
    assert path.read_bytes() == report(run, tmp_path / "again.html", model=tiny_model, data=toy).read_bytes()


def test_another_model_gives_pictures_but_no_intervals(
    tmp_path: Path, run: Run, tiny_model: Segmenter, toy: LabelledData
):
    scores = Scores(toy.classes, evaluate(tiny_model, toy).confusion[::-1].copy())
    reader = read(report(scores, tmp_path / "page.html", model=tiny_model, data=toy))
    assert (
        len(reader.all("img")) == 10
        and "interval" not in reader.text
        and "come from another model or other images" in reader.text
    )


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", None])
def test_a_map_tells_its_areas_its_confidence_and_its_model(tmp_path: Path, tiny_model: Segmenter, crs: str | None):
    values = np.random.default_rng(2).integers(1, 255, size=(3, 70, 90))
    place = Affine(1e-3, 0, 12, 0, -1e-3, 50) if crs == "EPSG:4326" else Affine(100, 0, 5e5, 0, -100, 5e6)
    scene = write_tif(tmp_path / "scene.tif", values, crs=crs, transform=place if crs else None)
    labels, sure = tmp_path / "map.tif", tmp_path / "sure.tif"
    regard.predict(tiny_model, scene, labels, confidence=sure)
    reader = read(report(labels, tmp_path / "page.html", confidence=sure))
    assert len(reader.all("img")) == 2 and ("ha pixels" in reader.text) == (crs is not None)
    for area in class_areas(labels):
        assert (
            area.name in reader.text and f"{100 * area.share:.1f}" in reader.text and f"{area.pixels:,}" in reader.text
        )
        if crs == "EPSG:32633":
            assert area.hectares == pytest.approx(
                area.pixels / 0.9996**2, rel=1e-5
            )  # a pixel is a hectare of the plane
    with open_raster(labels) as first, open_raster(sure) as second:
        whole = Box(0, 0, *first.size)
        chosen = second.read_band(whole)[first.read_band(whole) == 0]
    assert not chosen.size or f"{100 * chosen.mean() / 255:.1f}" in reader.text
    assert "Model card" in reader.text and "danet_ocr" in reader.text
    assert "% of the pixels are below 50 %" in next(
        attrs["aria-label"] for attrs in reader.all("svg") if "aria-label" in attrs
    )
    assert "less than 50 %" not in read(report(labels, tmp_path / "plain.html")).text
    with pytest.raises(ConfigError, match="holds int"):
        report(labels, tmp_path / "no.html", confidence=write_tif(tmp_path / "deep.tif", values[:1].astype(np.int16)))
    with pytest.raises(SizeMismatch, match="40 x 30"):
        report(labels, tmp_path / "no.html", confidence=write_tif(tmp_path / "small.tif", values[:1, :30, :40]))


def test_mean_confidence_of_each_class_leaves_out_what_has_none(tmp_path: Path, tiny_model: Segmenter):
    scene = write_tif(tmp_path / "scene.tif", np.full((3, 40, 40), 90))
    regard.predict(tiny_model, scene, tmp_path / "map.tif", confidence=tmp_path / "sure.tif")
    labels, levels = np.arange(1600).reshape(40, 40) % 3, np.full((40, 40), 51)
    levels[labels == 1] = 204
    levels[:, :7] = 0
    for name, values in (("map.tif", labels), ("sure.tif", levels)):
        with open_raster(tmp_path / name) as raster:
            tags, place = raster.tags(), {"crs": raster.crs, "transform": raster.transform}
        write_tif(tmp_path / name, values[None].astype(np.uint8), nodata=255 if name == "map.tif" else 0, **place)
        with rasterio.open(tmp_path / name, "r+") as file:
            file.update_tags(**tags)
    facts = describe(tmp_path / "map.tif", tmp_path / "sure.tif")
    assert facts["mean_confidence"] == pytest.approx([0.2, 0.8, 0.2])


def test_large_areas_are_in_square_kilometres(tmp_path: Path, tiny_model: Segmenter):
    values, crs = np.zeros((90, 120), dtype=np.uint8), rasterio.CRS.from_epsg(3035)  # equal areas
    values[:10] = 1
    for metres, unit, sizes in ((100, "ha", ("9,600", "1,200")), (1000, "km²", ("9,600", "1,200"))):
        place = Affine(metres, 0, 4.3e6, 0, -metres, 3.2e6)
        found = Segmentation(values, np.ones((90, 120)), tiny_model.classes, None, crs, place)
        labels = found.save(tmp_path / "labels.tif")
        text = read(report(labels, tmp_path / "page.html")).text
        assert all(f"{size} " in text for size in sizes) and f"{unit} pixels" in text
        area = re.search(rf"mapped area ([\d,]+) {unit}", text)
        assert ("hectares" in text) == (unit == "ha") and area is not None
        assert float(area[1].replace(",", "")) == pytest.approx(10_800 / 0.9996**2, rel=1e-3)


def test_pictures_stand_in_the_page_with_their_captions(tmp_path: Path):
    file = save_image(tmp_path / "map.png", np.random.default_rng(9).integers(0, 255, size=(900, 2000, 3)))
    reader = read(report(random_scores(3), tmp_path / "page.html", pictures=[("The map <of> it all", file)]))
    assert reader.all("img")[0]["alt"] == "The map <of> it all"
    assert "The map <of> it all" in reader.text


def test_saved_scores_give_the_page_of_the_scores(tmp_path: Path, tiny_model: Segmenter, toy: LabelledData):
    scores = evaluate(tiny_model, toy).without("red thing")
    saved = report(scores.save(tmp_path / "scores.json"), tmp_path / "one.html")
    assert saved.read_bytes() == report(scores, tmp_path / "two.html").read_bytes()


def test_the_public_name_is_this_function(tmp_path: Path):
    assert regard.report(random_scores(2), tmp_path / "page.html").is_file()


def test_what_cannot_be_reported_is_refused_and_nothing_is_left(
    tmp_path: Path, toy: LabelledData, tiny_model: Segmenter, monkeypatch: pytest.MonkeyPatch
):
    target, scores = tmp_path / "page.html", random_scores(3)
    (tmp_path / "notes.json").write_text('{"miou": 1}')
    (tmp_path / "scene.tif").write_bytes(b"II*\0 not text \xff")
    cases: list[tuple[type[RegardError], str, dict]] = [
        (TrainingError, "holds no run", {"source": tmp_path}),
        (ConfigError, "holds no scores", {"source": tmp_path / "notes.json"}),
        (UnreadableImage, "the header cannot be read", {"source": tmp_path / "scene.tif"}),
        (ConfigError, "no model", {"source": scores, "data": toy}),
        (ClassMismatch, "kind 0 of thing", {"source": scores, "data": toy, "model": tiny_model}),
    ]
    for error, words, settings in cases:
        with pytest.raises(error, match=words):
            report(path=target, **settings)
    with pytest.raises(OutputError, match="is a folder"):
        report(scores, tmp_path)
    monkeypatch.setattr(page, "SIZE_LIMIT", 5_000)
    with pytest.raises(ConfigError, match="Give fewer pictures"):
        report(scores, target)
    assert not target.exists() and not list(tmp_path.glob(".*"))


def test_a_card_has_a_line_for_every_field(tmp_path: Path, run: Run):
    shown = read(report(run, tmp_path / "page.html")).text
    elsewhere = {"classes", "config", "ground_resolution", "regard_version"}
    assert all(name.replace("_", " ") in shown for name in set(Card.model_fields) - elsewhere)
