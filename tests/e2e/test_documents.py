"""The code of the README and the pages runs, and the documentation of the commands is theirs."""

from __future__ import annotations

import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
from rasterio.windows import Window

from regard.cli.app import app
from support import write_tif

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "src" / "regard" / "bundled"
PAGES = ("README.md", "docs/index.md", "docs/scenes.md", "docs/data.md", "docs/training.md", "docs/python.md")
TEXTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "experiments/**/README.md")
    for path in ROOT.glob(pattern)
)
QUICK = {  # what would take long or a network
    "steps=2000": "steps=1, crop=64, batch=2, workers=0",
    "steps=20_000": "steps=1, crop=64, batch=2, workers=0",
    'backbone="resnet50"': 'backbone="test_resnet"',
    "pretrained=True": "pretrained=False",
}
CORNER = Window(0, 0, 300, 200)  # of the bundled scene
NOT_HERE = "LandCoverAI"  # a data set that is not here


def python_of(page: str) -> str:
    """All Python of a page, as one program."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    code = "\n".join(block for block in blocks if NOT_HERE not in block)
    for slow, quick in QUICK.items():
        code = code.replace(slow, quick)
    return code


def test_the_page_of_commands_is_what_the_commands_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew it with: make docs."""
    monkeypatch.setattr(sys, "argv", ["regard"])
    assert (ROOT / "docs" / "cli.md").read_text() == app.generate_docs()


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link


def names_in(page: str) -> list[str]:
    """The dotted names of a page in ``code``; of a changelog the new ones."""
    text = (ROOT / page).read_text()
    if page == "CHANGELOG.md":
        text = "\n".join(row.split("|")[2] for row in text.splitlines() if row.startswith("| "))
    return re.findall(r"(?:`|::: )(regard(?:\.[A-Za-z]\w+)+)", text)


@pytest.mark.parametrize("page", ["CHANGELOG.md", *TEXTS])
def test_the_names_in_a_page_exist(page: str) -> None:
    for name in names_in(page):
        pkgutil.resolve_name(name)


def test_the_new_modules_in_the_changelog_exist() -> None:
    modules = {path.stem for path in (ROOT / "src" / "regard").rglob("*.py")}
    named = re.findall(r"→ `([\w.]+)`", (ROOT / "CHANGELOG.md").read_text())
    assert {name.rpartition(".")[2] for name in named} - modules == set()


@pytest.mark.parametrize("page", TEXTS)
def test_the_files_that_a_page_names_exist(page: str) -> None:
    roots = (ROOT, ROOT / "src" / "regard", (ROOT / page).parent)
    for path in re.findall(r"`((?:\w+/)+\w+\.(?:py|sh|json|md|csv\.gz))\b", (ROOT / page).read_text()):
        assert path.startswith("runs/") or any((root / path).exists() for root in roots), path


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    first = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0]
    assert len(text.splitlines()) <= 150 and first.count("\n") <= 7


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    shutil.copy(BUNDLED / "city" / "images" / "t4_p2.jpg", tmp_path / "tile.jpg")
    with rasterio.open(BUNDLED / "globe" / "americas_atlantic.tif") as globe:
        write_tif(tmp_path / "scene.tif", globe.read(window=CORNER), crs=globe.crs, transform=globe.transform)
    shutil.copytree(BUNDLED / "city", tmp_path / "mydata")
    run = [sys.executable, "-c", python_of(page)]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    if page == "README.md":
        assert "| class |" in result.stdout and (tmp_path / "map.tif").is_file()
