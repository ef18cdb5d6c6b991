"""The files that a prediction writes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from regard.data.output import check_writable
from regard.data.vector_file import check_vector_target
from regard.errors import OutputError


@dataclass(frozen=True)
class Outputs:
    """The files that a prediction writes; all but ``labels`` only where they are named."""

    labels: Path
    confidence: Path | None = None
    entropy: Path | None = None
    polygons: Path | None = None
    areas: Path | None = None

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
    def files(self) -> list[Path]:
        """Every file that is asked for."""
        return [path for path in vars(self).values() if path is not None]

    def check(self, source: Path) -> None:
        """Find out before any work is done whether all can be written.

        Raises:
            OutputError: a folder cannot be written to, a name has the wrong ending, is the input's or stands twice.
            ConfigError, MissingExtra: the polygons' ending is no vector format, or needs pyarrow.
        """
        for path in self.rasters.values():
            if path.suffix.lower() not in (".tif", ".tiff"):
                raise OutputError(f"the map of a raster is a GeoTIFF; got {path.name}. Name it {path.stem}.tif.")
        places = [path.resolve() for path in self.files]
        if source.resolve() in places:
            raise OutputError(f"{source} is the input itself. Choose another name for the map.")
        if len(set(places)) < len(places):
            raise OutputError("two outputs have the same name. Choose another name for one of them.")
        for path in self.files:
            check_writable(path)
        if self.polygons is not None:
            check_vector_target(self.polygons)


SIDE_FILES = tuple(field.name for field in fields(Outputs) if field.name != "labels")
