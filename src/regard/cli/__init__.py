"""The command line ``regard``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json as jsons
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from cyclopts import CycloptsError
from pydantic import ValidationError

from regard.classes import first_complaint
from regard.cli import assessment, evaluation, images, maps, models, training  # noqa: F401 (they register their commands)
from regard.cli.app import RENAMED, Answer, app, misplaced
from regard.errors import ConfigError, LicenceWarning, RegardError, SceneWarning, Stopped, UnknownName, visible

INTERRUPTED = 128  # plus the signal's number, as in shells


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    json, debug = "--json" in tokens, "--debug" in tokens
    received = [signal.SIGINT]

    def end(number: int, _: object) -> None:
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    warnings.showwarning = _tell
    code = 0
    try:
        code = _run([token for token in tokens if token not in ("--json", "--debug")], json=json, debug=debug)
        code = 128 + received[-1] if code == INTERRUPTED else code
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe: head, less
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code)


def _run(tokens: list[str], *, json: bool, debug: bool) -> int:
    try:
        answer = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        command = f" {tokens[0]}" if tokens and tokens[0] in app else ""
        names = [token.partition("=")[0] for token in tokens]
        renamed = [f"{name} is now {RENAMED[name]}." for name in names if name in RENAMED]
        reason = " ".join(renamed) or _plain(error)
        advice = misplaced(tokens, reason) or f"See: regard{command} --help"
        return _fail("UsageError", f"{reason} {advice}", 2, json)
    except KeyboardInterrupt:
        again = f"To resume a map or a training, run: {shlex.join(['regard', *tokens])}"
        return _fail("Interrupted", f"stopped; no incomplete file was left. {again}", INTERRUPTED, json)
    except Stopped as stop:
        message = f"{stop} Run this to resume: {shlex.join(['regard', *tokens])}"
        return _fail("Stopped", message, 128 + stop.signal, json)
    except Exception as error:
        if debug or isinstance(error, BrokenPipeError):
            raise
        wrong = isinstance(error, ConfigError | UnknownName)  # wrong values that the parser does not see
        message = str(error)
        if isinstance(error, OSError):  # of the machine, wherever it was met
            message = f"{error.filename or 'a file'}: {error.strerror or error}. Look at the disk, then run it again."
        elif not isinstance(error, RegardError):
            message = f"{' '.join(message.split())} This is a bug in regard; --debug shows where."
        return _fail(type(error).__name__, message, 2 if wrong else 1, json)
    if isinstance(answer, Answer):
        print(jsons.dumps(answer.facts) if json else visible(answer.text))
        return answer.code
    return 0


def _plain(error: CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        where, why = first_complaint(cause)
        return f"--{where.replace('_', '-')} {cause.errors()[0]['input']}: {why}." if where else f"{why}."
    return " ".join(str(error).split()).replace(" requires an argument.", " is missing.")


def _tell(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning on standard error in one line; where in the code it arose is of use in those of other packages.

    That a raster has no georeference is nothing to tell; filters of warnings do not hold it back in every thread.
    """
    if category.__name__ == "NotGeoreferencedWarning":
        return
    own = issubclass(category, SceneWarning | LicenceWarning)
    print(
        f"warning: {message}" if own else warnings.formatwarning(message, category, filename, lineno), file=sys.stderr
    )


def _fail(kind: str, message: str, code: int, json: bool) -> int:
    if json:
        print(jsons.dumps({"error": {"kind": kind, "message": message}}))
    print(f"{kind}: {message}", file=sys.stderr)
    return code
