"""The tree of errors and the hint for a mistyped name."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from unittest.mock import Mock

import pytest

import regard
from regard import cli, errors


def test_every_error_stands_in_the_tree_and_in_its_drawing():
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, Exception)]
    for one in classes:
        assert issubclass(one, errors.RegardError | UserWarning)
        assert re.search(rf"\b{one.__name__}\b", errors.__doc__ or ""), one.__name__
    assert len(classes) > 10


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("danett", "Did you mean 'danet'?"),
        ("danet-ocr", "Did you mean 'danet_ocr'?"),
        ("unet", "Known: danet, danet_ocr"),
    ],
)
def test_unknown_proposes_the_nearest(name: str, hint: str):
    error = errors.unknown("architecture", name, ["danet_ocr", "danet"])
    assert isinstance(error, errors.UnknownName)
    assert f"no architecture {name!r}" in str(error) and hint in str(error)


def test_unknown_among_very_many_lists_the_nearest():
    text = str(errors.unknown("backbone", "net51", [f"net{index}" for index in range(100) if index != 51]))
    assert text.count(", ") == errors.MOST_LISTED - 1 and "net5, " in text and text.endswith("and 83 more.")


def test_unknown_among_nothing():
    assert str(errors.unknown("model", "x", [])) == "no model 'x'. Known: none."


def test_axes_are_quoted():
    """``Float[Tensor, k]`` passes ruff and mypy, but names no axis: the shape would go unchecked."""
    root = Path(regard.__file__).parent
    bare = re.compile(r"\b(?:Float|Int|Bool|Shaped|UInt8)\[[\w.]+, [A-Za-z_]\w*\]")
    found = [f"{path.name}: {hit}" for path in root.rglob("*.py") for hit in bare.findall(path.read_text())]
    assert not found


def test_the_first_names_of_a_list():
    assert errors.listed(["a", "b"]) == "a, b" and errors.listed("abcd") == "a, b, c and 1 more"


def test_what_a_command_prints_moves_no_cursor_and_turns_no_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    foreign = "a\x1b[2J\u202eb\u2066 ü 漢字\n\tnext"
    monkeypatch.setattr(cli, "app", Mock(return_value=cli.Answer({"name": foreign}, foreign)))
    assert cli._run(["models"], json=False, debug=False) == 0
    assert capsys.readouterr().out == "a\\x1b[2J\\u202eb\\u2066 ü 漢字\n\tnext\n"
