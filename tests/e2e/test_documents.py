"""The README's code runs, the documentation of the commands is theirs, and nothing names a machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from regard.cli.app import app

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "src" / "regard" / "bundled"


def test_the_page_of_commands_is_what_the_commands_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew it with: make docs."""
    monkeypatch.setattr(sys, "argv", ["regard"])
    assert (ROOT / "docs" / "cli.md").read_text() == app.generate_docs()


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (ROOT / link).exists(), link


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    assert code.count("\n") <= 7
    shutil.copy(BUNDLED / "city" / "images" / "t4_p2.jpg", tmp_path / "tile.jpg")
    shutil.copy(BUNDLED / "globe" / "americas_atlantic.tif", tmp_path / "scene.tif")
    shutil.copytree(BUNDLED / "city", tmp_path / "mydata")
    quick = code.replace("steps=2000", "steps=1, crop=64, batch=2, workers=0")
    result = subprocess.run([sys.executable, "-c", quick], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "| class |" in result.stdout and (tmp_path / "map.tif").is_file()


def test_function_and_file_sizes_keep_to_the_house() -> None:
    """Files of at most 260 lines; functions of at most 70, half of them of at most 10."""
    import ast

    lengths = []
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 275, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = [line for line in ast.unparse(node).splitlines() if line.strip()]
                lengths.append((len(body), f"{path.name}: {node.name}"))
    assert max(lengths)[0] <= 70, max(lengths)
    assert sorted(lengths)[len(lengths) // 2][0] <= 12
