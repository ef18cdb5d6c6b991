"""TIFF, PNG, JPEG and JPEG 2000 as `regard.predict` and `regard.folder` read them, damaged where their structure is."""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from rasterio.transform import Affine

import regard
from regard.card import IMAGENET_MEAN, IMAGENET_STD, Card
from regard.classes import ClassMap, default_palette
from regard.datasets.mask import read_mask
from regard.inference.runtimes import Runner
from regard.io.image import image_size, read_image
from regard.io.raster import Box, open_raster
from regard.io.source import is_photograph
from tests.fuzz.damage import bytes_changed, edge, number_edges
from tests.fuzz.worker import Files, Format
from tests.support import save_image, write_tif

MOST_PIXELS = 10**6  # an image that says it has more is opened and read in a part: to map it takes long, rightly
CLASSES = ClassMap(names=("one", "two", "three"), palette=default_palette(3))


@cache
def model(bands: int = 3) -> Runner:
    """A model of three classes whose logits are averages of the bands: what reads images is tested, not a network."""
    names = ("red", "green", "blue", "infrared")[:bands]
    card = Card(
        architecture="danet", config={}, classes=CLASSES, bands=names, mean=(*IMAGENET_MEAN, 0.4)[:bands],
        std=(*IMAGENET_STD, 0.2)[:bands],
    )  # fmt: skip
    return Runner(card, _averages, stride=8, mark=bytes(32)).eval()


def _averages(image: torch.Tensor) -> torch.Tensor:
    means = torch.nn.functional.avg_pool2d(image, 8, ceil_mode=True)
    return torch.stack([means.mean(1), means.amax(1), -means.amin(1)], 1)


