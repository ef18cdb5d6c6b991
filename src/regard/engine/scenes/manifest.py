"""Lists of scenes: patterns and manifests in, receipts out."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from regard.data.output import write_text
from regard.data.place import is_virtual
from regard.errors import ConfigError, UnreadableImage

MANIFEST = ".jsonl"


@dataclass(frozen=True)
class Receipt:
    """What became of a scene: its files, or the reason why there are none."""

    source: str
    files: list[str]
    pixels: int
    seconds: float
    peak_memory_mb: float
    failed: str = ""


def listed(sources: Iterable[Path]) -> dict[Path, Path | None]:
    """Sources with their patterns and manifests resolved, each once, in order, and the targets that manifests name.

    A manifest is a ``.jsonl``: on each line an object with a ``source`` and, if wished, the ``target`` of its map.
    Paths count from the current folder; other fields are passed over, so that receipts are a manifest again.

    Raises:
        UnreadableImage: a pattern that matches nothing, or a manifest that is not there.
        ConfigError: no source at all, or a line of a manifest that names none.
    """
    found: dict[Path, Path | None] = {}
    for source in sources:
        if source.suffix == MANIFEST:
            found |= _read(source)
        elif source.exists() or is_virtual(source) or not glob.has_magic(str(source)):
            found[source] = None
        else:
            found |= dict.fromkeys(_matches(source))
    if not found:
        raise ConfigError("no source is given. Name at least one image: regard predict MODEL IMAGE -o OUT.")
    return found


def write_receipts(path: Path, receipts: Iterable[Receipt]) -> Path:
    """One line of JSON for each scene; ``target`` is its map.

    Raises:
        OutputError: it cannot be written.
    """
    rows = [
        {**asdict(receipt), "target": receipt.files[0]} if receipt.files else asdict(receipt) for receipt in receipts
    ]
    return write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _matches(pattern: Path) -> list[Path]:
    matches = sorted(Path(name) for name in glob.glob(str(pattern)))
    if not matches:
        raise UnreadableImage(f"no file matches {pattern}. Check the folder and the ending.")
    return matches


def _read(path: Path) -> dict[Path, Path | None]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableImage(
            f"{path} cannot be read as a manifest ({error}). Give a text file of JSON lines."
        ) from None
    found: dict[Path, Path | None] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            source, target = _row(path, number, line)
            found[source] = target
    return found


def _row(path: Path, number: int, line: str) -> tuple[Path, Path | None]:
    try:
        row = json.loads(line)
        source, target = row["source"], row.get("target")
        return Path(source), None if target is None else Path(target)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"{path}, line {number} names no source: {line[:60]}. "
            'Write {"source": "tile.tif"} and, if wished, "target".'
        ) from None
