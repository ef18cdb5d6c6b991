"""Plant faults in a copy of the Dubai set, one file each, and see whether ``regard check`` names every one.

python -m experiments.doctor.plant ../shared/data/dubai COPY > experiments/doctor/found.md
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageOps
from rasterio.transform import Affine

from regard.checkpoints.file import load
from regard.doctor.audit import Audit, audit
from regard.doctor.suspects import with_suspects

HEAD = """# Planted faults that the data set check finds

`python -m experiments.doctor.plant DUBAI COPY > experiments/doctor/found.md` plants faults in a copy of the Dubai set,
one file each, and writes this page: the message of `regard check` about each.

| planted | found |
| --- | --- |"""


class Copy:
    """A copy of the set, and what was planted: fault, kind of the expected finding, file that it must name."""

    def __init__(self, source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        self.root = target
        self.planted: list[tuple[str, str, str]] = []

    def image(self, stem: str) -> Path:
        return next((self.root / "images").glob(f"{stem}.*"))

    def mask(self, stem: str) -> Path:
        return self.root / "masks" / f"{stem}.png"

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Drop the other images, their masks and their names in the lists."""
        for path in [*(self.root / "images").iterdir(), *(self.root / "masks").iterdir()]:
            if not wanted(path.stem):
                path.unlink()
        for path in (self.root / "train.txt", self.root / "val.txt"):
            path.write_text("\n".join(filter(wanted, path.read_text().split())))

    def labels(self, stem: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        Image.fromarray(np.ascontiguousarray(change(np.array(Image.open(self.mask(stem)))))).save(self.mask(stem))

    def list(self, split: str, stem: str) -> None:
        with (self.root / f"{split}.txt").open("a") as file:
            file.write(f"\n{stem}\n")

    def expect(self, fault: str, kind: str, name: str) -> None:
        self.planted.append((fault, kind, name))


def plant(copy: Copy) -> None:
    plant_in_masks(copy)
    plant_in_images(copy)
    plant_in_lists(copy)
    plant_leaks(copy)
    plant_on_the_ground(copy)


def plant_in_masks(copy: Copy) -> None:
    copy.labels("t3_p1", lambda x: np.where(x == 0, 255, 0).astype(np.uint8))
    copy.expect("a 0/255 mask where 255 means no class", "labels", "t3_p1.png")
    copy.labels("t3_p3", lambda x: np.where(x == 255, x, x + 1).astype(np.uint8))
    copy.expect("labels 1..5 in place of 0..4", "labels", "t3_p3.jpg")
    colours = np.random.default_rng(0).integers(0, 256, size=(256, 3), dtype=np.uint8)
    copy.labels("t3_p5", lambda x: colours[x])
    copy.expect("a colour mask in colours of no class", "labels", "t3_p5.jpg")
    copy.labels("t3_p6", lambda x: x[::2, ::2])
    copy.expect("a mask of half the size", "size", "t3_p6.jpg")
    copy.labels("t3_p7", lambda x: x.T)
    copy.expect("a mask turned on its side", "size", "t3_p7.jpg")
    copy.labels("t4_p3", lambda x: np.full_like(x, 255))
    copy.expect("a mask without labels", "no label", "t4_p3.jpg")
    copy.labels(
        "t4_p5",
        lambda x: np.array(
            Image.fromarray(x)
            .resize((400, 300), Image.Resampling.BILINEAR)
            .resize(x.shape[::-1], Image.Resampling.BILINEAR)
        ),
    )
    copy.expect("a mask resized smoothly", "labels", "t4_p5.jpg")


def plant_in_images(copy: Copy) -> None:
    path = copy.image("t4_p6")
    path.write_bytes(path.read_bytes()[:40_000])
    copy.expect("an image cut off in the middle", "unreadable", path.name)
    copy.image("t4_p7").write_bytes(b"")
    copy.expect("an empty image file", "unreadable", "t4_p7.jpg")
    path = copy.mask("t4_p8")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    copy.expect("a mask cut off in the middle", "unreadable", "t4_p8.jpg")
    with Image.open(copy.image("t6_p1")) as image:
        size, grey = image.size, image.convert("L")
    Image.new("RGB", size, (12, 12, 12)).save(copy.image("t6_p1"))
    copy.expect("a blank image", "blank", "t6_p1.jpg")
    grey.save(copy.image("t6_p3"))
    copy.mask("t6_p3").write_bytes(copy.mask("t6_p1").read_bytes())
    copy.expect("a grey image among colour images", "bands", "t6_p3.jpg")
    with Image.open(copy.image("t6_p5")) as image:
        values = np.array(image).transpose(2, 0, 1).astype(np.uint16) * 257
    copy.image("t6_p5").unlink()
    with rasterio.open(
        copy.root / "images/t6_p5.png", "w", driver="PNG", dtype="uint16", count=3, height=size[1], width=size[0]
    ) as file:
        file.write(values)
    copy.expect("a 16-bit image among 8-bit images", "bit depth", "t6_p5.png")


def plant_in_lists(copy: Copy) -> None:
    copy.mask("t6_p6").unlink()
    copy.expect("an image without mask", "no mask", "t6_p6.jpg")
    shutil.copy(copy.mask("t6_p7"), copy.mask("stray"))
    copy.expect("a mask without image", "no image", "stray.png")
    copy.list("val", "t9_p9")
    copy.expect("a name on the list without image", "no image", "t9_p9")
    copy.list("val", "t6_p8")
    copy.expect("an image in both lists", "leak", "t6_p8")


def plant_leaks(copy: Copy) -> None:
    shutil.copy(copy.image("t5_p1"), copy.root / "images/again.jpg")
    shutil.copy(copy.mask("t5_p1"), copy.mask("again"))
    copy.list("val", "again")
    copy.expect("a copy of a training image in val", "leak", "again.jpg")
    with Image.open(copy.image("t5_p3")) as image, Image.open(copy.mask("t5_p3")) as mask:
        ImageOps.mirror(image).save(copy.root / "images/mirrored.jpg", quality=70)
        ImageOps.mirror(mask).save(copy.mask("mirrored"))
    copy.list("val", "mirrored")
    copy.expect("a mirrored, recompressed training image in val", "leak", "mirrored.jpg")
    with Image.open(copy.image("t5_p5")) as image, Image.open(copy.mask("t5_p5")) as mask:
        half = (image.width // 2, image.height // 2)
        image.rotate(90, expand=True).resize(half[::-1]).save(copy.root / "images/smaller.jpg", quality=80)
        mask.rotate(90, expand=True).resize(half[::-1], Image.Resampling.NEAREST).save(copy.mask("smaller"))
    copy.list("val", "smaller")
    copy.expect("a training image rotated and scaled to half its size in val", "leak", "smaller.jpg")


def plant_on_the_ground(copy: Copy) -> None:
    as_tif(copy, "t5_p6", crs=("EPSG:32640", "EPSG:32639"))
    copy.expect("image and mask in two coordinate systems", "coordinates", "t5_p6.tif")
    as_tif(copy, "t5_p7", moved=(25, 0))
    copy.expect("a mask on a grid 25 m away", "coordinates", "t5_p7.tif")
    as_tif(copy, "t5_p2", east=4000)
    as_tif(copy, "t5_p8", east=4300)
    copy.expect("footprints of train and val that overlap", "leak", "t5_p8.tif")


def as_tif(
    copy: Copy,
    stem: str,
    *,
    crs: tuple[str, str] = ("EPSG:32640",) * 2,
    moved: tuple[float, float] = (0, 0),
    east: float = 0,
) -> None:
    """Image and mask as GeoTIFFs of 1 m per pixel."""
    for place, path, shift in (("images", copy.image(stem), (0, 0)), ("masks", copy.mask(stem), moved)):
        with Image.open(path) as image:
            values = np.array(image)
        values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
        path.unlink()
        profile = {
            "driver": "GTiff",
            "dtype": "uint8",
            "count": len(values),
            "height": values.shape[1],
            "width": values.shape[2],
        }
        origin = Affine(1, 0, 300_000 + east + hash_of(stem) + shift[0], 0, -1, 2_800_000 + shift[1])
        with rasterio.open(
            copy.root / place / f"{stem}.tif", "w", crs=crs[place == "masks"], transform=origin, **profile
        ) as file:
            file.write(values)


def hash_of(stem: str) -> int:
    """Apart from each other, but for the two that are to overlap."""
    return 0 if stem in ("t5_p2", "t5_p8") else 100_000 * int(stem[-1])


def named(audited: Audit, kind: str, name: str) -> str | None:
    """The message of the finding of this kind that names this file."""
    return next((one.message for one in audited.findings if one.kind == kind and name in one.files), None)


def main(source: Path, target: Path) -> int:
    copy = Copy(source, target)
    plant(copy)
    audited = audit(copy.root)
    rows = [(fault, named(audited, kind, name)) for fault, kind, name in copy.planted]
    doubtful = Copy(source, target)
    swap = np.arange(256, dtype=np.uint8)
    swap[[1, 4]] = 4, 1
    doubtful.labels("t3_p2", lambda x: swap[x])
    doubtful.keep(lambda stem: stem[1] in "346")  # the smaller images: the model takes minutes
    rows.append(
        (
            "land and water exchanged in a mask, with --model dubai-s",
            named(with_suspects(audit(doubtful.root), load("dubai-s")), "doubtful labels", "t3_p2.jpg"),
        )
    )
    config = json.loads((doubtful.root / "classes.json").read_text())
    config["names"].append("rail")
    config["palette"].append([1, 2, 3])
    (doubtful.root / "classes.json").write_text(json.dumps(config))
    rows.append(
        (
            "a class that no mask holds",
            next((one.message for one in audit(doubtful.root).findings if one.kind == "absent class"), None),
        )
    )
    print(HEAD)
    for fault, message in rows:
        print(f"| {fault} | {(message or '**not found**').replace(f'{target}/', '')} |")
    wrong = [
        one
        for one in audited.findings
        if not any(one.kind == kind and name in one.files for _, kind, name in copy.planted)
    ]
    count = sum(message is not None for _, message in rows)
    print(f"\n{count} of {len(rows)} found; findings about nothing planted: {len(wrong)}")
    for one in wrong:
        print(f"- {one.grade} ({one.kind}): {one.message}")
    clean = audit(source)
    print(f"\nFindings in the clean set: {len(clean.findings)}")
    return int(any(message is None for _, message in rows) or bool(clean.findings))


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
