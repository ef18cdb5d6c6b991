"""Sources of images: paths, URLs and members of archives, as the user wrote them and as GDAL names them."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

from regard.errors import UnreadableImage, near

DRIVERS = {  # GDAL's driver by the first bytes of the file
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
}
PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
PHOTOGRAPH_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # JPEG stands for its series (MPO) too
ANY_DRIVER = sorted(set(DRIVERS.values()))
VRT = "VRT"  # not among them: a VRT can read any file of the machine
VIRTUAL = re.compile(r"/vsi[a-z0-9_]+/|[a-z][a-z0-9+]+:/")
SYSTEMS = {"http": "curl", "https": "curl", "ftp": "curl", "s3": "s3", "gs": "gs", "az": "az"}
SYSTEMS |= {"zip": "zip", "tar": "tar", "gzip": "gzip"}
HEAD_TIMEOUT = 20  # seconds

Fingerprint = tuple[str, int | str | None, int | str | None]


@dataclass(frozen=True)
class Source:
    """Where an image comes from: a path, a URL (https, s3, gs, az), a ``/vsi`` path, an archive's member (``zip://a!b``).

    ``str(source)`` is exactly what the user wrote. ``document`` is the VRT of a mosaic, which lies in no file.
    """

    text: str
    document: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, source: str | os.PathLike[str] | Source) -> Source:
        """The source of a path, a URL or a source. A :class:`~pathlib.Path` of a URL gets back its double slash."""
        if isinstance(source, Source):
            return source
        text = os.fspath(source)
        return cls(text if isinstance(source, str) else re.sub(r"(?<![a-z0-9+])([a-z][a-z0-9+]+):/+", r"\1://", text))

    def __str__(self) -> str:
        return self.text

    @property
    def is_virtual(self) -> bool:
        """Whether GDAL alone reaches it: a URL, a ``/vsi`` path, a member of an archive, or a mosaic."""
        return self.document is not None or VIRTUAL.match(self.text) is not None

    @property
    def local(self) -> Path | None:
        """The file of this machine; None for virtual sources."""
        return None if self.is_virtual else Path(self.text)

    @property
    def name(self) -> str:
        """The last component, without the query of a URL."""
        if not self.is_virtual:
            return Path(self.text).name
        return re.split(r"[/!]", self.text.partition("?")[0].rstrip("/"))[-1]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """The suffix of the name in lower case, with its dot."""
        return Path(self.name).suffix.lower()

    @cached_property
    def gdal_name(self) -> str:
        """The name that GDAL opens: URLs and members of archives as ``/vsi`` paths, a mosaic as its VRT.

        Raises:
            UnreadableImage: an unknown URL scheme.
        """
        name = self.document or self.text
        if self.document is not None or not self.is_virtual:
            return name
        if not name.startswith("/vsi"):
            scheme, _, rest = name.partition(":/")
            parts = [part for part in scheme.split("+") if part != "file"]
            unknown = [part for part in parts if part not in SYSTEMS]
            if unknown:
                raise UnreadableImage(f"{name}: {unknown[0]} is not read. Known: {', '.join(SYSTEMS)}, and /vsi paths.")
            remote = f"{parts[-1]}://" if parts and SYSTEMS[parts[-1]] == "curl" else ""
            systems = "".join(f"/vsi{SYSTEMS[part]}" for part in parts)
            name = f"{systems}/{remote}{re.sub('!/*', '/', rest.lstrip('/'))}"
        archive = _archive(name)
        return re.sub(r"^((?:/vsi[a-z0-9_]+)+/)/*", r"\1/", name) if archive and archive.is_absolute() else name

    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the file as it is now: name, size, modification time in nanoseconds (the archive's for its
        members); over HTTP the length and the ETag or date of the server. The name alone where neither is known.
        """
        if self.document is not None:
            return self.text, None, None
        name = self.gdal_name
        file = _archive(name) if self.is_virtual else Path(name)
        if file is not None and os.path.isfile(file):
            status = file.stat()
            return str(Path(name).absolute()), status.st_size, status.st_mtime_ns
        url = re.match(r"/vsicurl/(https?://.*)", name)
        if url is None:
            return name, None, None
        try:
            request = urllib.request.Request(url[1], method="HEAD")
            with urllib.request.urlopen(request, timeout=HEAD_TIMEOUT) as response:
                headers = response.headers
        except (urllib.error.URLError, OSError, ValueError):
            return name, None, None
        return name, headers["Content-Length"], headers["ETag"] or headers["Last-Modified"]

    def drivers(self, *, vrt: bool = False) -> list[str]:
        """GDAL's drivers that may read it, by its first bytes; all drivers for a virtual source.

        Raises:
            UnreadableImage: missing, empty, of an unsupported format, or a VRT without ``vrt``.
        """
        if self.document is not None:
            return [VRT]
        if self.local is None:
            return [*ANY_DRIVER, VRT] if vrt else ANY_DRIVER
        check_exists(self)
        with self.local.open("rb") as file:
            start = file.read(1024)
        if not start:
            raise UnreadableImage(f"{self} is empty. Fetch it again.")
        if b"<VRTDataset" in start and vrt:
            return [VRT]
        driver = next((name for magic, name in DRIVERS.items() if start.startswith(magic)), None)
        if driver is None:
            raise UnreadableImage(f"{self} is no GeoTIFF, JPEG 2000, PNG or JPEG. {self._advice(start)}")
        return [driver]

    def _advice(self, start: bytes) -> str:
        if b"<VRTDataset" in start:
            return "It is a VRT, which may read any file of this machine: if you trust it, use --vrt."
        if self.suffix == ".safetensors":
            return f"It is a model, and the model comes first: regard predict {self.name} IMAGE -o OUT."
        if start.startswith(b"GIF8"):
            return "It is a GIF: save it as PNG, in colour."
        return f"Convert it: gdal_translate {self.name} out.tif."


def is_photograph(source: str | Path | Source) -> bool:
    """Whether an image is a photograph: by its suffix, and not above Pillow's limit of pixels.

    Photographs are predicted whole; larger images in windows, as rasters are.
    """
    source = Source.of(source)
    if source.suffix not in PHOTOGRAPHS:
        return False
    with warnings.catch_warnings(), suppress(OSError, ValueError, SyntaxError):  # reading raises what else is wrong
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            Image.open(str(source), formats=PHOTOGRAPH_FORMATS).close()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return False
    return True


def check_exists(source: Source) -> None:
    """Refuse a local source that is not a file.

    Raises:
        UnreadableImage: it is missing or a folder.
    """
    file = source.local
    if file is not None and not os.path.isfile(file):
        reason = "is a folder" if os.path.isdir(file) else "does not exist"
        raise UnreadableImage(f"{source} {reason}.{near(file)} Give the path of an image.")


def _archive(name: str) -> Path | None:
    """The local file that holds a ``/vsi`` file; None where none does."""
    rest = Path(re.sub(r"^(/vsi[a-z0-9_]+)+/+", "", name))
    paths = (path for file in (rest, Path("/") / rest) for path in (file, *file.parents))
    return next((path for path in paths if os.path.isfile(path)), None)
