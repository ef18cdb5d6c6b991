"""The application: its name, the result of a command, and the types of arguments that commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import App, Parameter, Token

from regard._version import __version__

EPILOGUE = (
    "Every command also takes --json (print one JSON object) and --debug (show the stack trace of an error). "
    "Exit codes: 0 success, 1 failure, 2 wrong usage, 128 + n ended by signal n."
)
app = App(
    name="regard",
    version=__version__,
    help="Semantic segmentation with attention context, on photographs and on maps of any size.",
    help_epilogue=EPILOGUE,
    suppress_keyboard_interrupt=False,  # else it ends without a message
    default_parameter=Parameter(negative_iterable=(), consume_multiple=True),
)

RENAMED = {"--overhead": "--rot90", "--no-overhead": "--no-rot90", "--average": "--ema"}  # options of version 0.1

Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Map = Annotated[Path, Parameter(name="MAP")]


IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".vrt", ".jsonl")


def _no_image(_: object, name: str | None) -> None:
    if name is not None and Path(name).suffix.lower() in IMAGES:
        raise ValueError(f"{name} is an image; the model comes first, then the image.")


def _no_folder(_: object, name: str | None) -> None:
    path = Path(name or "")
    if name and path.is_dir():
        for inside in ("best.safetensors", "model.safetensors"):
            if (path / inside).is_file():
                raise ValueError(f"{name} is a folder that holds a model: give {path / inside}.")
        raise ValueError(f"{name} is a folder; the model comes first, then images or data.")


Model = Annotated[str, Parameter(validator=[_no_image, _no_folder])]
ModelOrMap = Annotated[str, Parameter(validator=_no_folder)]


def misplaced(tokens: Sequence[str], reason: str) -> str:
    """What was meant by a command line that the parser refuses: an output without -o, a model before the data."""
    options = [place for place, token in enumerate(tokens) if token.startswith("-")]
    command, *given = tokens[: options[0]] if options else tokens
    if "--out is missing" in reason and len(given) > 1 and not Path(given[-1]).exists():
        return f"Did you mean -o {given[-1]}?"
    if command == "train" and len(given) == 2 and "Unused" in reason:
        data, model = sorted(given, key=lambda name: not Path(name).is_dir())
        return f"Did you mean: regard train {data} --init {model}?"
    return ""


class Answer(NamedTuple):
    """The result of a command: ``facts`` for JSON, ``text`` for the terminal; ``code`` 1 if checked data has errors."""

    facts: dict[str, Any]
    text: str
    code: Literal[0, 1] = 0


def _bands(_: object, tokens: Sequence[Token]) -> tuple[str, ...] | None:
    """``4,3,2`` or ``red,green,blue`` as a tuple."""
    return tuple(tokens[0].value.split(",")) if tokens[0].value else None


Bands = Annotated[
    tuple[int | str, ...] | None, Parameter(converter=_bands, n_tokens=1, consume_multiple=False, metavar="BANDS")
]


def _area(_: object, tokens: Sequence[Token]) -> tuple[float, ...] | str:
    """``west,south,east,north`` as numbers; else the name of a file."""
    try:
        return tuple(float(part) for part in tokens[0].value.split(","))
    except ValueError:
        return tokens[0].value


Area = Parameter(converter=_area, n_tokens=1, consume_multiple=False, allow_leading_hyphen=True, metavar="AREA")


def settings_of(config: dict[str, str] | None) -> dict[str, Any]:
    """Parse settings of a network, named with dashes or underscores: JSON where it is JSON, else text."""
    parsed: dict[str, Any] = {}
    for name, value in (config or {}).items():
        with suppress(ValueError):
            value = json.loads(value)
        parsed[name.replace("-", "_")] = value
    return parsed
