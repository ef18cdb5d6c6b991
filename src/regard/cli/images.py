"""Verbs over images: predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from regard.cli.app import Answer, Out, app, bands_of


@app.command
def predict(
    model: str,
    sources: Annotated[tuple[Path, ...], Parameter(name="SOURCE")],
    /,
    *,
    out: Out,
    confidence: Path | None = None,
    polygons: Path | None = None,
    bands: str | None = None,
    tile: int = 1024,
    overlap: int = 256,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    batch: int = 2,
) -> Answer:
    """Make class maps of photographs and rasters.

    Args:
        model: A bundled model (dubai-s, globe-s) or a .safetensors file.
        sources: Photographs (.jpg, .png, ...) or rasters (.tif, .jp2).
        out: The file to write (.png for photographs, .tif for rasters); with several sources, a folder.
        confidence: A second GeoTIFF: the probability of the chosen class.
        polygons: A vector file of the map's patches: .gpkg, .geojson, .fgb or .parquet.
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        tile: Side of the windows in pixels, for rasters.
        overlap: How many pixels neighbouring windows share and blend.
        scales: Look at the image at several sizes and average: slower, a little better.
        flip: Look at the mirror image too.
        batch: Windows looked at together.
    """
    from regard.engine.many import predict_many

    chosen = bands_of(bands)
    options = {"bands": chosen, "tile": tile, "overlap": overlap, "scales": scales, "flip": flip, "batch": batch}
    facts = predict_many(model, sources, out, confidence=confidence, polygons=polygons, **options)
    lines = [f"{path}" for path in facts["files"]]
    return Answer(
        facts, "\n".join([*lines, f"{facts['mpx_per_s']:.2f} Mpx/s, peak memory {facts['peak_memory_mb']:.0f} MB"])
    )


@app.command
def explain(model: str, image: Path, /, *, at: str, out: Out, bands: str | None = None, tile: int = 1024) -> Answer:
    """Show what a model listened to: its attention, object regions and probabilities.

    Args:
        model: A bundled model or a .safetensors file.
        image: A photograph or a raster.
        at: A pixel X,Y (column, row, from 0); a box X,Y,WIDTH,HEIGHT; or the name of a class.
        out: The picture to write (.png).
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        tile: Side of the window around the place in pixels, for rasters.
    """
    from regard.checkpoints.file import load
    from regard.engine.explain import explain as listen

    numbers = at.split(",")
    place = tuple(int(n) for n in numbers) if all(n.strip().lstrip("-").isdigit() for n in numbers) else at
    found = listen(load(model), image, place, bands=bands_of(bands), tile=tile)
    path = found.save(out)
    shares = dict(zip(found.classes.names, found.probabilities.tolist(), strict=True))
    return Answer({"files": [str(path)], "probabilities": shares}, str(path))
