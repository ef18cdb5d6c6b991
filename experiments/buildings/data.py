"""Buildings over Nepal, Zanzibar and Kampala as one data set of several ground resolutions.

    python -m experiments.buildings.data DATA OUT

DATA holds the folders `banepa` and `oam_buildings`. Map tiles that touch are joined again into mosaics, one a
resolution; overlapping squares of 512 pixels are cut from the mosaics, so that a training crop may cross the edge of a
tile and a crop at half its size is full. OUT gets `images/`, `masks/`, `classes.json` and three lists: `train.txt`
(Banepa's training tiles and Zanzibar), `val.txt` (Kampala, a city that training never sees) and `test.txt` (Banepa's
validation tiles).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 512  # pixels, of the squares
BUILDING_TILES = {"banepa": "OAM-{x}-{y}-{zoom}", "oam_buildings": "zanzibar_{zoom}_{x}_{y}"}


@dataclass(frozen=True)
class Mosaic:
    """Touching tiles of one zoom level; ``step`` between the squares decides how often a crop comes from here."""

    source: str  # folder of DATA
    name: str  # of the squares
    zoom: int
    columns: range
    rows: range
    step: int  # pixels
    factor: float = 1.0  # the mosaic's size is multiplied by this before it is cut

    def tiles(self) -> Iterator[tuple[int, int, str]]:
        """Column and row within the mosaic, and stem of the tile's files."""
        pattern = BUILDING_TILES[self.source]
        for column, x in enumerate(self.columns):
            for row, y in enumerate(self.rows):
                yield column, row, pattern.format(x=x, y=y, zoom=self.zoom)


def zanzibar(zoom: int, step: int) -> list[Mosaic]:
    """Two blocks of tiles, 8 x 4 and 7 x 2 at zoom 19."""
    times = 2 ** (zoom - 19)
    blocks = (("north", 319292, 8, 270960, 4), ("south", 319293, 7, 270995, 2))
    return [
        Mosaic(
            "oam_buildings",
            f"zanzibar-{block}-{zoom}",
            zoom,
            range(left * times, (left + wide) * times),
            range(top * times, (top + tall) * times),
            step,
        )
        for block, left, wide, top, tall in blocks
    ]


MOSAICS = [
    Mosaic("banepa", "banepa-013", 19, range(386690, 386694), range(220241, 220249), step=160),  # 0.13 m
    Mosaic("banepa", "banepa-026", 19, range(386690, 386694), range(220241, 220249), step=96, factor=0.5),  # 0.26 m
    *zanzibar(19, step=80),  # 0.30 m
    *zanzibar(20, step=256),  # 0.15 m
    *zanzibar(21, step=512),  # 0.075 m
]


def join(data: Path, mosaic: Mosaic) -> tuple[Image.Image, Image.Image]:
    """The mosaic's image and its mask."""
    image = mask = None
    for column, row, stem in mosaic.tiles():
        tile = Image.open(data / mosaic.source / "images" / f"{stem}.jpg").convert("RGB")
        labels = Image.open(data / mosaic.source / "masks" / f"{stem}.png")
        if image is None or mask is None:
            size = (tile.width * len(mosaic.columns), tile.height * len(mosaic.rows))
            image, mask = Image.new("RGB", size), Image.new("L", size, 255)
        corner = (column * tile.width, row * tile.height)
        image.paste(tile, corner)
        mask.paste(labels, corner)
    assert image is not None and mask is not None
    size = (round(image.width * mosaic.factor), round(image.height * mosaic.factor))
    return image.resize(size, Image.Resampling.BOX), mask.resize(size, Image.Resampling.NEAREST)


def starts(length: int, step: int) -> list[int]:
    """Where squares begin along one side; the last one ends with the side."""
    last = length - SIDE
    return np.unique([*range(0, last, step), last]).tolist()


def main(data: Path, out: Path) -> None:
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    stems = []
    for mosaic in MOSAICS:
        image, mask = join(data, mosaic)
        for top in starts(image.height, mosaic.step):
            for left in starts(image.width, mosaic.step):
                box = (left, top, left + SIDE, top + SIDE)
                stems.append(f"{mosaic.name}-{left}-{top}")
                image.crop(box).save(out / "images" / f"{stems[-1]}.jpg", quality=95, subsampling=0)
                mask.crop(box).save(out / "masks" / f"{stems[-1]}.png")
    (out / "train.txt").write_text("\n".join(stems) + "\n")
    for source, split in (("oam_buildings", "val"), ("banepa", "test")):
        listed = (data / source / "val.txt").read_text().split()
        for stem in listed:
            (out / "images" / f"{stem}.jpg").write_bytes((data / source / "images" / f"{stem}.jpg").read_bytes())
            (out / "masks" / f"{stem}.png").write_bytes((data / source / "masks" / f"{stem}.png").read_bytes())
        (out / f"{split}.txt").write_text("\n".join(listed) + "\n")
    (out / "classes.json").write_bytes((data / "oam_buildings" / "classes.json").read_bytes())
    for family in ("banepa-013", "banepa-026", "zanzibar-.*-19", "zanzibar-.*-20", "zanzibar-.*-21"):
        start, *_, end = family.split("-")
        print(family, sum(stem.startswith(start) and f"-{end}-" in stem for stem in stems))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
