"""Whether `regard predict --certain` keeps its promise on ground that it was not calibrated on.

    python -m experiments.certain.splits            50 splits by blocks of each data set: the table of README.md

Half of the blocks of ground, at random, give the temperature and the promises; the others say how many of the pixels
that are called certain are wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import regard
from regard.assessment.calibrate import Scored, fitted, scored_pixels
from regard.assessment.certainty import promises
from regard.checkpoints.file import bundled

SPLITS = 50
ERRORS = (0.02, 0.05, 0.10)
FOLDER = bundled()["buildings-s"].parent
CASES = {
    "Banepa (buildings-s)": ("buildings-s", FOLDER / "banepa" / "labels.json", ("train", "val")),
    "Dubai, held out (dubai-s)": ("dubai-s", FOLDER / "city", ("val",)),
}


def halves(scored: Scored) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Which pixels calibrate, and which judge."""
    blocks = np.unique(scored.block)
    for seed in range(SPLITS):
        chosen = np.random.default_rng(seed).permutation(blocks)[: len(blocks) // 2]
        first = np.isin(scored.block, chosen)
        yield first, ~first


def realised(scored: Scored, first: np.ndarray, rest: np.ndarray) -> list[tuple[float, float]]:
    """For each error that is promised: the share of the pixels that are certain, and of these the share wrong."""
    temperature = fitted(scored.scores[first], scored.labels[first])
    best = (scored.scores / temperature).softmax(dim=1).max(dim=1)
    confidence, right = best.values.numpy(), (best.indices == scored.labels).numpy()
    found = promises(confidence[first], right[first], scored.block[first], scored.weight[first])
    judged = []
    for error in ERRORS:
        level = min((promise.confidence for promise in found if promise.error <= error), default=2.0)
        certain = confidence[rest] >= level
        weight = scored.weight[rest]
        wrong = (weight * certain * ~right[rest]).sum() / max((weight * certain).sum(), 1)
        judged.append((float((weight * certain).sum() / weight.sum()), float(wrong)))
    return judged


def main() -> None:
    """The table."""
    print("| data | blocks | wrong, % | promised, % | certain, % | of these wrong, mean, % | largest, % | kept of 50 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, (model, data, splits) in CASES.items():
        network, labelled = regard.load(model), regard.folder(data)
        with torch.inference_mode():
            pairs = [pair for split in splits for pair in labelled.splits.get(split, ())]
            scored = scored_pixels(network, labelled, pairs)
        wrong = float((scored.scores.argmax(dim=1) != scored.labels).double().numpy() @ scored.weight)
        facts = f"| {name} | {len(np.unique(scored.block))} | {100 * wrong / scored.weight.sum():.1f} |"
        judged = np.array([realised(scored, first, rest) for first, rest in halves(scored)])
        for error, (certain, errors) in zip(ERRORS, judged.transpose(1, 2, 0), strict=True):
            kept = int((errors <= error).sum())
            print(
                f"{facts} {100 * error:.0f} | {100 * certain.mean():.0f} | {100 * errors.mean():.2f} | "
                f"{100 * errors.max():.2f} | {kept} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
