"""The lists of mutants keep up with the source. Run them with: python -m tests.mutants."""

from __future__ import annotations

from collections import Counter

import pytest

from mutants.lists import Mutant, read, rooms

MUTANTS = [mutant for room in rooms() for mutant in read(room)]


@pytest.mark.parametrize("room", rooms())
def test_every_mutant_applies_to_the_source(room: str) -> None:
    assert {mutant.name: mutant.fault() for mutant in read(room) if mutant.fault()} == {}


@pytest.mark.parametrize("room", rooms())
def test_every_mutant_is_a_program(room: str) -> None:
    for mutant in read(room):
        compile(mutant.text(), mutant.file, "exec")


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert [
        name for name, count in Counter((mutant.room, mutant.name) for mutant in MUTANTS).items() if count > 1
    ] == []


def test_a_mutant_that_does_not_apply_says_why() -> None:
    fine = MUTANTS[0]
    entry = {"room": fine.room, "name": fine.name, "file": fine.file, "old": fine.old, "new": fine.new}
    assert Mutant(**entry, tests=fine.tests).fault() == ""
    assert "does not exist" in Mutant(**{**entry, "file": "gone.py"}, tests=fine.tests).fault()
    assert "occurs 0 times" in Mutant(**{**entry, "old": "no such text"}, tests=fine.tests).fault()
    assert "changes nothing" in Mutant(**{**entry, "new": fine.old}, tests=fine.tests).fault()
    assert "tests/gone.py" in Mutant(**entry, tests=("tests/gone.py",)).fault()
