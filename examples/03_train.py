"""Train a small network on a folder of images and masks, score it, and write a report."""

import sys
from importlib import resources
from pathlib import Path

import regard

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 100
data = regard.folder(Path(str(resources.files("regard") / "bundled" / "city")))

model = regard.create("danet", backbone="resnet18", classes=data.classes, width=64)
run = regard.train(model, data, out / "run", steps=steps, batch=4, crop=128, rot90=True, evaluate_every=steps)

print(run.scores.table())
regard.report(run, out / "report.html")
