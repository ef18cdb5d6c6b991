"""Verbs over images: predict and explain."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from regard.cli.app import Answer, Model, Out, app, area_of, bands_of
from regard.inference.compute import DEFAULT_COMPUTE, Compute


@dataclass(frozen=True)
class SideFiles:
    """What to write beside the map.

    Args:
        confidence: A second GeoTIFF: the probability of the chosen class.
        entropy: A GeoTIFF of the indecision over all classes, from 0 to 1.
        polygons: A vector file of the map's patches: .gpkg, .geojson, .fgb or .parquet.
        areas: A table (.csv) of the ground that each class covers.
        stac: An item (.json) for a SpatioTemporal Asset Catalog: the map's place, files and model.
    """

    confidence: Path | None = None
    entropy: Path | None = None
    polygons: Path | None = None
    areas: Path | None = None
    stac: Path | None = None

    def options(self) -> dict[str, Any]:
        """As keyword arguments."""
        return asdict(self)


@dataclass(frozen=True)
class Patches:
    """Which patches of the map become polygons, and how; the map itself stays as it is.

    Args:
        sieve: Of --polygons: give patches below that many pixels to their largest neighbour.
        simplify: Of --polygons: simplify borders by that many metres, on both sides alike.
        minimum_area: Of --polygons: leave out what is then below that many square metres.
    """

    sieve: int = 0
    simplify: float = 0.0
    minimum_area: float = 0.0


@dataclass(frozen=True)
class View:
    """How to look at the image.

    Args:
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        aoi: Map this part only: WEST,SOUTH,EAST,NORTH in the raster's CRS, or a vector file with polygons.
        vrt: Allow a VRT (a list of other files) as source; it may read any file of this machine.
        gsd: Show the model the raster at that many metres per pixel; 0: at those that it was trained with.
        tile: Side of the windows in pixels, for rasters.
        overlap: How many pixels neighbouring windows share and blend.
        scales: Look at the image at several sizes and average: slower, a little better.
        flip: Look at the mirror image too.
        d4: Look at the image and its mirror image in all four quarter turns, for views from above: eight times as slow.
        batch: Windows looked at together, on a GPU.
        max_memory: Megabytes that a raster's map may take beside the model; what would take more is refused.
    """

    bands: str | None = None
    aoi: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    gsd: float | None = None
    vrt: bool = False
    tile: int = 1024
    overlap: int = 256
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    d4: bool = False
    batch: int = 2
    max_memory: float = 2000.0

    def options(self) -> dict[str, Any]:
        """As keyword arguments."""
        return {**asdict(self), "bands": bands_of(self.bands), "aoi": area_of(self.aoi)}


NO_SIDES, ALL_PATCHES, DEFAULT_VIEW = SideFiles(), Patches(), View()


@app.command
def predict(
    model: Model,
    sources: Annotated[tuple[str, ...], Parameter(name="SOURCE", json_list=False)],
    /,
    *,
    out: Out,
    sides: Annotated[SideFiles, Parameter(name="*")] = NO_SIDES,
    patches: Annotated[Patches, Parameter(name="*")] = ALL_PATCHES,
    view: Annotated[View, Parameter(name="*")] = DEFAULT_VIEW,
    compute: Annotated[Compute, Parameter(name="*")] = DEFAULT_COMPUTE,
    overwrite: bool = False,
    mosaic: bool = False,
    verify: bool = False,
    dry_run: bool = False,
    workers: int = 1,
    shard: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    cluster: str | None = None,
) -> Answer:
    """Make class maps of photographs and rasters.

    A raster's map that was interrupted goes on where it stopped when the same command is run again; one that is done is
    left alone.

    Args:
        model: A bundled model (dubai-s, globe-s), a .safetensors file, or an exported .onnx or .xml.
        sources: Photographs (.jpg, .png, ...) or rasters (.tif, .jp2), patterns of them in quotes: 'tiles/*.tif', or a
            manifest: a .jsonl with an object with "source" and, if wished, "target" on each line.
        out: The file to write (.png for photographs, .tif for rasters); with several sources, a folder.
        sides: What to write beside the map.
        patches: Which patches of the map become polygons.
        view: How to look at the image.
        compute: Device, precision and runtime.
        overwrite: Replace a map that is there and was made otherwise.
        mosaic: Take several rasters on one grid as one scene; where they overlap, the last one that has data is seen.
        verify: Afterwards, compute some places again in other windows, and say how much of the map would change.
        dry_run: Say what would be done, with memory, disk and time, and do nothing.
        workers: Processes that share several sources.
        shard: i/n: of several sources, take every n-th from the i-th on (array jobs).
        cluster: Address of a Dask scheduler that shares out several sources; local: one on this machine.
    """
    from regard.io.mosaic import mosaic as as_one
    from regard.io.source import Source
    from regard.mapping.batch import predict_many
    from regard.mapping.manifest import listed
    from regard.mapping.outputs import Outputs
    from regard.mapping.plan import one_raster, plan, verify_map

    if mosaic:
        chosen = [as_one([*listed(sources)], vrt=view.vrt)]
    else:
        chosen = [*map(Source.of, sources)]
    if dry_run or verify:
        source = one_raster([*listed(chosen)])
    if dry_run:
        facts = plan(model, source, Outputs.of(out, **sides.options()), compute=compute, **view.options())
        return Answer(facts, "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()))
    options = {**sides.options(), **asdict(patches), **view.options(), "overwrite": overwrite, "compute": compute}
    facts = predict_many(model, chosen, out, workers=workers, shard=shard, cluster=cluster, **options)
    lines = [*facts["files"], f"{facts['mpx_per_s']:.2f} Mpx/s, peak memory {facts['peak_memory_mb']:.0f} MB"]
    if verify and facts["files"]:  # none where another shard has the scene
        found = facts["verified"] = verify_map(
            model, source, Path(facts["files"][0]), compute=compute, **view.options()
        )
        lines.append(
            f"verified: {found['windows']} windows again, {found['changed_percent']:.2f} % of the labels differ"
        )
    return Answer(facts, "\n".join(lines))


@app.command
def explain(model: Model, image: str, /, *, at: str, out: Out, bands: str | None = None, tile: int = 1024) -> Answer:
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
    from regard.explain.explain import explain as listen
    from regard.explain.explain import parse_at

    found = listen(load(model), image, parse_at(at), bands=bands_of(bands), tile=tile)
    path = found.save(out)
    shares = dict(zip(found.classes.names, found.probabilities.tolist(), strict=True))
    return Answer({"files": [str(path)], "probabilities": shares}, str(path))
