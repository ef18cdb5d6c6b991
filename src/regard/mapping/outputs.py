"""The files that a prediction writes, and which patches of the map stand among its polygons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from regard.errors import ConfigError, OutputError
from regard.files import check_writable
from regard.io.areas import ground_resolution
from regard.io.raster import Raster
from regard.io.vectors import check_vector_target
from regard.mapping.journal import parts_of


@dataclass(frozen=True)
class Outputs:
    """The files that a prediction writes; all but ``labels`` only where they are named."""

    labels: Path
    confidence: Path | None = None
    entropy: Path | None = None
    polygons: Path | None = None
    areas: Path | None = None
    stac: Path | None = None

    @classmethod
    def of(cls, labels: str | Path, **others: str | Path | None) -> Outputs:
        """Paths from names."""
        return cls(Path(labels), **{name: None if path is None else Path(path) for name, path in others.items()})

    @property
    def rasters(self) -> dict[str, Path]:
        """The rasters by name, labels first."""
        named = {"labels": self.labels, "confidence": self.confidence, "entropy": self.entropy}
        return {name: path for name, path in named.items() if path is not None}

    @property
    def layers(self) -> dict[str, Path]:
        """What is computed: the rasters, and the confidence that polygons need, hidden where none is asked for."""
        if self.polygons is None or self.confidence is not None:
            return self.rasters
        return {**self.rasters, "confidence": parts_of(self.labels) / "confidence.tif"}

    @property
    def files(self) -> list[Path]:
        """Every file that is asked for."""
        return [path for path in vars(self).values() if path is not None]

    def check(self, sources: Sequence[Path]) -> None:
        """Find out before any work is done whether all can be written.

        Raises:
            OutputError: a folder cannot be written to, a name has the wrong ending, is the input's or stands twice.
            ConfigError, MissingExtra: the polygons' ending is no vector format, or needs pyarrow.
        """
        for path in self.rasters.values():
            if path.suffix.lower() not in (".tif", ".tiff"):
                raise OutputError(f"the map of a raster is a GeoTIFF; got {path.name}. Name it {path.stem}.tif.")
        if self.stac is not None and self.stac.suffix.lower() != ".json":
            raise OutputError(f"a STAC item is a .json; got {self.stac.name}. Name it {self.stac.stem}.json.")
        check_targets(self.files, sources)
        if self.polygons is not None:
            check_vector_target(self.polygons)


def check_targets(files: Sequence[Path], sources: Sequence[Path]) -> None:
    """Find out before any work is done whether ``files`` can be made of ``sources``.

    Raises:
        OutputError: one is a source or stands twice, or its folder cannot be written to.
    """
    places = [path.resolve() for path in files]
    taken = [source for source in sources if source.resolve() in places]
    if taken:
        raise OutputError(f"{taken[0]} is the input itself. Choose another name for the map.")
    if len(set(places)) < len(places):
        raise OutputError("two outputs have the same name. Choose another name for one of them.")
    for path in files:
        check_writable(path)


SIDE_FILES = tuple(field.name for field in fields(Outputs) if field.name != "labels")


@dataclass(frozen=True)
class Patches:
    """Which patches become polygons, and how: those below ``sieve`` pixels go to their largest neighbour, borders are
    simplified by ``simplify`` metres on both sides alike, and what is then below ``minimum_area`` m² is left out.
    """

    sieve: int = 0
    minimum_area: float = 0.0
    simplify: float = 0.0

    def pixels_to_simplify(self, raster: Raster) -> float:
        """``simplify`` in pixels of the raster.

        Raises:
            ConfigError: a negative value, or metres of a raster without a CRS.
        """
        for name, value in asdict(self).items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} {value} must be 0 (off) or above.")
        side = ground_resolution(raster)
        if side is None and (self.simplify or self.minimum_area):
            name = "simplify" if self.simplify else "minimum area"
            raise ConfigError(
                f"{raster.source.name} has no CRS, so {name} in metres means nothing. Use sieve, in pixels."
            )
        return self.simplify / side if side else 0.0
