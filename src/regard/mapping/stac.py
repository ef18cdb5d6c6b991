"""A map as an item of a SpatioTemporal Asset Catalog: where it lies, its files, and the model that made it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyproj

from regard.card import Card
from regard.classes import CERTAINTY, ClassMap
from regard.errors import ClassMismatch
from regard.files import write_text
from regard.io.cog_writer import as_hex, label_layer
from regard.io.footprint import footprint
from regard.io.polygons import MODIFIED_TAG
from regard.io.raster import Raster, open_raster
from regard.options import Outputs

TIME = "%Y-%m-%dT%H:%M:%SZ"
EXTENSIONS = ("projection/v2.0.0", "classification/v2.0.0", "raster/v2.0.0", "mlm/v1.5.0")
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
MEDIA = {
    ".gpkg": "application/geopackage+sqlite3",
    ".geojson": "application/geo+json",
    ".fgb": "application/vnd.flatgeobuf",
    ".parquet": "application/vnd.apache.parquet",
}


def write_item(outputs: Outputs, target: Path) -> Path:
    """Write the item of a finished map: all that it says stands in the map's tags. Links to files are relative.

    Raises:
        UnreadableImage: the map cannot be read.
        ClassMismatch: it does not say which model made it.
        OutputError: the item cannot be written.
    """
    labels = outputs.rasters["labels"]
    with open_raster(labels, bands=[1]) as raster:
        tags = raster.tags()
        try:
            card, weights = Card.model_validate_json(tags["regard_card"]), tags["regard_weights_sha256"]
        except (KeyError, ValueError):
            raise ClassMismatch(
                f"{labels.name} does not say which model made it (no tag regard_card). Give a map of regard."
            ) from None
        item = {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in EXTENSIONS],
            "id": labels.stem,
            **footprint(raster),
            "properties": {"datetime": _taken(tags), **_projection(raster), **_model_fields(card, weights, tags)},
            "links": [],
            "assets": {**_assets(outputs, card.classes, target.parent), "model": _weights_asset(card, weights)},
        }
    return write_text(target, json.dumps(item, indent=2) + "\n")


def _taken(tags: Mapping[str, str]) -> str:
    """When the scene was taken, by its TIFF tag, else when its file was modified, else now; in UTC."""
    with suppress(KeyError, ValueError):
        return datetime.strptime(tags["TIFFTAG_DATETIME"], "%Y:%m:%d %H:%M:%S").strftime(TIME)
    with suppress(KeyError, ValueError):
        return datetime.fromisoformat(tags[MODIFIED_TAG]).astimezone(UTC).strftime(TIME)
    return datetime.now(UTC).strftime(TIME)


def _projection(raster: Raster) -> dict[str, Any]:
    fields: dict[str, Any] = {"proj:shape": list(raster.size), "proj:transform": list(raster.transform)[:6]}
    if raster.crs is None:
        return {"proj:code": None, **fields}
    authority = raster.crs.to_authority()
    code = {"proj:code": None if authority is None else ":".join(authority)}
    return {**code, "proj:wkt2": pyproj.CRS.from_wkt(raster.crs.to_wkt()).to_wkt(), **fields}


def _model_fields(card: Card, weights: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The model's card in the words of the extension for machine learning models, and in our own."""
    bands, tasks = list(card.bands), ["semantic-segmentation"]
    form = {"dim_order": ["batch", "bands", "height", "width"], "data_type": "float32"}
    scaling = [
        {"type": "z-score", "mean": mean * card.divisor, "stddev": std * card.divisor}
        for mean, std in zip(card.mean, card.std, strict=True)
    ]
    result = {
        "shape": [-1, -1, -1],
        "dim_order": ["batch", "height", "width"],
        "data_type": label_layer(card.classes, {}).dtype,
    }
    classes = {"classification:classes": _classes(card.classes)}
    return {
        "bands": [{"name": band} for band in bands],
        "mlm:name": f"regard {card.architecture}",
        "mlm:architecture": card.architecture,
        "mlm:tasks": tasks,
        "mlm:framework": "PyTorch",
        "mlm:framework_version": version("torch"),
        **({"mlm:total_parameters": int(tags["regard_parameters"])} if "regard_parameters" in tags else {}),
        "mlm:input": [
            {"name": "image", "bands": bands, "input": {"shape": [-1, len(bands), -1, -1], **form}}
            | {"value_scaling": scaling, "resize_type": None}
        ],
        "mlm:output": [{"name": "labels", "tasks": tasks, "result": result, **classes}],
        "regard:weights_sha256": weights,
        "regard:card": card.model_dump(mode="json"),
    }


def _classes(classes: ClassMap) -> list[dict[str, Any]]:
    """Value, name in the letters that the extension allows, name as it is, and colour of every class."""
    named = enumerate(zip(classes.names, classes.palette, strict=True))
    return [
        {
            "value": value,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "-", name),
            "description": name,
            "color_hint": as_hex(colour)[1:].upper(),
        }
        for value, (name, colour) in named
    ]


def _assets(outputs: Outputs, classes: ClassMap, folder: Path) -> dict[str, Any]:
    """The files, with paths from the item's folder."""
    layer = label_layer(classes, {})
    share = {"data_type": "uint8", "nodata": 0, "raster:scale": 1 / 255, "raster:offset": 0}

    def cog(title: str, **band: Any) -> dict[str, Any]:
        return {"title": title, "type": COG, "bands": [band]}

    about: Mapping[str, dict[str, Any]] = {
        "labels": cog("Class of every pixel", name="class", data_type=layer.dtype, nodata=layer.nodata)
        | {"classification:classes": _classes(classes)},
        "confidence": cog("Probability of the class", name="confidence", **share),
        "entropy": cog("Uncertainty over all classes (entropy)", name="entropy", **share),
        "probabilities": {
            **cog("Probability of every class"),
            "bands": [{"name": name, **share} for name in classes.names],
        },
        "certain": cog("Where a share of errors is promised", name="certain", data_type="uint8", nodata=255)
        | {"classification:classes": _classes(CERTAINTY)},
        "margin": cog("Lead of the class over the second", name="margin", **share),
        "polygons": {"title": "Polygons by class", "type": MEDIA.get((outputs.polygons or Path()).suffix.lower())},
        "areas": {"title": "Ground that each class covers", "type": "text/csv"},
        "preview": {"title": "Picture of the map", "type": "image/png", "roles": ["thumbnail"]},
    }
    files = {**vars(outputs), **outputs.rasters}
    named = {name: path for name, path in files.items() if name in about and path is not None}
    return {name: {"href": _link(path, folder), "roles": ["data"], **about[name]} for name, path in named.items()}


def _link(path: Path, folder: Path) -> str:
    relative = os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/")
    return relative if relative.startswith(".") else f"./{relative}"


def _weights_asset(card: Card, weights: str) -> dict[str, Any]:
    """The model by the sum of its weights: where its file lies the map does not know."""
    return {
        "href": f"urn:sha256:{weights}",
        "title": f"Weights of {card.architecture}, by the SHA-256 of their names, shapes and values",
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": "safetensors.torch.save_file",
    }
