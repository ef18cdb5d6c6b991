"""Predict a photograph: its class map, the share of each class, and an overlay in the colours of the classes."""

import sys
from importlib import resources
from pathlib import Path

import regard

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
tile = Path(str(resources.files("regard") / "bundled" / "city" / "images" / "t4_p2.jpg"))

model = regard.load("dubai-s")
result = regard.predict(model, tile)

for name in model.classes.names:
    print(f"{name:12} {100 * result.share(name):5.1f} %")
out.mkdir(parents=True, exist_ok=True)
result.save(out / "labels.png")
result.overlay().save(out / "overlay.png")
