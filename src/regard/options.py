"""The options of inference and of a map, each declared once; nothing heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from regard.errors import ConfigError
from regard.execution import Compute as Compute
from regard.execution import Sharing as Sharing

ALIGNMENT = 32  # pixels: windows and overlaps are multiples of it, and so of every network's stride
TILE, GSD = 1024, (1e-4, 1e6)  # the pixels of windows that nothing else decides; least and most metres per pixel
Extent = Literal["window", "scene"]
Fusion = Literal["probabilities", "logits", "exp_logits"]


@dataclass(frozen=True)
class Views:
    """The views of an image that the network scores, and how their scores are fused.

    Args:
        scales: The image is resized by each of these factors.
        flip: Add the horizontal mirror image.
        d4: Use the image and its mirror image, each rotated by 0, 90, 180 and 270 degrees; for aerial images.
        window: Sliding windows of this many pixels, two thirds apart; 0: the whole image. By default, what the model
            was scored in as its card says, else the whole image.
        fusion: How the scores of all views are fused:

            - ``probabilities``: the log of the mean probability; windows average logits. Source: mmsegmentation.
            - ``logits``: by scale and window exp(mean of the logits of image and mirror image), summed over scales;
              the log of that. Source: HRNet-OCR, ``multi_scale_inference``.
            - ``exp_logits``: the same with exp(sum of the two). Source: DANet, ``MultiEvalModule``.

    Raises:
        ConfigError: an impossible scale, window or fusion.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    d4: bool = False
    window: int | None = None
    fusion: Fusion = "probabilities"

    def __post_init__(self) -> None:
        if not self.scales or not all(1e-3 <= scale <= 1e3 for scale in self.scales) or (self.window or 2) < 2:
            need = "scales above 0 and a window of 2 pixels or more; scales from 0.001 to 1000"
            raise ConfigError(f"got scales {list(self.scales)}, window {self.window}; need {need}.")
        if self.fusion not in get_args(Fusion):
            raise ConfigError(f"got fusion {self.fusion!r}; need {', '.join(get_args(Fusion))}. Choose one of these.")
        if self.d4 and self.fusion != "probabilities":
            raise ConfigError(f"d4 views are fused as probabilities; got fusion {self.fusion!r}. Omit one of the two.")

    @property
    def single(self) -> bool:
        """Whether there is one view alone, at scale 1, so that the scores are the network's own logits."""
        return self.scales == (1.0,) and not (self.flip or self.d4)


@dataclass(frozen=True)
class Input:
    """What the model is given of a source.

    Args:
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        aoi: Map this part only: WEST,SOUTH,EAST,NORTH in the raster's CRS, or polygons: FILE or FILE|layername=LAYER.
        gsd: Resample to this many metres per pixel for the model; 0: as its training images. The map keeps its grid.
        nodata: A value that stands for no data where all bands have it (below 0 or above 255: where any has it), such
            as 255 for the white holes of a mosaic.
        vrt: Allow a VRT (a list of other files) as source; it may read any file of this machine.

    Raises:
        ConfigError: a negative resolution.
    """

    bands: tuple[int | str, ...] | None = None
    aoi: Sequence[float] | str | Path | None = None
    gsd: float | None = None
    nodata: float | None = None
    vrt: bool = False

    def __post_init__(self) -> None:
        if self.gsd and not GSD[0] <= self.gsd <= GSD[1]:
            raise ConfigError(
                f"gsd {self.gsd:g} must be above 0 ({GSD[0]:g} to {GSD[1]:g} m per pixel), or 0: as trained."
            )


@dataclass(frozen=True)
class Windows:
    """The windows in which a raster is read and scored. A photograph is not tiled.

    Args:
        tile: Side of the windows in pixels; 0: as the model was scored (see its card), else 1024.
        overlap: Pixels that neighbouring windows share and blend; at most a quarter of windows of the card's size.
        batch: Windows in a forward pass on a GPU; a CPU takes one at a time.
        max_memory: Megabytes of memory for a raster's map, without the model; a map that needs more is refused.
        context: What attention and object regions look at: the window, or the whole scene, which is read again for it.

    Raises:
        ConfigError: a length that is no multiple of 32, an overlap above half a tile, no window, or another context.
    """

    tile: int = 0
    overlap: int = 256
    batch: int = 2
    max_memory: float = 2000.0
    context: Extent = "window"

    def __post_init__(self) -> None:
        tile = self.tile or TILE
        if tile < ALIGNMENT or tile % ALIGNMENT or self.overlap % ALIGNMENT or self.overlap < 0:
            raise ConfigError(
                f"tile {tile} and overlap {self.overlap} must be multiples of {ALIGNMENT}, not below 0: 1024 and 256."
            )
        if self.overlap > tile // 2:
            raise ConfigError(f"overlap {self.overlap} is more than half of tile {tile}. Take at most {tile // 2}.")
        if self.batch < 1 or not self.max_memory > 0:
            raise ConfigError(f"got batch {self.batch}, max_memory {self.max_memory:g}; need 1 or above, and above 0.")
        if self.context not in get_args(Extent):
            raise ConfigError(f"got context {self.context!r}; need {' or '.join(get_args(Extent))}.")

    @property
    def halo(self) -> int:
        """Pixels at a window's border that weigh next to nothing: in a scene's context they tell windows apart."""
        return self.overlap // 4 if self.context == "scene" else 0


