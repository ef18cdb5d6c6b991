"""The mutants as data: one file a room, each entry one change of the source and the tests that must notice it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "regard"
LISTS = Path(__file__).parent


@dataclass(frozen=True)
class Mutant:
    """One change: ``old``, which occurs once in ``file`` of ``src/regard``, becomes ``new``."""

    room: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # paths in the repository, as pytest takes them

    def fault(self, source: Path = SOURCE) -> str:
        """Why it cannot be applied, or nothing."""
        path = source / self.file
        if not path.is_file():
            return f"{self.file} does not exist"
        found = path.read_text(encoding="utf-8").count(self.old)
        missing = [test for test in self.tests if not (ROOT / test.partition("::")[0]).exists()]
        if found != 1:
            return f"its old text occurs {found} times in {self.file}; once is needed"
        if self.old == self.new:
            return "it changes nothing"
        if missing or not self.tests:
            return f"tests that do not exist: {', '.join(missing) or 'none are named'}"
        return ""

    def text(self, source: Path = SOURCE) -> str:
        """The whole file, changed."""
        return (source / self.file).read_text(encoding="utf-8").replace(self.old, self.new)


def rooms() -> list[str]:
    """The rooms that have a list."""
    return sorted(path.stem for path in LISTS.glob("*.toml"))


def read(room: str) -> list[Mutant]:
    """The mutants of one room."""
    entries = tomllib.loads((LISTS / f"{room}.toml").read_text(encoding="utf-8"))["mutant"]
    return [_mutant(room, **entry) for entry in entries]


def _mutant(room: str, *, tests: str | list[str], **entry: str) -> Mutant:
    names = [tests] if isinstance(tests, str) else tests
    return Mutant(room, tests=tuple(f"tests/{name}" for name in names), **entry)
