"""Progress where there is no terminal: a line every ten seconds and at the end, with the rate of this run alone."""

from __future__ import annotations

import pytest

from regard import progress
from regard.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as its only element."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_ten_seconds_and_one_at_the_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("window", 40, start=10, unit=" tiles") as bar:
        for seconds in (4.0, 5.9, 0.1, 9.9, 0.2):
            clock[0] += seconds
            bar.advance(5, facts="2 Mpx/s")
        bar.note("one file is empty")
        clock[0] += 0.5
        bar.advance(5)
    assert capsys.readouterr().err.splitlines() == [
        "window 25/40 tiles  2 Mpx/s  0.2 min left",
        "window 35/40 tiles  2 Mpx/s  0.1 min left",
        "one file is empty",
        "window 40/40 tiles",
    ]


def test_the_rate_is_that_of_this_run(clock: list[float]) -> None:
    bar = Progress("step", 100, start=60, enabled=False)
    clock[0] += 4
    bar.advance(8)
    assert bar.rate() == 2.0 and bar.rate(fresh=4) == 3.0


def test_nothing_is_said_where_nothing_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("step", 1, enabled=False) as bar:
        bar.advance()
        bar.note("hidden")
    assert capsys.readouterr() == ("", "")
