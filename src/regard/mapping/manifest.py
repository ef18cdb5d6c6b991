"""Lists of scenes: patterns and manifests in, receipts out."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from regard.errors import ConfigError, UnreadableImage
from regard.files import write_text
from regard.io.source import Source

MANIFEST = ".jsonl"


@dataclass(frozen=True)
class Receipt:
    """What became of a scene: its files, or the reason why there are none."""

    source: str
    target: str
    files: list[str]
    pixels: int
    seconds: float
    peak_memory_mb: float
    failed: str = ""


def listed(sources: Sequence[str | Path | Source]) -> dict[Source, Path | None]:
    """Sources with their patterns and manifests resolved, each once, in order, and the targets that manifests name.

    A manifest is a ``.jsonl``: on each line an object with a ``source`` and, if wished, the ``target`` of its map.
    Paths count from the current folder; other fields are passed over, so that receipts are a manifest again.

    Raises:
        UnreadableImage: a pattern that matches nothing, or a manifest that is not there.
        ConfigError: no source at all, or a line of a manifest that names none.
    """
    found: dict[Source, Path | None] = {}
    for source in map(Source.of, sources):
        if not is_list(source):
            found[source] = None
        else:
            found |= _read(Path(str(source))) if source.suffix == MANIFEST else dict.fromkeys(_matches(source))
    if found:
        return found
    if sources:
        raise ConfigError(f"{sources[0]} lists no scene. Write one object with a source on each line.")
    raise ConfigError("no source is given. Name at least one image: regard predict MODEL IMAGE -o OUT.")


def is_list(source: str | Path | Source) -> bool:
    """Whether a source is a manifest or a pattern, and so may stand for any number of scenes."""
    source = Source.of(source)
    if source.suffix == MANIFEST:
        return True
    return glob.has_magic(str(source)) and source.local is not None and not source.local.exists()


def write_receipts(path: Path, receipts: Iterable[Receipt]) -> Path:
    """One line of JSON for each scene.

    Raises:
        OutputError: it cannot be written.
    """
    return write_text(path, "".join(json.dumps(asdict(receipt)) + "\n" for receipt in receipts))


def _matches(pattern: Source) -> list[Source]:
    matches = [Source.of(path) for path in sorted(map(Path, glob.glob(str(pattern))))]
    if not matches:
        raise UnreadableImage(f"no file matches {pattern}. Check the folder and the ending.")
    return matches


def _read(path: Path) -> dict[Source, Path | None]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableImage(
            f"{path} cannot be read as a manifest ({error}). Give a text file of JSON lines."
        ) from None
    return dict(_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip())


def _row(path: Path, number: int, line: str) -> tuple[Source, Path | None]:
    try:
        row = json.loads(line)
        source, target = row["source"], row.get("target")
        return Source.of(source), None if target is None else Path(target)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"{path}, line {number} is no scene: {line[:60]}. "
            'Write {"source": "tile.tif"} and, if wished, "target", both in quotes.'
        ) from None
