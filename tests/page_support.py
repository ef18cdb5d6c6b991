"""The commands of a page: those after a ``$`` in its blocks, in their order, and what stands after each."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from regard.training.callbacks import Bookkeeping
from support import write_tif

ROOT = Path(__file__).parents[1]
BANEPA = ROOT / "src" / "regard" / "bundled" / "banepa"


class Shown(NamedTuple):
    """A command of regard on a page."""

    arguments: list[str]
    output: str

    @property
    def is_interrupted(self) -> bool:
        return "^C" in self.output


def commands_of(page: str, shorter: dict[str, str]) -> list[Shown]:
    """The commands of a page with each text of ``shorter`` replaced; each of these must be on the page."""
    text = (ROOT / page).read_text()
    blocks = "".join(re.findall(r"``` *(?:console)?\n( *\$ .*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    for long, short in shorter.items():
        assert long in blocks, f"{page} no longer has {long!r}"
        blocks = blocks.replace(long, short)
    parts = [part.partition("\n") for part in re.split(r"^ *\$ ", blocks, flags=re.MULTILINE)[1:]]
    split = [(shlex.split(line, comments=True), output) for line, _, output in parts]
    return [Shown(words[1:], output) for words, output in split if words[0] == "regard"]


def copy_banepa(folder: Path, window: Window | None = None) -> None:
    """The sample of Banepa, or a window of its image with the same labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("buildings.geojson", "mapped.geojson", "labels.json"):
        (folder / name).write_bytes((BANEPA / name).read_bytes())
    with rasterio.open(BANEPA / "ortho.tif") as image:
        window = window or Window(0, 0, image.width, image.height)
        grid = {"crs": image.crs, "transform": image.transform @ Affine.translation(window.col_off, window.row_off)}
        values: np.ndarray = image.read(window=window)
    write_tif(folder / "ortho.tif", values, **grid)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C after that step of a training in this process."""
    keeping = Bookkeeping.on_train_batch_end

    def interrupted(self: Bookkeeping, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == step:
            signal.raise_signal(signal.SIGINT)
        keeping(self, trainer, *rest)

    monkeypatch.setattr(Bookkeeping, "on_train_batch_end", interrupted)
