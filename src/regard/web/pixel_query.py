"""Inspect one pixel: class probabilities and band values; and overlays of attention, object regions and channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from regard.errors import ConfigError
from regard.explain.explain import explain, has_attention
from regard.explain.explanation import Explanation
from regard.inference.pictures import data_uri
from regard.io.raster import Box, apply
from regard.web.png import NOTHING, heat_png, labels_of

if TYPE_CHECKING:
    from regard.web.viewer import Viewer

LARGEST = 384  # pixels of an overlay
MOST_REGIONS = 8


def inspect(viewer: Viewer, x: int, y: int) -> dict[str, Any]:
    """Class probabilities, band values and coordinates of a pixel.

    Raises:
        ConfigError: it holds no data.
    """
    pixel = viewer.raster.read(Box(y, x, 1, 1))
    if not pixel.valid.all():
        raise ConfigError(f"{viewer.sources.scene.name} has no data at pixel ({x}, {y}). Choose another pixel.")
    probabilities = viewer.live.regions.probabilities(x, y)
    names = [viewer.band_names[number - 1] for number in viewer.raster.bands]
    centre = np.array([[x + 0.5, y + 0.5]])
    return {
        "x": x,
        "y": y,
        "class": int(probabilities.argmax()),
        "probabilities": probabilities.tolist(),
        "bands": [
            {"name": name, "value": float(value)} for name, value in zip(names, pixel.values[:, 0, 0], strict=True)
        ],
        "degrees": viewer.place.degrees(centre)[0].tolist() if viewer.place.crs else None,
        "coordinates": list(map(float, apply(viewer.raster.transform, *centre[0]))) if viewer.place.crs else None,
        "mapped": _label(viewer, "labels_map", x, y),
        "reference": _label(viewer, "labels", x, y),
        "attention": has_attention(viewer.model),
    }


def _label(viewer: Viewer, name: str, x: int, y: int) -> int | None:
    """The class that a file has at a pixel; None without the file, or where it has none."""
    if name not in viewer.layers:
        return None
    found = int(
        labels_of(viewer.layers[name].cut((float(x), float(y), x + 1.0, y + 1.0), 1), viewer.model.classes)[0, 0]
    )
    return None if found == NOTHING else found


def attention(viewer: Viewer, x: int, y: int) -> dict[str, Any]:
    """Overlays of what a pixel attends to; none for a model without attention."""
    model, tile = viewer.model, viewer.live.regions.tile
    if not has_attention(model):
        return {"overlays": []}
    return {
        "overlays": list(_overlays(explain(model, viewer.sources.scene, (x, y), bands=viewer.sources.bands, tile=tile)))
    }


def _overlays(why: Explanation) -> Iterator[dict[str, Any]]:
    """Attention weights, object regions with the largest weights, channels that separate the class best."""
    for name, row in why.attention.items():
        yield {"group": "Attention", "name": name, "gate": why.gates.get(name), **_overlay(why, row)}
    if why.regions is not None:
        for k in np.argsort(-why.region_weights, kind="stable")[:MOST_REGIONS]:
            name, weight = why.classes.names[k], float(why.region_weights[k])
            yield {"group": "Regions", "name": name, "weight": weight, **_overlay(why, why.regions[k])}
    for number, values in why.channels.items():
        yield {"group": "Channels", "name": f"channel {number}", **_overlay(why, values, shares=False)}


def _overlay(why: Explanation, values: Float[np.ndarray, "_ _"], *, shares: bool = True) -> dict[str, Any]:
    """A feature map as a picture, with its extent in pixels and the ends of its colour scale: clear where it is low.

    ``shares`` are shown as multiples of uniform attention, on a scale from 0 to 2 at least; other values in standard
    deviations.
    """
    smooth = why.on_picture(values * values.size if shares else (values - values.mean()) / (values.std() + 1e-12))
    low, high = np.percentile(smooth, (1, 99))
    low, high = (0.0, max(high, 2.0)) if shares else (low, max(high, low + 1e-6))
    strength = (1 + 254 * ((smooth - low) / (high - low)).clip(0, 1)).astype(np.uint8)
    step = max(1, -(-max(strength.shape) // LARGEST))
    shown, (left, top) = np.ascontiguousarray(strength[::step, ::step]), why.origin
    return {
        "extent": [left, top, left + step * shown.shape[1], top + step * shown.shape[0]],
        "scale": [float(low), float(high)],
        "unit": "× uniform attention" if shares else "standard deviations",
        "picture": data_uri(heat_png(shown, "inferno", (0.0, 0.9))),
    }
