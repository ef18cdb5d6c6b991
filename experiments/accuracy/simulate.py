"""How often the 95 % intervals of regard.accuracy hold the truth, on maps whose truth is known.

    python -m experiments.accuracy.simulate            2,000 samples a case: the table of README.md

A population is the pixels of a confusion matrix, mapped x reference: the sample of a stratum with so many pixels of
each reference class is a draw from the multivariate hypergeometric distribution, so no map has to be read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from regard.assessment.estimate import Estimate, LabelledSample, Z, estimate

SAMPLES = 2000
SIZES = (50, 100, 300)

# Confusion matrices in pixels, mapped x reference: `regard evaluate --json` of bundled models on what comes with them.
POPULATIONS = {
    # buildings-s on Banepa: building, other
    "buildings": np.array([[961_433, 170_659], [65_893, 899_167]]),
    # dubai-s on the held-out tiles: building, land, road, vegetation, water
    "Dubai": np.array(
        [[131_578, 68_070, 13_422, 18_781, 0], [6_953, 139_077, 12_376, 5_330, 7_595],
         [2_085, 24_366, 39_577, 1_908, 0], [1_086, 20_555, 2_623, 137_977, 5_013], [0, 51_296, 185, 3_880, 186_178]]
    ),
    # globe-s on Blue Marble, the classes of 1 % and more: forest, water, savanna, grassland, barren
    "Blue Marble": np.array(
        [[13_537, 2_092, 2_486, 163, 0], [2_286, 976_187, 6_455, 2_459, 117], [46_423, 6_430, 81_346, 13_035, 271],
         [1_703, 4_013, 20_570, 89_323, 4_374], [31, 4_229, 932, 4_669, 48_724]]
    ),
    # a class of 1 %, user's and producer's accuracy 80 %
    "rare class": np.array([[8_000, 2_000], [2_000, 988_000]]),
}  # fmt: skip


def allocated(pixels: np.ndarray, points: int, allocation: str) -> np.ndarray:
    """Points of each stratum, at least 10."""
    wanted = np.full(len(pixels), 1 / len(pixels)) if allocation == "equal" else pixels / pixels.sum()
    counts = np.maximum(10, np.round(points * wanted)).astype(int)
    counts[counts.argmax()] -= counts.sum() - points
    return counts


def samples(matrix: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> Iterator[LabelledSample]:
    """Labelled points of a population, again and again."""
    pixels = matrix.sum(axis=1)
    mapped = np.repeat(np.arange(len(counts)), counts)
    drawn = [rng.multivariate_hypergeometric(row, n, SAMPLES) for row, n in zip(matrix, counts, strict=True)]
    for draw in range(SAMPLES):
        reference = np.concatenate([np.repeat(np.arange(len(matrix)), part[draw]) for part in drawn])
        yield LabelledSample(mapped, mapped, reference, np.ones(len(mapped)), pixels, pixels.astype(float))


class Tally:
    """Of one figure: how often its interval held the truth, its bias in standard errors, and the mean width."""

    def __init__(self, truth: float) -> None:
        self.truth, self.held, self.values, self.widths = truth, 0, [], []

    def add(self, found: Estimate, k: int) -> None:
        if np.isnan(found.value[k]):
            return
        self.held += bool(found.low[k] <= self.truth <= found.high[k])
        self.values.append(found.value[k])
        self.widths.append(found.high[k] - found.low[k])

    @property
    def coverage(self) -> str:
        return f"{100 * self.held / len(self.values):.1f}"

    @property
    def bias(self) -> str:
        return f"{(np.mean(self.values) - self.truth) / np.std(self.values):+.2f}"


def case(name: str, points: int, allocation: str) -> list[str]:
    """A row of the table: overall accuracy, and user's and producer's accuracy and area of the first class."""
    matrix = POPULATIONS[name]
    total, rng = matrix.sum(), np.random.default_rng([points, len(name), len(allocation)])
    counts = allocated(matrix.sum(axis=1), points, allocation)
    shares = matrix[0, 0] / matrix[0].sum(), matrix[0, 0] / matrix[:, 0].sum()
    truths = (np.trace(matrix) / total, *shares, matrix[:, 0].sum(), matrix[:, 0].sum() / total)
    overall, users, producers, area, _ = tallies = [Tally(float(truth)) for truth in truths]
    for sample in samples(matrix, counts, rng):
        found = estimate(sample, len(matrix))
        parts = (found.overall, found.users, found.producers, found.area, found.share)
        for tally, part in zip(tallies, parts, strict=True):
            tally.add(part, 0)
    share, mapped = matrix[:, 0].sum() / total, matrix[0].sum() / total
    omitted = (counts[1:] * matrix[1:, 0] / matrix[1:].sum(axis=1)).sum()
    bias = max(abs(float(tally.bias)) for tally in (overall, users, area))
    width = 100 * np.mean(area.widths) / total
    simple = 100 * 2 * Z * np.sqrt(share * (1 - share) / points)
    held = [tally.coverage for tally in tallies]
    return [
        name, str(points), allocation, f"{omitted:.1f}", *held, f"{bias:.2f}", producers.bias, f"{width:.1f}",
        f"{simple:.1f}", f"{100 * (mapped - share):+.1f}",
    ]  # fmt: skip


HEADS = [
    "map", "points", "allocation", "omissions", "overall, %", "user's, %", "producer's, %", "area, %", "share, %",
    "bias", "producer's bias", "width", "simple random", "counting",
]  # fmt: skip


def table() -> str:
    """All rows in Markdown."""
    rows = [HEADS, ["---"] * 3 + ["---:"] * (len(HEADS) - 3)]
    for name in POPULATIONS:
        for allocation in ("equal", "proportional"):
            rows += [case(name, points, allocation) for points in SIZES]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())
