"""Labels that a model doubts are named by the window that they are in."""

from __future__ import annotations

import json
from pathlib import Path

from rasterio.windows import Window

from page_support import copy_banepa
from regard.doctor.audit import audit
from regard.doctor.suspects import with_suspects
from regard.reports.audit import write_page
from support import tiny


def test_each_window_of_a_scene_has_its_own_name_place_and_picture(tmp_path: Path) -> None:
    copy_banepa(tmp_path, Window(512, 640, 128, 128))
    described = json.loads((tmp_path / "labels.json").read_text()) | {"block": 64, "window": 64}
    (tmp_path / "labels.json").write_text(json.dumps(described))
    checked = audit(tmp_path / "labels.json", progress=False)
    found = with_suspects(checked, tiny(classes=["other", "building"]), progress=False)
    doubted = [one for one in found.findings if one.kind in ("highest loss", "doubtful labels")]
    assert {one.files for one in doubted} == {(f"ortho_{top}_{left}",) for top in (0, 64) for left in (0, 64)}
    for one in doubted:
        _, top, left = one.files[0].split("_")
        assert f"(from row {top}, column {left})" in one.message
    pictures = write_page(found, tmp_path / "page.html").read_text().split("data:image/jpeg;base64,")[1:]
    assert len({picture.partition('"')[0] for picture in pictures}) == len(doubted)
