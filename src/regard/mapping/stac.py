"""A map as an item of a SpatioTemporal Asset Catalog: where it lies, its files, and the model that made it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import antimeridian
import numpy as np
import pyproj
import shapely
import torch

from regard.files import write_text
from regard.io.cog_writer import as_hex, label_layer
from regard.io.raster import Raster, to_map
from regard.models import Segmenter
from regard.options import Outputs

POINTS_A_SIDE = 16  # of the footprint: straight sides of one CRS are curves in another
EXTENSIONS = ("projection/v2.0.0", "classification/v2.0.0", "raster/v2.0.0", "mlm/v1.5.0")
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
MEDIA = {
    ".gpkg": "application/geopackage+sqlite3",
    ".geojson": "application/geo+json",
    ".fgb": "application/vnd.flatgeobuf",
    ".parquet": "application/vnd.apache.parquet",
}


def write_item(raster: Raster, model: Segmenter, outputs: Outputs, target: Path, *, weights: str) -> Path:
    """Write the item of a finished map; ``weights`` is the SHA-256 of the model's. Links to files are relative.

    Raises:
        OutputError: it cannot be written.
    """
    place = _place(raster)
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in EXTENSIONS],
        "id": outputs.rasters["labels"].stem,
        **place,
        "properties": {"datetime": _taken(raster), **_projection(raster), **_model_fields(model, weights)},
        "links": [],
        "assets": {**_assets(outputs, model, target.parent), "model": _weights_asset(model, weights)},
    }
    return write_text(target, json.dumps(item, indent=2) + "\n")


def _place(raster: Raster) -> dict[str, Any]:
    """The outline in longitude and latitude, in two parts where it crosses the 180th meridian, and its box; no geometry
    without a CRS or beyond what it can place.
    """
    if raster.crs is None:
        return {"geometry": None}
    height, width = raster.size
    side = max(height, width) / POINTS_A_SIDE
    corners = shapely.get_coordinates(shapely.segmentize(shapely.box(0, 0, width, height), side))
    change = pyproj.Transformer.from_crs(raster.crs.to_wkt(), "OGC:CRS84", always_xy=True)
    outline = np.stack(change.transform(*to_map(corners, raster.transform).T), axis=1)
    if not np.isfinite(outline).all():
        return {"geometry": None}
    shape = antimeridian.fix_polygon(shapely.orient_polygons(shapely.Polygon(outline.round(7))), fix_winding=False)
    return {"geometry": shapely.geometry.mapping(shape), "bbox": antimeridian.bbox(shape)}


def _taken(raster: Raster) -> str:
    """When the scene was taken, by its TIFF tag, else now; in UTC."""
    try:
        moment = datetime.strptime(raster.tags().get("TIFFTAG_DATETIME", ""), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        moment = datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _projection(raster: Raster) -> dict[str, Any]:
    fields: dict[str, Any] = {"proj:shape": list(raster.size), "proj:transform": list(raster.transform)[:6]}
    if raster.crs is None:
        return {"proj:code": None, **fields}
    authority = raster.crs.to_authority()
    code = {"proj:code": None if authority is None else ":".join(authority)}
    return {**code, "proj:wkt2": pyproj.CRS.from_wkt(raster.crs.to_wkt()).to_wkt(), **fields}


def _model_fields(model: Segmenter, weights: str) -> dict[str, Any]:
    """The model's card in the words of the extension for machine learning models, and in our own."""
    card = model.card
    bands, tasks = list(card.bands), ["semantic-segmentation"]
    form = {"dim_order": ["batch", "bands", "height", "width"], "data_type": "float32"}
    scaling = [
        {"type": "z-score", "mean": mean * card.divisor, "stddev": std * card.divisor}
        for mean, std in zip(card.mean, card.std, strict=True)
    ]
    result = {
        "shape": [-1, -1, -1],
        "dim_order": ["batch", "height", "width"],
        "data_type": label_layer(model.classes, {}).dtype,
    }
    classes = {"classification:classes": _classes(model)}
    return {
        "bands": [{"name": band} for band in bands],
        "mlm:name": f"regard {card.architecture}",
        "mlm:architecture": card.architecture,
        "mlm:tasks": tasks,
        "mlm:framework": "PyTorch",
        "mlm:framework_version": torch.__version__,
        "mlm:total_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "mlm:input": [
            {"name": "image", "bands": bands, "input": {"shape": [-1, len(bands), -1, -1], **form}}
            | {"value_scaling": scaling, "resize_type": None}
        ],
        "mlm:output": [{"name": "labels", "tasks": tasks, "result": result, **classes}],
        "regard:weights_sha256": weights,
        "regard:card": card.model_dump(mode="json"),
    }


def _classes(model: Segmenter) -> list[dict[str, Any]]:
    """Value, name in the letters that the extension allows, name as it is, and colour of every class."""
    named = enumerate(zip(model.classes.names, model.classes.palette, strict=True))
    return [
        {
            "value": value,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "-", name),
            "description": name,
            "color_hint": as_hex(colour)[1:].upper(),
        }
        for value, (name, colour) in named
    ]


def _assets(outputs: Outputs, model: Segmenter, folder: Path) -> dict[str, Any]:
    """The files, with paths from the item's folder."""
    layer = label_layer(model.classes, {})
    share = {"data_type": "uint8", "nodata": 0, "raster:scale": 1 / 255, "raster:offset": 0}

    def cog(title: str, **band: Any) -> dict[str, Any]:
        return {"title": title, "type": COG, "bands": [band]}

    about: Mapping[str, dict[str, Any]] = {
        "labels": cog("Class of every pixel", name="class", data_type=layer.dtype, nodata=layer.nodata)
        | {"classification:classes": _classes(model)},
        "confidence": cog("Probability of the class", name="confidence", **share),
        "entropy": cog("Uncertainty over all classes (entropy)", name="entropy", **share),
        "polygons": {"title": "Polygons by class", "type": MEDIA.get((outputs.polygons or Path()).suffix.lower())},
        "areas": {"title": "Ground that each class covers", "type": "text/csv"},
    }
    files = {"labels": outputs.out, **vars(outputs)}
    named = {name: path for name, path in files.items() if name in about and path is not None}
    return {name: {"href": _link(path, folder), "roles": ["data"], **about[name]} for name, path in named.items()}


def _link(path: Path, folder: Path) -> str:
    relative = os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/")
    return relative if relative.startswith(".") else f"./{relative}"


def _weights_asset(model: Segmenter, weights: str) -> dict[str, Any]:
    """The model by the sum of its weights: where its file lies the map does not know."""
    return {
        "href": f"urn:sha256:{weights}",
        "title": f"Weights of {model.card.architecture}, by the SHA-256 of their names, shapes and values",
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": "safetensors.torch.save_file",
    }
