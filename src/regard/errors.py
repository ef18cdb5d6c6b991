"""Everything that regard refuses, as one tree.

Each message says what we got, what we need and what to do, with the real names and numbers::

    RegardError
    ├── BandMismatch         a raster's bands are not those of the model
    ├── ClassMismatch        labels, class lists or class counts disagree
    ├── UnreadableImage      an image, mask or raster cannot be read
    ├── SizeMismatch         an image and its mask differ in size
    ├── DatasetError         a data folder lacks a part or contradicts itself
    ├── UnknownName          no architecture, backbone, split or bundled model of that name
    ├── ConfigError          a setting has an impossible value
    ├── StrideUnavailable    a backbone cannot run at the requested output stride
    ├── CheckpointError      a model file is broken, foreign or does not fit
    ├── OutputError          a result cannot be written where it should go
    │   └── OutputBusy       another run is writing it
    ├── ScenesFailed         some of several sources could not be predicted
    ├── ExportError          an exported file does not agree with its model
    ├── TrainingError        training cannot continue
    ├── Stopped              a signal ended a training; its progress is saved
    └── MissingExtra         an optional part of regard is not installed

What does not stop a run is a ``SceneWarning`` or a ``LicenceWarning``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

MOST_LISTED = 16  # names in one message
LONGEST = 2_000  # characters of a message; of a longer one the middle is left out
MOST_COMPARED = 10_000  # names of a folder that a missing one is compared with


UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def visible(text: str) -> str:
    """A text with control characters, and those that turn the order of others, as escapes: they change no screen."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class RegardError(Exception):
    """Base of every error that regard raises on purpose: one line that a terminal shows, whatever names it quotes."""

    def __str__(self) -> str:
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().__str__())
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 300]} ... {text[-250:]}"


class SceneWarning(UserWarning):
    """A scene that is mapped does not suit the model in some way."""


class LicenceWarning(UserWarning):
    """Weights that are downloaded may not be used by everybody for everything."""


class BandMismatch(RegardError):
    """The bands of an image are not the bands that the model was trained on."""


class ClassMismatch(RegardError):
    """Labels or class lists disagree with each other."""


class UnreadableImage(RegardError):
    """An image, mask or raster cannot be read."""


class SizeMismatch(RegardError):
    """An image and its mask have different sizes."""


class DatasetError(RegardError):
    """A data folder lacks a part or contradicts itself."""


class UnknownName(RegardError):
    """A name that is not in its list."""


class ConfigError(RegardError):
    """A setting has an impossible value."""


class StrideUnavailable(RegardError):
    """A backbone cannot run at the requested output stride."""


class CheckpointError(RegardError):
    """A model file is broken, foreign, or does not fit the model."""


class ScenesFailed(RegardError):
    """Some of several sources could not be predicted; the others are complete."""


class OutputError(RegardError):
    """A result cannot be written where it should go."""


class OutputBusy(OutputError):
    """Another run is writing the same result."""


class ExportError(RegardError):
    """An exported file does not agree with its model."""


class TrainingError(RegardError):
    """Training cannot continue."""


class Stopped(RegardError):
    """A signal ended a training; its progress is saved."""

    signal = 0


class MissingExtra(RegardError):
    """An optional part of regard is not installed."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """The error for a ``name`` that is not among ``known``, with the most similar one proposed."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    shown = names if len(names) <= MOST_LISTED else difflib.get_close_matches(name, names, n=MOST_LISTED, cutoff=0)
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return UnknownName(f"no {kind} {name!r}.{hint} Known: {', '.join(shown) or 'none'}{more}.")


def near(path: Path) -> str:
    """`` Did you mean b.tif?`` where the folder of a missing file has one of a similar name; else empty."""
    try:
        names = [other.name for other in islice(path.parent.iterdir(), MOST_COMPARED)]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f" Did you mean {path.with_name(close[0])}?" if close else ""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """``1 image``, ``2 images``; ``plural`` where it does not end in s."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or f'{noun}s'}"


def one_line(error: BaseException, most: int = 120, *, kind: bool = False) -> str:
    """What an error says, on one line of so many characters; after the name of its ``kind``, if wanted."""
    return f"{type(error).__name__}: " * kind + " ".join(str(error).split())[:most]


def listed(names: Sequence[object], most: int = 3) -> str:
    """The first names, and how many more: ``a, b, c and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
