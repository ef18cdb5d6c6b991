"""Put a trained model into the package: its best weights as float16, with data, licence and credit on its card.

python -m experiments.bundled.publish OUT/dubai-s dubai-s
"""

from __future__ import annotations

import sys
from pathlib import Path

from regard.checkpoints.file import load, save

BUNDLED = Path(__file__).parents[2] / "src" / "regard" / "bundled"
FACTS = {
    "dubai-s": {
        "origin": "Trained by regard on 'Semantic segmentation of aerial imagery' (Dubai), Humans in the Loop; "
        "scores on val: part 2 of the tiles and two whole tiles' parts. Command: experiments/bundled/train.sh.",
        "licence": "Apache-2.0 (weights); data CC0 1.0",
        "credit": "Humans in the Loop for the Mohammed Bin Rashid Space Centre; EfficientNet-Lite0 by Google",
        "ground_resolution": None,
    },
    "globe-s": {
        "origin": "Trained by regard on NASA Blue Marble Next Generation with MODIS MCD12C1 land cover of 2019; "
        "scores on 6 blocks of 30 x 30 degrees. Command: experiments/bundled/train.sh.",
        "licence": "Apache-2.0 (weights); NASA data, public domain",
        "credit": "NASA Earth Observatory (Blue Marble, Reto Stockli); NASA LP DAAC (MCD12C1, Friedl & Sulla-Menashe)",
        "ground_resolution": 7400.0,
    },
    "buildings-s": {
        "origin": "Trained by regard on drone images of Banepa (Nepal) and Zanzibar with footprints of OpenStreetMap; "
        "scores on Kampala, which the training never saw, 0.3 to 0.075 m per pixel. "
        "Command: experiments/buildings/train.sh.",
        "licence": "Apache-2.0 (weights); images CC-BY-4.0, footprints ODbL-1.0",
        "credit": "OpenAerialMap contributors, HOT; © OpenStreetMap contributors; EfficientNet-Lite0 by Google",
        "ground_resolution": 0.1,
    },
}


def main() -> None:
    run, name = Path(sys.argv[1]), sys.argv[2]
    model = load(run / "best.safetensors")
    model.card = model.card.model_copy(update=FACTS[name])
    target = save(model, BUNDLED / f"{name}.safetensors", half=True)
    print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB, {model.card.scores}")


if __name__ == "__main__":
    main()
