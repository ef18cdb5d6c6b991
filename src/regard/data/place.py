"""Where a raster lies, and which driver may read it."""

from __future__ import annotations

from pathlib import Path

from regard.errors import UnreadableImage

DRIVERS = {  # by the first bytes of the file; VRT is not here: it can read any file of the machine
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
}


def driver_of(path: Path) -> str:
    """The name of GDAL's driver for a file, by its first bytes.

    Raises:
        UnreadableImage: missing, empty or of a kind that is not read.
    """
    if not path.is_file():
        raise UnreadableImage(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}. Give the path of an image."
        )
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise UnreadableImage(f"{path} is empty. Fetch it again.")
    driver = next((name for magic, name in DRIVERS.items() if start.startswith(magic)), None)
    if driver is None:
        raise UnreadableImage(f"{path} is no GeoTIFF, JPEG 2000, PNG or JPEG. {_advice(path, start)}")
    return driver


def _advice(path: Path, start: bytes) -> str:
    if path.suffix.lower() == ".safetensors":
        return f"It is a model, and the model comes first: regard predict {path.name} IMAGE -o OUT."
    if start.startswith(b"GIF8"):
        return "It is a GIF: save it as PNG, in colour."
    return f"Convert it: gdal_translate {path.name} out.tif."
