"""Whether numbers too small for float32's full precision slow a trained network down.

    python -m benchmarks denormals dubai-s DATA/dubai

One val image, one thread, processor time with and without such numbers set to zero, interleaved.
"""

from __future__ import annotations

from statistics import median

import torch

import regard
from benchmarks import parser
from benchmarks.measure import spent
from regard.inference.scores import prepare


def main(arguments: list[str]) -> None:
    options = parser("denormals", __doc__)
    options.add_argument("model")
    options.add_argument("data", help="a folder of labelled images")
    given = options.parse_args(arguments)
    measure(given.model, given.data)


def measure(name: str, root: str, *, pairs: int = 7, side: int = 416) -> None:
    torch.set_num_threads(1)
    model, data = regard.load(name), regard.folder(root)
    sample = data.read(data.split("val")[0], expected=model.bands)
    image = prepare(sample.image, sample.valid, model.scaling)[None, :, :side, :side]
    ratios = []
    with torch.inference_mode():
        model.logits(image)
        for _ in range(pairs):
            torch.set_flush_denormal(False)
            kept = spent(lambda: model.logits(image))
            torch.set_flush_denormal(True)
            ratios.append(kept / spent(lambda: model.logits(image)))
    print(f"{name}: {median(ratios):.2f} times as fast without them ({min(ratios):.2f} to {max(ratios):.2f})")
