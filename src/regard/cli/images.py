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
    facts = predict_many(model, sources, out, confidence=confidence, **options)
    lines = [f"{path}" for path in facts["files"]]
    return Answer(
        facts, "\n".join([*lines, f"{facts['mpx_per_s']:.2f} Mpx/s, peak memory {facts['peak_memory_mb']:.0f} MB"])
    )