@dataclass(frozen=True)
class Outputs:
    """The files to write. A style for QGIS (.qml) always stands with the map of a raster.

    Args:
        out: The map: .png for photographs, .tif for rasters; with several sources, a folder.
        confidence: A GeoTIFF of the probability of the predicted class.
        entropy: A GeoTIFF of the uncertainty over all classes (entropy), from 0 to 1.
        probabilities: A GeoTIFF of the probability of every class, one band a class.
        margin: A GeoTIFF of how far the most probable class is ahead of the second.
        certain: The share of errors that is allowed, such as 0.05: MAP_certain.tif says where the card promises it.
        polygons: A vector file of the map's polygons: .gpkg, .geojson, .fgb or .parquet.
        areas: A table (.csv) of the area of each class.
        stac: A STAC item (.json): the map's footprint, files and model.
        preview: A small picture (.png) of the map in its colours.
    """

    out: Path | None = None
    confidence: Path | None = None
    entropy: Path | None = None
    probabilities: Path | None = None
    margin: Path | None = None
    certain: float | None = None
    polygons: Path | None = None
    areas: Path | None = None
    stac: Path | None = None
    preview: Path | None = None

    @classmethod
    def of(cls, *names: Any) -> Outputs:
        """The files by their names, in the order of the fields."""
        given: Any = (Path(name) if isinstance(name, str) else name for name in names)
        return cls(*given)

    @property
    def files(self) -> list[Path]:
        """All files by name, the map first."""
        return [*self.rasters.values(), *self.sides]

    @property
    def rasters(self) -> dict[str, Path]:
        """The rasters by the name of their layer, the map's ``labels`` first."""
        measures = {name: getattr(self, name) for name in ("confidence", "entropy", "probabilities", "margin")}
        if self.certain is not None and self.out is not None:
            measures["certain"] = self.out.with_name(f"{self.out.stem}_certain.tif")
        return {name: path for name, path in {"labels": self.out, **measures}.items() if path is not None}

    @property
    def sides(self) -> list[Path]:
        """The files that are made from the finished rasters."""
        return [path for path in (self.polygons, self.areas, self.stac, self.preview) if path is not None]

    @property
    def extra(self) -> list[str]:
        """The names of the files besides the map."""
        return [field.name for field in fields(self)[1:] if getattr(self, field.name) is not None]


@dataclass(frozen=True)
class PolygonRules:
    """The polygons that are written; the map itself stays as it is.

    Args:
        sieve: Merge polygons smaller than this many pixels into their largest neighbour.
        simplify: Simplify borders with a tolerance of this many metres; neighbours keep a common border.
        only: Write the polygons of these classes alone.
        minimum_hole: Close holes smaller than this many square metres that hold no other polygon; needs only.
        regularise: Give the polygons of these classes right angles, and write them alone.
        minimum_area: After that, drop polygons smaller than this many square metres.

    Raises:
        ConfigError: a negative value; or polygons that would overlap those of other classes.
    """

    sieve: int = 0
    simplify: float = 0.0
    only: tuple[str, ...] = ()
    minimum_hole: float = 0.0
    regularise: tuple[str, ...] = ()
    minimum_area: float = 0.0

    def __post_init__(self) -> None:
        for name in ("sieve", "simplify", "minimum_hole", "minimum_area"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} {value} must be 0 (off) or above.")
        if self.minimum_hole and not self.written:
            raise ConfigError(
                "a hole holds the polygons of other classes, which a closed one would overlap. Name the classes to "
                "write with only, or use sieve."
            )
        others = [name for name in self.only if self.regularise and name not in self.regularise]
        if others:
            raise ConfigError(
                f"polygons with right angles leave their neighbours' borders, so {others[0]} would overlap "
                f"{self.regularise[0]}. Write {others[0]} to another file."
            )

    @property
    def written(self) -> tuple[str, ...]:
        """The classes whose polygons are written; all of them where it is empty."""
        return self.only or self.regularise


@dataclass(frozen=True)
class MapOptions:
    """All options of a map.

    ``overwrite``: replace files that exist; else a complete map of the same job is kept, and any other file refused.

    Raises:
        ConfigError: rules for polygons without a file of polygons.
    """

    outputs: Outputs = Outputs()
    input: Input = Input()
    windows: Windows = Windows()
    views: Views = Views()
    rules: PolygonRules = PolygonRules()
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.outputs.polygons is None and self.rules != PolygonRules():
            names = ", ".join(rule.name for rule in fields(PolygonRules))
            raise ConfigError(f"{names} choose among polygons. Name their file: polygons='map.gpkg'.")

    def to(self, out: Path | None) -> MapOptions:
        """Of a map of another name."""
        return replace(self, outputs=replace(self.outputs, out=out))
