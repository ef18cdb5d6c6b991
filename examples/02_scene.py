"""Map a georeferenced scene; the map opens in a GIS with colours and class names, next to its confidence."""

import sys
from importlib import resources
from pathlib import Path

import rasterio

import regard

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
scene = Path(str(resources.files("regard") / "bundled" / "globe" / "americas_atlantic.tif"))

model = regard.load("globe-s")
path = regard.predict(model, scene, out=out / "map.tif", confidence=out / "confidence.tif", tile=512, overlap=128)

with rasterio.open(path) as land_cover:
    print(land_cover.crs, land_cover.shape, land_cover.tags()["regard_classes"])
