"""Buildings over Nepal, Zanzibar and Kampala as one data set, at several ground resolutions or at one.

    python -m experiments.buildings.data DATA OUT
    python -m experiments.buildings.data DATA OUT --ground 0.1

DATA holds the folders `banepa` and `oam_buildings`. Map tiles that touch are joined again into mosaics, one a
resolution; overlapping squares of 512 pixels are cut from the mosaics, so that a training crop may cross the edge of a
tile and a crop at half its size is full. With `--ground`, everything is first resampled to so many metres a pixel
(sharp from zoom level 21, soft from 19) and the squares have 640 pixels. OUT gets `images/`, `masks/`, `classes.json`
and three lists: `train.txt` (Banepa's training tiles and Zanzibar), `val.txt` (Kampala, a city that training never
sees) and `test.txt` (Banepa's validation tiles).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

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
    side: int = 512  # pixels, of the squares

    def tiles(self) -> Iterator[tuple[int, int, str]]:
        """Column and row within the mosaic, and stem of the tile's files."""
        pattern = BUILDING_TILES[self.source]
        for column, x in enumerate(self.columns):
            for row, y in enumerate(self.rows):
                yield column, row, pattern.format(x=x, y=y, zoom=self.zoom)


def zanzibar(zoom: int, step: int, factor: float = 1.0, side: int = 512) -> list[Mosaic]:
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
            factor,
            side,
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


def at_ground(ground: float) -> list[Mosaic]:
    """Banepa and Zanzibar at ``ground`` metres a pixel."""
    banepa = Mosaic("banepa", "banepa-19", 19, range(386690, 386694), range(220241, 220249), 224, 0.13 / ground, 640)
    levels = ((19, 240), (20, 320), (21, 320))
    return [banepa, *(x for zoom, step in levels for x in zanzibar(zoom, step, metres(zoom) / ground, 640))]


def metres(zoom: int) -> float:
    """A pixel of `oam_buildings` at a zoom level."""
    return 0.3 / 2 ** (zoom - 19)


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
    return resampled(image, mask, mosaic.factor)


def resampled(image: Image.Image, mask: Image.Image, factor: float) -> tuple[Image.Image, Image.Image]:
    size = (round(image.width * factor), round(image.height * factor))
    method = Image.Resampling.BILINEAR if factor > 0.5 else Image.Resampling.BOX
    return image.resize(size, method), mask.resize(size, Image.Resampling.NEAREST)


def starts(length: int, side: int, step: int) -> list[int]:
    """Where squares begin along one side; the last one ends with the side."""
    last = length - side
    return np.unique([*range(0, last, step), last]).tolist()


def cut(data: Path, out: Path, mosaic: Mosaic) -> list[str]:
    """Write the squares of a mosaic; their stems."""
    image, mask = join(data, mosaic)
    stems = []
    for top in starts(image.height, mosaic.side, mosaic.step):
        for left in starts(image.width, mosaic.side, mosaic.step):
            box = (left, top, left + mosaic.side, top + mosaic.side)
            stems.append(f"{mosaic.name}-{left}-{top}")
            image.crop(box).save(out / "images" / f"{stems[-1]}.jpg", quality=95, subsampling=0)
            mask.crop(box).save(out / "masks" / f"{stems[-1]}.png")
    return stems


def copy(data: Path, out: Path, source: str, ground: float | None) -> list[str]:
    """The validation images of a folder, resampled to ``ground`` if it is given; their stems."""
    stems = (data / source / "val.txt").read_text().split()
    for stem in stems:
        image, mask = data / source / "images" / f"{stem}.jpg", data / source / "masks" / f"{stem}.png"
        if ground is None:
            (out / "images" / image.name).write_bytes(image.read_bytes())
            (out / "masks" / mask.name).write_bytes(mask.read_bytes())
            continue
        own = 0.13 if source == "banepa" else metres(int(stem.split("_")[1]))
        pair = resampled(Image.open(image).convert("RGB"), Image.open(mask), own / ground)
        pair[0].save(out / "images" / image.name, quality=95, subsampling=0)
        pair[1].save(out / "masks" / mask.name)
    return stems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ground", type=float, help="metres a pixel, of everything")
    given = parser.parse_args()
    data, out = given.data, given.out
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    squares: dict[str, list[str]] = {}
    for mosaic in at_ground(given.ground) if given.ground else MOSAICS:
        squares[mosaic.name] = cut(data, out, mosaic)
        print(mosaic.name, len(squares[mosaic.name]))
    splits = {
        "val": copy(data, out, "oam_buildings", given.ground),
        "test": copy(data, out, "banepa", given.ground),
        "train": [stem for stems in squares.values() for stem in stems],
    }
    (out / "classes.json").write_bytes((data / "oam_buildings" / "classes.json").read_bytes())
    for split, stems in splits.items():
        (out / f"{split}.txt").write_text("\n".join(stems) + "\n")


if __name__ == "__main__":
    main()
