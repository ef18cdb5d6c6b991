"""The application: its name, how every verb answers, and the types of arguments that verbs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import App, Parameter

from regard._version import __version__

EPILOGUE = (
    "Every verb also takes --json (one object on standard output) and --debug (a stack trace when it fails). "
    "Exit codes: 0 done, 1 failed, 2 wrong usage; 128 + signal where a signal ended it."
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


def _no_image(_: object, name: str | None) -> None:
    if name is not None and Path(name).suffix.lower() in (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".jp2"):
        raise ValueError(f"{name} is an image; the model comes first, then the image.")


Model = Annotated[str, Parameter(validator=_no_image)]


class Answer(NamedTuple):
    """The result of a verb: ``facts`` for machines, ``text`` for people; ``code`` is 1 if checked data has errors."""

    facts: dict[str, Any]
    text: str
    code: Literal[0, 1] = 0


def bands_of(text: str | None) -> tuple[str, ...] | None:
    """``4,3,2`` or ``red,green,blue`` as a tuple."""
    return tuple(text.split(",")) if text else None


Bands = Annotated[
    tuple[int | str, ...] | None,
    Parameter(
        converter=lambda _, tokens: bands_of(tokens[0].value), n_tokens=1, consume_multiple=False, metavar="BANDS"
    ),
]


def base_of(options: Any) -> Any:
    """The options as the class that declares them, of a class that only says how they are typed."""
    return type(options).__bases__[0](**vars(options))


def settings_of(config: dict[str, str] | None) -> dict[str, Any]:
    """Settings of a network as they are typed, with dashes or underscores: JSON where it is JSON, else text."""
    parsed: dict[str, Any] = {}
    for name, text in (config or {}).items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        parsed[name.replace("-", "_")] = value
    return parsed
