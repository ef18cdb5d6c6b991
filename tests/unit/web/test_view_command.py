"""The command view: what it says before it starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import regard.cli as cli
from regard.checkpoints.file import save
from support import tiny, write_tif
from web_support import picture


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "regard.web.serve", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["view", "globe-s", "scene.tif"])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith(
        "MissingExtra: uvicorn is not installed; the viewer needs it. Do: pip install 'regard[web]'."
    )


@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # of old NumPy with pyproj
def test_what_cannot_be_shown_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(tiny(), tmp_path / "m.safetensors")
    scene = write_tif(tmp_path / "s.tif", picture((40, 40)))
    for arguments, words, code in (
        ([tmp_path / "none.tif"], "none.tif does not exist", 1),
        ([scene, "--tile", 100], "tile 100 and overlap 256 must be multiples of 32", 2),
        ([scene, "--labels", write_tif(tmp_path / "l.tif", picture((9, 9))[:1])], "Give files on the same grid", 1),
        ([scene, "--port", 70_000], "cannot listen at 127.0.0.1, port 70000", 2),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["view", str(model), *map(str, arguments), "--no-browser"])
        error = capsys.readouterr().err
        assert stop.value.code == code and words in error and error.count("\n") == 1, error
