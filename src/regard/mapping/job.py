"""What decides a map: raster, model, how it looks and what is written; and how the files say so."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from regard._version import __version__
from regard.errors import UnreadableImage
from regard.io.raster import Raster, open_raster
from regard.mapping.blend import Tiling
from regard.mapping.journal import key_of
from regard.mapping.outputs import Outputs, Patches
from regard.models import Segmenter
from regard.tensor_files import digest


@dataclass(frozen=True)
class MapJob:
    """One raster to be mapped: with which model, how, and into which files.

    Raises:
        ConfigError: patches that cannot be told from others in this raster.
    """

    model: Segmenter
    raster: Raster
    tiling: Tiling
    outputs: Outputs
    patches: Patches

    def __post_init__(self) -> None:
        self.patches.pixels_to_simplify(self.raster)

    @cached_property
    def tags(self) -> dict[str, str]:
        """What the map says of its model."""
        return tags_of(self.model)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides the map's values, but the pixels of the raster; as JSON."""
        tiling, area = self.tiling, self.raster.area
        return {
            "weights": self.tags["regard_weights_sha256"],
            "card": self.model.card.model_dump(mode="json"),
            "size": self.raster.size,
            "bands": self.raster.bands,
            "tiling": [tiling.tile, tiling.overlap, tiling.views],
            "area": None if area is None else area.wkt,
            "elsewhere": [list(one) for one in self.raster.stamps if not isinstance(one[2], int)],
            "version": __version__,
        }

    @property
    def _times(self) -> list[int]:
        return [when for _, _, when in self.raster.stamps if isinstance(when, int)]

    @property
    def when(self) -> float | None:
        """When the source was last changed, in seconds since 1970; None where that is not known."""
        return max(self._times) / 1e9 if self._times else None

    def identity(self) -> dict[str, Any]:
        """All that decides the map's values: the settings, and the file as it is now."""
        return {**self.settings, "source": self.raster.stamps, "layers": list(self.outputs.layers)}

    @cached_property
    def marks(self) -> dict[str, str]:
        """What tells the rasters, and the polygons made of them, from those of other settings: in the rasters' tags."""
        patches = {} if self.outputs.polygons is None else {"regard_polygons": json.dumps(asdict(self.patches))}
        return {"regard_job": key_of(self.settings), **patches}

    def is_done(self) -> bool:
        """Whether every file is there already, made with these settings: rasters later than the source was changed, the
        others later than the map.
        """
        files, rasters = self.outputs.files, list(self.outputs.rasters.values())
        if not all(path.is_file() for path in files):
            return False
        source = max(self._times, default=0)
        labels = self.outputs.labels.stat().st_mtime_ns
        if any(path.stat().st_mtime_ns < (source if path in rasters else labels) for path in files):
            return False
        return all(self.marks.items() <= tags_in(path).items() for path in rasters)


def tags_in(path: Path) -> dict[str, str]:
    """What a GeoTIFF or a PNG says of itself; nothing where it cannot be read."""
    with suppress(UnreadableImage), open_raster(path) as raster:
        return raster.tags()
    return {}


def tags_of(model: Segmenter) -> dict[str, str]:
    """What a map says of the model that made it."""
    card = model.card
    return {
        "TIFFTAG_SOFTWARE": f"regard {__version__}",
        "regard_model": card.architecture,
        "regard_card": card.model_dump_json(),
        "regard_weights_sha256": digest(model.state_dict()),
    }
