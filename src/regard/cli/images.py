"""The commands on images: predict and explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from regard.cli.app import Answer, Area, Bands, Model, Out, app
from regard.options import TILE, Compute, Fusion, Input, MapOptions, Outputs, PolygonRules, Sharing, Views, Windows


@dataclass(frozen=True)
class _Outputs(Outputs):
    __doc__ = Outputs.__doc__
    out: Out = field()


@dataclass(frozen=True)
class _Input(Input):
    __doc__ = Input.__doc__
    bands: Bands = Input.bands
    aoi: Annotated[Sequence[float] | str | Path | None, Area] = Input.aoi


@dataclass(frozen=True)
class _Views(Views):
    __doc__ = Views.__doc__
    window: Annotated[int | None, Parameter(parse=False)] = Views.window
    fusion: Annotated[Fusion, Parameter(parse=False)] = Views.fusion


def _under(title: str, place: int) -> Parameter:
    """A parameter, or the fields of one, under a heading of ``--help``."""
    return Parameter(name="*", group=Group(title, sort_key=place))


RUN = Parameter(group=Group("Run", sort_key=3))


@app.command
def predict(
    model: Model,
    /,
    *sources: Annotated[str, Parameter(name="SOURCE", required=True)],
    outputs: Annotated[_Outputs, _under("Outputs", 1)],
    input: Annotated[_Input, _under("Input", 2)] = _Input(),
    overwrite: Annotated[bool, RUN] = MapOptions.overwrite,
    mosaic: Annotated[bool, RUN] = False,
    dry_run: Annotated[bool, RUN] = False,
    verify: Annotated[bool, RUN] = False,
    progress: Annotated[bool, RUN] = True,
    compute: Annotated[Compute, _under("Compute", 4)] = Compute(),
    rules: Annotated[PolygonRules, _under("Polygons (with --polygons)", 5)] = PolygonRules(),
    windows: Annotated[Windows, _under("Windows (of rasters)", 6)] = Windows(),
    views: Annotated[_Views, _under("Test-time augmentation", 7)] = _Views(),
    sharing: Annotated[Sharing, _under("Several sources", 8)] = Sharing(),
) -> Answer:
    """Make class maps of photographs and rasters.

    Run the same command again to resume the interrupted map of a raster. A complete map is kept unless --overwrite.

    Args:
        model: A bundled model (buildings-s, dubai-s, globe-s), a .safetensors file, or an exported .onnx or .xml.
        sources: Photographs (.jpg, .png, ...) or rasters (.tif, .jp2); quoted patterns: 'tiles/*.tif'; or a manifest
            (.jsonl) with one JSON object a line: "source" and, optionally, "target".
        outputs: The files to write.
        input: What the model is given.
        overwrite: Replace existing files.
        mosaic: Map several rasters on one grid as one scene; where they overlap, the last one with data is used.
        dry_run: Print the windows, memory, disk space and time that the map needs, without making it.
        verify: After mapping, predict some boxes again in other windows and print how many of the labels differ.
        progress: Show progress on standard error.
        compute: Device, precision and runtime.
        rules: The polygons that are written.
        windows: The windows of a raster.
        views: The views of the image.
        sharing: How several sources are distributed.
    """
    from regard.memory import ask_for_huge_pages, import_timm_without_compiler

    ask_for_huge_pages()
    import_timm_without_compiler()
    from regard.io.mosaic import mosaic as as_one
    from regard.io.source import Source
    from regard.mapping.batch import predict_many
    from regard.mapping.plan import one_raster, plan, verify_map
    from regard.mapping.sources import listed

    options = MapOptions(outputs, input, windows, views, rules, overwrite)
    chosen = [as_one([*listed(sources)], vrt=input.vrt)] if mosaic else [*map(Source.of, sources)]
    if dry_run or verify:
        raster = one_raster([*listed(chosen)])
    if dry_run:
        facts = plan(model, raster, options, compute)
        return Answer(facts, "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()))
    facts = predict_many(model, chosen, options, compute=compute, sharing=sharing, progress=progress)
    lines = [*facts["files"], f"{facts['mpx_per_s']:.2f} Mpx/s, peak memory {facts['peak_memory_mb']:.0f} MB"]
    if verify and facts["files"]:  # none where another shard has the scene
        made = replace(options, outputs=Outputs(Path(facts["files"][0])), rules=PolygonRules())
        found = facts["verified"] = verify_map(model, raster, made, compute)
        lines.append(
            f"verified: {found['windows']} windows again, {found['changed_percent']:.2f} % of the labels differ"
        )
    return Answer(facts, "\n".join(lines))


@app.command
def explain(model: Model, image: str, /, *, at: str, out: Out, bands: Bands = None, tile: int = TILE) -> Answer:
    """Show what a model attends to: attention weights, object regions and class probabilities.

    Args:
        model: A bundled model or a .safetensors file.
        image: A photograph or a raster.
        at: A pixel X,Y (column, row, from 0); a box X,Y,WIDTH,HEIGHT; or the name of a class.
        out: The picture to write (.png).
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        tile: Side of the window around the pixel or box in pixels, for rasters.
    """
    from regard.checkpoints.file import load
    from regard.explain.explain import explain as explained
    from regard.explain.explain import parse_at

    found = explained(load(model), image, parse_at(at), bands=bands, tile=tile)
    path = found.save(out)
    shares = dict(zip(found.classes.names, found.probabilities.tolist(), strict=True))
    return Answer({"files": [str(path)], "probabilities": shares}, str(path))
