"""Several sources: patterns and manifests resolved, and the map that each becomes."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from regard.errors import ConfigError, OutputError, ScenesFailed, UnreadableImage
from regard.files import checked_name, json_of
from regard.io.source import Source
from regard.mapping.job import is_scene
from regard.options import Outputs

MANIFEST = ".jsonl"
MAPS = (".tif", ".tiff", ".png")
MOST_NAMED = 5  # failed sources in a message


def targets_of(
    sources: Sequence[str | Path | Source], outputs: Outputs, *, several: bool | None = None
) -> dict[Source, Path | None]:
    """The map that each source becomes: by the manifest, or in the folder ``outputs.out``; None in memory.

    ``several`` tells that ``outputs.out`` is a folder (see :func:`are_several`).

    Raises:
        UnreadableImage, ConfigError: see :func:`listed`; or a file besides the map is named for several sources.
        OutputError: ``out`` is not a folder, or two sources would become one map.
    """
    found = listed(sources)
    if len(found) > 1 and outputs.extra:
        raise ConfigError(
            f"--{outputs.extra[0]} names one file, but there are {len(found)} sources. Predict them one by one."
        )
    many = are_several(sources, found, outputs.out) if several is None else several
    targets = {source: target or _target(source, outputs.out, many) for source, target in found.items()}
    made_of: dict[Path, Source] = {}
    for source, target in targets.items():
        other = source if target is None else made_of.setdefault(checked_name(target).resolve(), source)
        if other != source:
            raise OutputError(
                f"{other} and {source} would both become {target}. Predict them into two folders, or name another "
                "target in the manifest."
            )
    return targets


def check_failures(failed: Mapping[str, str], count: int, results: Path | None = None) -> None:
    """Whether all of ``count`` sources were mapped; ``failed`` gives the reasons, ``results`` a file with all of them.

    Raises:
        ScenesFailed: some were not.
    """
    if not failed:
        return
    reasons = " ".join(f"{source}: {reason}" for source, reason in list(failed.items())[:MOST_NAMED])
    more = f" And {len(failed) - MOST_NAMED} more{f', see {results}' if results else ''}."
    raise ScenesFailed(
        f"{len(failed)} of {count} sources failed, the others are done; the same command tries these again. "
        f"{reasons}{more if len(failed) > MOST_NAMED else ''}"
    )


def are_several(sources: Sequence[str | Path | Source], found: Collection[Source], out: Path | None) -> bool:
    """Whether the maps go to a folder: of several sources, or of a list of one unless ``out`` names a map."""
    return len(found) > 1 or (any(map(is_list, sources)) and (out is None or out.suffix.lower() not in MAPS))


def _target(source: Source, out: Path | None, many: bool) -> Path | None:
    if out is None:
        return None
    if many and out.suffix:
        raise OutputError(f"several sources need a folder as output; got {out}. Name one: -o maps/.")
    suffix = ".tif" if is_scene(source, None) else ".png"
    return out / f"{source.stem}{suffix}" if many or os.path.isdir(out) else out


def listed(sources: Sequence[str | Path | Source]) -> dict[Source, Path | None]:
    """Sources with their patterns and manifests resolved, each once, in order, and the targets that manifests name.

    A manifest is a ``.jsonl``: on each line an object with a ``source`` and, optionally, the ``target`` of its map.
    Paths are relative to the current folder; other fields are ignored, so that a file of results is a manifest again.

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
    """Whether a source is a manifest or a pattern, which may stand for any number of scenes."""
    source = Source.of(source)
    if source.suffix == MANIFEST:
        return True
    return glob.has_magic(str(source)) and source.local is not None and not os.path.exists(source.local)


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
        row = json_of(line)
        source, target = row["source"], row.get("target")
        return Source.of(source), None if target is None else Path(target)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"{path}, line {number} is not a scene: {line[:60]}. "
            'Write {"source": "tile.tif"} and, optionally, "target", both in quotes.'
        ) from None
