"""Where a raster lies, what GDAL calls it there, and which drivers may read it."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path

from regard.errors import UnreadableImage

DRIVERS = {  # by the first bytes of the file
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
}
ANY_DRIVER = sorted(set(DRIVERS.values()))
VRT = "VRT"  # not among them: it can read any file of the machine
MOSAICS = "/vsimem/regard-mosaic/"  # VRTs of our own, in GDAL's memory
VIRTUAL = re.compile(r"/vsi[a-z0-9_]+/|[a-z][a-z0-9+]+:/")
SYSTEMS = {"http": "curl", "https": "curl", "ftp": "curl", "s3": "s3", "gs": "gs", "az": "az"}
SYSTEMS |= {"zip": "zip", "tar": "tar", "gzip": "gzip"}
SECONDS_FOR_A_HEAD = 20

Stamp = tuple[str, int | str | None, int | str | None]


def is_virtual(path: Path) -> bool:
    """Whether a path is no file of this machine's but one of GDAL's: ``/vsizip/a.zip/b.tif``, ``https://host/b.tif``."""
    return VIRTUAL.match(str(path)) is not None


def gdal_name(path: Path) -> str:
    """What GDAL calls a file: URLs (https, s3, gs, az; zip, tar, gzip with ``!``) as ``/vsi`` paths.

    :class:`~pathlib.Path` leaves out double slashes; they are put back.

    Raises:
        UnreadableImage: an URL of another kind.
    """
    text = str(path)
    if not is_virtual(path):
        return text
    scheme, _, rest = text.partition(":/")
    if not text.startswith("/vsi"):
        parts = [part for part in scheme.split("+") if part != "file"]
        unknown = [part for part in parts if part not in SYSTEMS]
        if unknown:
            raise UnreadableImage(f"{text}: {unknown[0]} is not read. Known: {', '.join(SYSTEMS)}, and /vsi paths.")
        remote = f"{parts[-1]}:/" if parts and SYSTEMS[parts[-1]] == "curl" else ""
        text = "".join(f"/vsi{SYSTEMS[part]}" for part in parts) + f"/{remote}{re.sub('!/*', '/', rest.lstrip('/'))}"
    text = re.sub(r"\b(https?|ftp):/+", r"\1://", text)
    archive = _archive(text)
    return re.sub(r"^((?:/vsi[a-z0-9_]+)+/)/*", r"\1/", text) if archive and archive.is_absolute() else text


def _archive(name: str) -> Path | None:
    """The file of this machine that holds a file of GDAL's; None where none does."""
    rest = Path(re.sub(r"^(/vsi[a-z0-9_]+)+/+", "", name))
    for folder in (Path(), Path("/")):
        for path in (folder / rest, *(folder / rest).parents):
            if path.is_file():
                return path
    return None


def stamp(name: str) -> Stamp:
    """A file as it is now: its name, size and time of change in nanoseconds; of an archive's member, the archive's.

    Over HTTP, length and ETag or date as the server tells them. Nothing but the name where neither is known.
    """
    held = _archive(name) if is_virtual(Path(name)) else Path(name)
    if held is not None and held.is_file():
        facts = held.stat()
        return str(Path(name).absolute()), facts.st_size, facts.st_mtime_ns
    url = re.match(r"/vsicurl/(https?://.*)", name)
    if url is None:
        return name, None, None
    asked = urllib.request.Request(url[1], method="HEAD")
    try:
        with urllib.request.urlopen(asked, timeout=SECONDS_FOR_A_HEAD) as answer:
            told = answer.headers
    except (urllib.error.URLError, OSError, ValueError):
        return name, None, None
    return name, told["Content-Length"], told["ETag"] or told["Last-Modified"]


def drivers_of(path: Path, *, vrt: bool = False) -> list[str]:
    """The names of GDAL's drivers that may read a file, by its first bytes; of a file that only GDAL reaches, all.

    Raises:
        UnreadableImage: missing, empty, of a kind that is not read, or a VRT that was not allowed.
    """
    if str(path).startswith(MOSAICS):
        return [VRT]
    if is_virtual(path):
        return [*ANY_DRIVER, VRT] if vrt else ANY_DRIVER
    if not path.is_file():
        raise UnreadableImage(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}. Give the path of an image."
        )
    with path.open("rb") as file:
        start = file.read(1024)
    if not start:
        raise UnreadableImage(f"{path} is empty. Fetch it again.")
    if b"<VRTDataset" in start and vrt:
        return [VRT]
    driver = next((name for magic, name in DRIVERS.items() if start.startswith(magic)), None)
    if driver is None:
        raise UnreadableImage(f"{path} is no GeoTIFF, JPEG 2000, PNG or JPEG. {_advice(path, start)}")
    return [driver]


def _advice(path: Path, start: bytes) -> str:
    if b"<VRTDataset" in start:
        return "It is a VRT, which may read any file of this machine: if you trust it, say --vrt."
    if path.suffix.lower() == ".safetensors":
        return f"It is a model, and the model comes first: regard predict {path.name} IMAGE -o OUT."
    if start.startswith(b"GIF8"):
        return "It is a GIF: save it as PNG, in colour."
    return f"Convert it: gdal_translate {path.name} out.tif."
