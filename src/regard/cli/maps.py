"""The commands on maps: view; and polygons, areas, stac, style and preview of a finished one, without the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from regard.cli.app import IMAGES, Answer, Bands, Map, ModelOrMap, Out, app
from regard.errors import ConfigError, MissingExtra
from regard.options import Outputs, PolygonRules, Windows

if TYPE_CHECKING:
    from regard.models import Segmenter
    from regard.web.scene_view import SceneView

RULES = Parameter(name="*", group=Group("Rules, in their order", sort_key=1))


@app.command
def polygons(
    map_: Map,
    /,
    *,
    out: Out,
    confidence: Path | None = None,
    areas: Path | None = None,
    rules: Annotated[PolygonRules, RULES] = PolygonRules(),
    overwrite: bool = False,
) -> Answer:
    """Write the polygons of a finished class map, as predict --polygons does.

    Args:
        map_: A class map of regard (.tif).
        out: The file to write: .gpkg, .geojson, .fgb or .parquet.
        confidence: The confidence raster that was written with the map: gives each polygon its mean.
        areas: A table (.csv) of the area and the number of polygons of each class.
        rules: The polygons that are written.
        overwrite: Replace existing files.
    """
    return _written(Outputs(map_, confidence, polygons=out, areas=areas), rules, overwrite)


@app.command
def areas(
    map_: Map,
    /,
    *,
    out: Out | None = None,
    overwrite: bool = False,
) -> Answer:
    """Print the area of each class of a finished class map, or write it as predict --areas does.

    Args:
        map_: A class map of regard (.tif).
        out: A table (.csv) to write.
        overwrite: Replace existing files.
    """
    from regard.io.areas import as_csv
    from regard.mapping.side_files import areas as measured

    table = measured(map_, out, overwrite=overwrite)
    facts = {"files": [] if out is None else [str(out)], "areas": [area._asdict() for area in table]}
    return Answer(facts, as_csv(table).rstrip() if out is None else str(out))


@app.command
def stac(
    map_: Map,
    /,
    *,
    out: Out,
    confidence: Path | None = None,
    entropy: Path | None = None,
    probabilities: Path | None = None,
    margin: Path | None = None,
    polygons: Path | None = None,
    areas: Path | None = None,
    preview: Path | None = None,
    overwrite: bool = False,
) -> Answer:
    """Write the STAC item of a finished class map, as predict --stac does.

    Args:
        map_: A class map of regard (.tif).
        out: The item to write (.json).
        confidence: Its confidence raster, which becomes an asset as the other files do.
        entropy: Its uncertainty raster.
        probabilities: Its raster of the probabilities of all classes.
        margin: Its raster of the margin.
        polygons: Its polygons.
        areas: Its table of areas.
        preview: Its preview.
        overwrite: Replace existing files.
    """
    from regard.mapping.side_files import item

    outputs = Outputs(map_, confidence, entropy, probabilities, margin, None, polygons, areas, out, preview)
    return _answer([item(outputs, overwrite=overwrite)])


@app.command
def style(
    map_: Map,
    /,
    *,
    out: Out | None = None,
    overwrite: bool = False,
) -> Answer:
    """Write the style for QGIS of a finished class map.

    Args:
        map_: A class map of regard (.tif).
        out: The style to write (.qml); by default next to the map, where QGIS finds it.
        overwrite: Replace existing files.
    """
    from regard.mapping.side_files import style as write

    return _answer([write(map_, out, overwrite=overwrite)])


@app.command
def preview(map_: Map, /, *, out: Out, overwrite: bool = False) -> Answer:
    """Write a small picture of a finished class map in its colours.

    Args:
        map_: A class map of regard (.tif).
        out: The picture to write (.png), of at most 1,024 pixels a side.
        overwrite: Replace existing files.
    """
    return _written(Outputs(map_, preview=out), PolygonRules(), overwrite)


def _written(outputs: Outputs, rules: PolygonRules, overwrite: bool) -> Answer:
    from regard.mapping.side_files import write_sides

    write_sides(outputs, rules, overwrite=overwrite)
    return _answer(outputs.sides)


def _answer(files: list[Path]) -> Answer:
    return Answer({"files": [str(path) for path in files]}, "\n".join(map(str, files)))


@app.command
def view(
    model: ModelOrMap,
    source: Path | None = None,
    map_: Annotated[Path | None, Parameter(name="MAP")] = None,
    /,
    *,
    confidence: Path | None = None,
    labels: Path | None = None,
    notes: Path | None = None,
    label: Path | None = None,
    bands: Bands = None,
    tile: int = Windows.tile,
    overlap: int = Windows.overlap,
    host: str = "127.0.0.1",
    port: int = 0,
    browser: bool = True,
) -> Answer:
    """Show a photograph or a scene of any size in the browser: its class map, confidence and attention maps.

    Args:
        model: A bundled model or a .safetensors file; with --label it can be left out.
        source: A photograph or a raster.
        map_: A finished class map of it; by default the model predicts the part that is shown.
        confidence: The confidence raster that was written with the map.
        labels: Reference labels on the same grid: adds them and the misclassified pixels as layers.
        notes: A GeoPackage to which the page writes notes at places; by default it writes nothing.
        label: The points of regard sample, to be labelled on the page: regard view SCENE --label points.gpkg. Each
            answer is in the file at once; nothing of the map or the model is shown.
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        tile: Side of the windows in pixels, for rasters; 0: as the model was scored (see its card), else 512.
        overlap: Pixels that neighbouring windows share and blend; at most a quarter of windows of the card's size.
        host: Address that the server listens on; the default accepts connections from this machine only.
        port: Port that the server listens on; 0: any free one.
        browser: Open the page in the browser.
    """
    try:
        from regard.web.labelling import Labelling
        from regard.web.raster_layer import Sources
        from regard.web.serve import serve
    except ImportError as error:
        raise MissingExtra(
            f"{error.name} is not installed; the viewer needs it. Do: pip install 'regard[web]'."
        ) from None
    if (label is None or source is not None) and Path(model).suffix.lower() in IMAGES:
        raise ConfigError(f"{model} is an image; the model comes first, then the image.")
    viewer: SceneView
    if label is not None:
        given = {"MAP": map_, "--confidence": confidence, "--labels": labels, "--notes": notes}
        _blind([name for name, value in given.items() if value is not None])
        viewer = Labelling(Sources(source or Path(model), bands=bands), label, _loaded(model) if source else None)
    elif source is None:
        raise ConfigError(f"got the model {model} and no scene; need both: regard view {model} SCENE.")
    else:
        from regard.web.viewer import Viewer

        sources = Sources(source, map_, confidence, labels, bands)
        viewer = Viewer(_loaded(model), sources, Windows(tile, overlap), notes=notes)
        viewer.check()
    url = serve(viewer, host=host, port=port, browser=browser)
    return Answer({"url": url}, "closed")


def _loaded(model: str) -> Segmenter:
    from regard.checkpoints.file import load
    from regard.memory import keep_freed_memory

    keep_freed_memory(shared_arena=True)
    return load(model)


def _blind(given: list[str]) -> None:
    if given:
        raise ConfigError(f"points are labelled without a look at any map; got {given[0]}. Omit it, or --label.")
