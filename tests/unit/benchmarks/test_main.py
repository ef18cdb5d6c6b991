"""``python -m benchmarks`` names every program and runs the one that is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import benchmarks
from benchmarks.__main__ import PROGRAMS, help_text, main
from regard.errors import UnknownName

SHARED = {"__init__", "__main__", "attention_formula", "cases", "measure", "stand_ins"}
SHARED |= {"gpu_attention", "gpu_measure", "gpu_parts"}  # what the programs share


def test_every_file_is_a_program_or_shared() -> None:
    files = {path.stem for path in Path(benchmarks.__file__).parent.glob("*.py")}
    assert files == {*PROGRAMS.values()} | SHARED


def test_the_help_has_a_line_for_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    text = capsys.readouterr().out
    assert text.strip() == help_text().strip()
    assert all(f"{name}," in text or f"{name} " in text or f"{name}\n" in text for name in PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_says_what_it_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    about = importlib.import_module(f"benchmarks.{PROGRAMS[name]}").__doc__.splitlines()[0]
    assert about in " ".join(capsys.readouterr().out.split())


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match="viewer"):
        main(["viewr"])


def test_the_complexity_table_has_a_row_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    main(["complexity"])
    table = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [
        "ASPP",
        "DANet (position and channel attention)",
        "OCR",
        "OCR, scale 2",
        "OCR, scale 4",
    ]
