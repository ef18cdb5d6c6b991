"""The size of the source: files, functions, parameters, lines and import cycles of ``src/regard``.

python tests/house/house.py            the table, and everything that is above its limit
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp

SOURCE = Path(__file__).parents[2] / "src" / "regard"
SHORT, LONG, LONG_FUNCTION, PARAMETERS = 60, 260, 70, 7
PUBLIC = {
    "predict",
    "train",
    "evaluate",
    "explain",
    "report",
    "export",
    "load",
    "create",
    "convert",
    "polygons",
    "refine",
    "sample",
    "accuracy",
}  # and all of cli/


@dataclass(frozen=True)
class Function:
    """One function: its file, its length in lines from ``def`` to its end, its parameters without self."""

    file: str
    name: str
    lines: int
    parameters: int

    @property
    def is_public(self) -> bool:
        """Public functions and commands may take more parameters: each is an option with a name and a default."""
        return self.file.startswith("cli/") or self.name in PUBLIC


@dataclass(frozen=True)
class House:
    """All measures."""

    files: dict[str, int]  # outside __init__: lines
    functions: list[Function]
    lines: int  # of all files
    cycles: list[list[str]]

    @property
    def figures(self) -> dict[str, float]:
        """What `test_house` holds against its limits."""
        return {
            "files": len(self.files),
            "median lines of a file": statistics.median(self.files.values()),
            f"files below {SHORT} lines": len(self.short),
            f"files over {LONG} lines": len(self.long),
            "median lines of a function": statistics.median(function.lines for function in self.functions),
            f"functions over {LONG_FUNCTION} lines": len(self.long_functions),
            f"functions over {PARAMETERS} parameters": len(self.wide),
            "import cycles": len(self.cycles),
            "lines": self.lines,
        }

    @property
    def short(self) -> list[str]:
        return [f"{file}: {lines}" for file, lines in self.files.items() if lines < SHORT]

    @property
    def long(self) -> list[str]:
        return [f"{file}: {lines}" for file, lines in self.files.items() if lines > LONG]

    @property
    def long_functions(self) -> list[str]:
        return [
            f"{function.file}: {function.name}, {function.lines}"
            for function in self.functions
            if function.lines > LONG_FUNCTION
        ]

    @property
    def wide(self) -> list[str]:
        return [
            f"{function.file}: {function.name}, {function.parameters}"
            for function in self.functions
            if function.parameters > PARAMETERS and not function.is_public
        ]

    def subpackages(self) -> dict[str, tuple[int, int]]:
        """Files outside ``__init__`` and lines of each subpackage."""
        found: dict[str, tuple[int, int]] = {}
        for file, lines in self.files.items():
            name = file.rpartition("/")[0] or "(top level)"
            count, total = found.get(name, (0, 0))
            found[name] = (count + 1, total + lines)
        return found


def measure() -> House:
    """Read every source file once."""
    texts = {path.relative_to(SOURCE).as_posix(): path.read_text() for path in sorted(SOURCE.rglob("*.py"))}
    lengths = {file: len(text.splitlines()) for file, text in texts.items()}
    outside = {file: lines for file, lines in lengths.items() if not file.endswith("__init__.py")}
    functions = [function for file, text in texts.items() for function in functions_of(file, text)]
    return House(outside, functions, sum(lengths.values()), cycles())


def functions_of(file: str, text: str) -> Iterator[Function]:
    """Every function and method, nested ones too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            names = [name for name in names if name not in ("self", "cls")]
            yield Function(file, node.name, (node.end_lineno or node.lineno) - node.lineno + 1, len(names))


def cycles() -> list[list[str]]:
    """Modules that import each other, directly or through others; imports inside functions count."""
    graph = grimp.build_graph("regard", cache_dir=None, exclude_type_checking_imports=True)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    reached = {module: _reachable(module, imports) for module in imports}
    found: set[frozenset[str]] = set()
    for module, others in reached.items():
        if module in others:
            found.add(frozenset(other for other in others if module in reached[other]))
    return sorted(sorted(cycle) for cycle in found)


def _reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = set(imports[start])
    while ahead:
        module = ahead.pop()
        if module not in seen:
            seen.add(module)
            ahead |= imports[module]
    return seen


def main() -> None:
    """Print the subpackages, the figures and what is above a limit."""
    house = measure()
    for name, (count, lines) in house.subpackages().items():
        print(f"{name:24} {count:4} files {lines:6} lines")
    print()
    for name, figure in house.figures.items():
        print(f"{name:32} {figure:8g}")
    for title, items in (
        ("short files", house.short),
        ("long files", house.long),
        ("long functions", house.long_functions),
        ("functions with many parameters", house.wide),
        ("cycles", [" <-> ".join(cycle) for cycle in house.cycles]),
    ):
        print(f"\n{title}: {'; '.join(items) or 'none'}")


if __name__ == "__main__":
    main()
