"""The style as XML, and as QGIS itself understands it where Debian's python3-qgis is installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from regard.classes import ClassMap
from regard.errors import OutputError
from regard.io.cog_writer import RasterWriter, label_layer, style_path, write_style

CLASSES = ClassMap(names=('a & "b"', "<water>", "höhe"), palette=((10, 20, 30), (200, 0, 0), (0, 0, 250)))
SYSTEM_PYTHON, QGIS = Path("/usr/bin/python3"), Path("/usr/lib/python3/dist-packages/qgis")
IN_QGIS = """
import json, sys
from qgis.core import QgsApplication, QgsRasterLayer
application = QgsApplication([], False)
application.initQgis()
layer = QgsRasterLayer(sys.argv[1], "map")
drawn = layer.renderer()
classes = drawn.classes() if drawn.type() == "paletted" else []
classes = [[found.value, found.color.name(), found.color.alpha(), found.label] for found in classes]
shown = drawn.block(1, layer.extent(), layer.width(), layer.height())
pixels = [[shown.color(row, column) for column in range(layer.width())] for row in range(layer.height())]
print(json.dumps({"type": drawn.type(), "classes": classes, "pixels": pixels}))
"""


def test_every_class_has_its_name_and_colour(tmp_path: Path) -> None:
    style = ElementTree.parse(write_style(tmp_path / "map.tif", CLASSES))
    entries = style.findall("pipe/rasterrenderer/colorPalette/paletteEntry")
    assert [(entry.get("value"), entry.get("label"), entry.get("color")) for entry in entries] == [
        ("0", 'a & "b"', "#0a141e"),
        ("1", "<water>", "#c80000"),
        ("2", "höhe", "#0000fa"),
    ]


def test_it_lies_beside_the_map(tmp_path: Path) -> None:
    written = write_style(tmp_path / "a.map.tif", CLASSES)
    assert written == style_path(tmp_path / "a.map.tif") == tmp_path / "a.map.qml"
    assert [path.name for path in tmp_path.iterdir()] == ["a.map.qml"]


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write to"):
        write_style(tmp_path / "file" / "map.tif", CLASSES)


@pytest.mark.slow
@pytest.mark.skipif(not QGIS.is_dir(), reason="QGIS's Python libraries (python3-qgis) are not installed")
def test_qgis_draws_the_classes_in_their_colours(tmp_path: Path) -> None:
    path, labels = tmp_path / "map.tif", np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
    with RasterWriter(path, label_layer(CLASSES, {}), labels.shape, crs="EPSG:32633") as writer:
        writer.write(0, labels)
    write_style(path, CLASSES)
    environment = {"PATH": "/usr/bin:/bin", "QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    command = [str(SYSTEM_PYTHON), "-c", IN_QGIS, str(path)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout
    drawn = json.loads(answer.splitlines()[-1])
    assert drawn["type"] == "paletted"
    assert drawn["classes"] == [
        [0, "#0a141e", 255, 'a & "b"'],
        [1, "#c80000", 255, "<water>"],
        [2, "#0000fa", 255, "höhe"],
    ]
    colours = [0xFF000000 | red << 16 | green << 8 | blue for red, green, blue in CLASSES.palette]
    assert drawn["pixels"] == [[colours[0], colours[1], colours[2]], [colours[2], 0, colours[0]]]
