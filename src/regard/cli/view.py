"""The command view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from regard.cli.app import Answer, Bands, Model, app
from regard.errors import MissingExtra


@app.command
def view(
    model: Model,
    source: Path,
    map_: Annotated[Path | None, Parameter(name="MAP")] = None,
    /,
    *,
    confidence: Path | None = None,
    labels: Path | None = None,
    bands: Bands = None,
    tile: int = 512,
    overlap: int = 128,
    host: str = "127.0.0.1",
    port: int = 0,
    browser: bool = True,
) -> Answer:
    """Show a photograph or a scene of any size in the browser: its class map, confidence and attention maps.

    Args:
        model: A bundled model or a .safetensors file.
        source: A photograph or a raster.
        map_: A finished class map of it; by default the model predicts the part that is shown.
        confidence: The confidence raster that was written with the map.
        labels: Reference labels on the same grid: adds them and the misclassified pixels as layers.
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        tile: Side of the windows in pixels, for rasters.
        overlap: Pixels that neighbouring windows share and blend.
        host: Address that the server listens on; the default accepts connections from this machine only.
        port: Port that the server listens on; 0: any free one.
        browser: Open the page in the browser.
    """
    try:
        from regard.web.serve import serve
        from regard.web.viewer import Sources, Viewer
    except ImportError as error:
        raise MissingExtra(
            f"{error.name} is not installed; the viewer needs it. Do: pip install 'regard[web]'."
        ) from None
    from regard.checkpoints.file import load
    from regard.memory import keep_freed_memory
    from regard.options import Windows

    sources = Sources(source, map_, confidence, labels, bands)
    keep_freed_memory(shared_arena=True)
    viewer = Viewer(load(model), sources, Windows(tile, overlap))
    viewer.check()
    url = serve(viewer, host=host, port=port, browser=browser)
    return Answer({"url": url}, "closed")