def written(name: str, write: Callable[[Path], object]) -> bytes:
    """The bytes of a file that ``write`` makes under this name."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _picture(bands: int, *, dtype: str = "uint8", side: int = 40) -> np.ndarray:
    """Smooth noise."""
    coarse = np.random.default_rng(bands).integers(0, 256, size=(bands, side // 8, side // 8))
    return coarse.repeat(8, 1).repeat(8, 2).astype(dtype)


def tiffs() -> list[Files]:
    """Kinds of GeoTIFF: strips and tiles, compressed, with palette, masks, nodata, other types; one mask of labels."""
    plain = _picture(3)
    profiles: list[tuple[np.ndarray, dict[str, Any]]] = [
        (plain, {"compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16, "interleave": "pixel"}),
        (plain, {}),
        (plain, {"compress": "lzw", "predictor": 2, "nodata": 0}),
        (plain, {"compress": "jpeg", "photometric": "ycbcr", "tiled": True, "blockxsize": 16, "blockysize": 16}),
        (plain.astype("uint16"), {"compress": "zstd", "BIGTIFF": "YES"}),
        (plain.astype("float32"), {"compress": "lerc", "nodata": float("nan"), "crs": "EPSG:4326"}),
        (plain, {"compress": "packbits", "crs": None, "transform": None}),
        (_picture(4), {"alpha": "yes", "compress": "webp", "WEBP_LOSSLESS": "YES"}),
        (plain, {"driver": "COG", "compress": "lzma"}),
        (plain, {"ENDIANNESS": "BIG", "transform": Affine(3, 1, 5, 1, -3, 5)}),
    ]
    masks = {"dtype": "uint8", "compress": "deflate"}
    files = [{"given/scene.tif": written("a.tif", lambda p, v=v, o=o: write_tif(p, v, **o))} for v, o in profiles]
    label = written("a.tif", lambda path: write_tif(path, _picture(1) % 3, **masks))
    return [*files, {"given/mask.tif": label}]


def pngs() -> list[Files]:
    """Grey, colour, palette, 16 bits, 1 bit, transparency, text, profile; one mask."""
    picture = _picture(3).transpose(1, 2, 0)
    ways: dict[str, Image.Image] = {
        mode: Image.fromarray(picture).convert(mode) for mode in ("RGB", "L", "RGBA", "LA", "P", "1")
    }
    found = [{"given/photo.png": written("a.png", lambda p, i=i: i.save(p, dpi=(72, 72)))} for i in ways.values()]
    deep = written("a.png", lambda path: write_tif(path, _picture(3, dtype="uint16"), driver="PNG"))
    label = written("a.png", lambda path: save_image(path, _picture(1)[0] % 3))
    return [*found, {"given/photo.png": deep}, {"given/mask.png": label}]


def jpegs() -> list[Files]:
    """Colour, grey, CMYK, progressive, with EXIF that turns the picture; a world file places one."""
    picture = Image.fromarray(_picture(3).transpose(1, 2, 0))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photograph"
    ways = [
        (picture, {"exif": exif}), (picture, {"progressive": True, "dpi": (72, 72)}), (picture.convert("L"), {}),
        (picture.convert("CMYK"), {"icc_profile": bytes(200)}),
    ]  # fmt: skip
    found = [{"given/photo.jpg": written("a.jpg", lambda p, i=i, o=o: i.save(p, **o))} for i, o in ways]
    return [*found, {**found[1], "given/photo.jgw": b"2\n0\n0\n-2\n500000\n5000000\n"}]


def others() -> list[Files]:
    """WebP with loss and without, and BMP."""
    picture = Image.fromarray(_picture(3).transpose(1, 2, 0))
    ways: tuple[tuple[str, dict[str, Any]], ...] = (("webp", {}), ("webp", {"lossless": True}), ("bmp", {}))
    return [{f"given/photo.{s}": written(f"a.{s}", lambda p, o=o: picture.save(p, **o))} for s, o in ways]


def jp2s() -> list[Files]:
    """Lossless and lossy, tiled, with georeference."""
    profiles = (
        {"REVERSIBLE": "YES", "QUALITY": "100"},
        {"BLOCKXSIZE": "32", "BLOCKYSIZE": "32"},
        {"crs": None, "transform": None},
    )
    return [
        {
            "given/scene.jp2": written(
                "a.jp2", lambda p, o=o: write_tif(p, _picture(3, side=64), driver="JP2OpenJPEG", **o)
            )
        }
        for o in profiles
    ]


def read_picture(folder: Path) -> None:
    """As a user does: map it in memory and as a file, with polygons; a mask as labels."""
    path = next(path for path in (folder / "given").iterdir() if path.suffix != ".jgw")
    if path.stem == "mask":
        read_mask(path, CLASSES)
        return
    height, width = image_size(path)
    if height * width <= MOST_PIXELS:
        regard.predict(model(), path, progress=False)
        out = folder / "made" / ("map.tif" if path.suffix in (".tif", ".jp2") else "map.png")
        regard.predict(model(), path, out, tile=32, overlap=0, progress=False)
    elif not is_photograph(path):  # read in windows, and so are photographs above Pillow's limit
        with open_raster(path, expected=model().bands) as raster:
            raster.read(Box(0, 0, min(height, 1000), min(width, 1000)))
    else:
        read_image(path, expected=model().bands)


def _spoiled(rng: Random, files: Files, structure: Callable[[Random, bytes], bytes]) -> Files:
    """The first file damaged by its structure, or as bytes."""
    name = rng.choice([*files])
    files[name] = (structure if rng.random() < 0.65 else bytes_changed)(rng, files[name])
    return files


def tiff_changed(rng: Random, content: bytes) -> bytes:
    """One entry of the directory (tag, type, count, value, offset), the text behind it, or the next directory."""
    spoiled, order = bytearray(content), "<" if content[:2] == b"II" else ">"
    is_big = content[2:4] in (b"+\0", b"\0+")
    word, size, header = ("Q", 20, 8) if is_big else ("L", 12, 2)
    at = struct.unpack_from(order + word, content, 8 if is_big else 4)[0]
    count = struct.unpack_from(order + ("Q" if is_big else "H"), content, at)[0]
    wide, entry = struct.calcsize(order + word), at + header + size * rng.randrange(count)
    kind = rng.choice(("tag", "type", "count", "value", "value", "target", "next", "swap"))
    if kind == "next":
        spoiled[at + header + size * count :][:wide] = b""
        struct.pack_into(order + word, spoiled, at + header + size * count, rng.choice((at, 0, 8, len(content))))
    elif kind == "swap":
        other = at + header + size * rng.randrange(count)
        spoiled[entry : entry + size], spoiled[other : other + size] = (
            content[other : other + size],
            content[entry : entry + size],
        )
    elif kind == "target":
        place = struct.unpack_from(order + word, content, entry + 4 + wide)[0]
        length = min(struct.unpack_from(order + word, content, entry + 4)[0], 200)
        if place + length <= len(content) and length:
            piece = content[place : place + length]
            spoiled[place : place + length] = _text_or_bytes(rng, piece)[:length].ljust(length, b"\0")
    else:
        begin, width = {"tag": (0, 2), "type": (2, 2), "count": (4, wide), "value": (4 + wide, wide)}[kind]
        value = rng.randrange(20) if kind == "type" else int.from_bytes(edge(rng, width), "little")
        spoiled[entry + begin : entry + begin + width] = value.to_bytes(width, "little" if order == "<" else "big")
    return bytes(spoiled)


def _text_or_bytes(rng: Random, piece: bytes) -> bytes:
    if piece.rstrip(b"\0").isascii() and rng.random() < 0.5:
        return number_edges(rng, piece.decode("latin-1")).encode("latin-1", "replace")
    size = rng.choice((2, 4, 8))
    place = rng.randrange(max(1, len(piece) // size)) * size
    odd = struct.pack("<d", rng.choice((float("nan"), float("inf"), 0.0, 1e300, -1e-300)))
    return piece[:place] + (odd if size == 8 and rng.random() < 0.7 else edge(rng, size)) + piece[place + size :]


def png_changed(rng: Random, content: bytes) -> bytes:
    """A chunk changed, repeated, moved, left out or added, all with the right check sums."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    place = rng.randrange(len(chunks))
    name, data = chunks[place]
    kind = rng.choice(("change", "change", "header", "pixels", "repeat", "move", "remove", "add", "add"))
    if kind == "change":
        chunks[place] = (name, bytes_changed(rng, data))
    elif kind == "header":
        size = [rng.choice((0, 1, 40, 9000, 9999, 20_000, 65_535, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
        kinds = [rng.choice((1, 2, 4, 8, 16)), rng.choice((0, 2, 3, 4, 6)), 0, 0, rng.randrange(3)]
        chunks[0] = (b"IHDR", struct.pack(">LL5B", *size, *kinds))
    elif kind == "pixels":
        raw = zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT"))
        packed = rng.choice((zlib.compress(bytes_changed(rng, raw), 1), zlib.compress(raw * 50, 1), b"", bomb()))
        chunks = [*[chunk for chunk in chunks if chunk[0] not in (b"IDAT", b"IEND")], (b"IDAT", packed), (b"IEND", b"")]
    elif kind == "add":
        chunks.insert(place, rng.choice(_extra_chunks(rng)))
    elif kind == "repeat":
        chunks.insert(place, (name, data))
    else:
        chunks.pop(place)
        if kind == "move":
            chunks.insert(rng.randrange(len(chunks) + 1), (name, data))
    sums = (zlib.crc32(name + data).to_bytes(4, "big") for name, data in chunks)
    parts = (
        len(data).to_bytes(4, "big") + name + data + total for (name, data), total in zip(chunks, sums, strict=True)
    )
    return content[:8] + b"".join(parts)


@cache
def bomb() -> bytes:
    """A hundred kilobytes that unpack to a hundred megabytes."""
    return zlib.compress(bytes(100_000_000), 9)


def _extra_chunks(rng: Random) -> list[tuple[bytes, bytes]]:
    """Chunks that a picture may have besides: among them small ones that unpack to much."""
    names = (
        b"tEXt",
        b"iTXt",
        b"gAMA",
        b"cHRM",
        b"sRGB",
        b"bKGD",
        b"pHYs",
        b"tIME",
        b"tRNS",
        b"acTL",
        b"fcTL",
        b"fdAT",
        b"PLTE",
        b"CgBI",
    )
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03" + edge(rng, 4) + edge(rng, 4)
    return [
        *((name, rng.randbytes(rng.choice((0, 1, 4, 8, 26, 300)))) for name in names),
        (b"zTXt", b"Comment\0\0" + bomb()), (b"iCCP", b"profile\0\0" + bomb()),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb()),
        (b"eXIf", exif), (b"iCCP", b"p\0\0" + zlib.compress(rng.randbytes(300))),
    ]  # fmt: skip


def jpeg_changed(rng: Random, content: bytes) -> bytes:
    """A segment changed with its length kept right, its numbers at an edge, repeated, left out or added."""
    at, segments = 2, []
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        segments.append((content[at + 1], content[at + 4 : end]))
        at = end
    rest, place = content[at:], rng.randrange(len(segments) or 1)
    if not segments:
        return bytes_changed(rng, content)
    mark, data = segments[place]
    kind = rng.choice(("change", "change", "change", "frame", "repeat", "remove", "add", "mark", "scan"))
    if kind == "change":
        segments[place] = (mark, bytes_changed(rng, data))
    elif kind == "frame":
        frames = [index for index, (mark, _) in enumerate(segments) if mark in (0xC0, 0xC2)]
        for index in frames:
            mark, data = segments[index]
            segments[index] = (mark, data[:1] + edge(rng, 2) + edge(rng, 2) + data[5:])
    elif kind == "add":
        exif = b"Exif\0\0MM\0*\0\0\0\x08" + rng.choice(
            (b"\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0", rng.randbytes(40))
        )
        added = [
            (0xE1, exif),
            (0xE2, b"MPF\0" + rng.randbytes(60)),
            (0xE2, b"ICC_PROFILE\0\x01\x01" + rng.randbytes(60)),
        ]
        added += [
            (0xED, b"Photoshop 3.0\0" + rng.randbytes(40)),
            (0xEE, b"Adobe" + rng.randbytes(7)),
            (0xFE, rng.randbytes(65_000)),
        ]
        segments.insert(place, rng.choice(added))
    elif kind == "mark":
        segments[place] = (rng.choice((*range(0xC0, 0xD0), 0xDB, 0xDD, *range(0xE0, 0xF0))), data)
    elif kind == "scan":
        rest = bytes_changed(rng, rest)
    elif kind == "repeat":
        segments.insert(place, (mark, data))
    else:
        segments.pop(place)
    heads = (bytes((0xFF, mark)) + (len(data) + 2 & 0xFFFF).to_bytes(2, "big") + data for mark, data in segments)
    return content[:2] + b"".join(heads) + rest


def jp2_changed(rng: Random, content: bytes) -> bytes:
    """A number in the sizes of image and tiles, the coding style, or a box's head."""
    marks = {
        b"\xff\x51": (2, 49),
        b"\xff\x52": (2, 14),
        b"\xff\x5c": (2, 20),
        b"ihdr": (4, 14),
        b"colr": (4, 7),
        b"uuid": (4, 60),
    }
    found = [(content.find(mark), *span) for mark, span in marks.items() if mark in content]
    begin, low, high = rng.choice(found)
    spoiled = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        size = rng.choice((1, 2, 4))
        place = begin + low + (rng.randrange(high - low) // size) * size
        value = rng.choice((edge(rng, size), rng.randrange(256**size).to_bytes(size, "big")))
        spoiled[place : place + size] = value
    return bytes(spoiled)


def _format(seeds: Callable[[], list[Files]], structure: Callable[[Random, bytes], bytes]) -> Format:
    return Format(seeds, lambda rng, files: _spoiled(rng, files, structure), read_picture)


FORMATS = {
    "TIFF": _format(tiffs, tiff_changed),
    "PNG": _format(pngs, png_changed),
    "JPEG": _format(jpegs, jpeg_changed),
    "WebP, BMP": _format(others, bytes_changed),
    "JPEG 2000": _format(jp2s, jp2_changed),
}
