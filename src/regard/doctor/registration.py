"""Whether a mask lies where its image says: by the colours that each class has in the whole data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

SIDE = 128  # cells of the longer side
REACH = 24  # cells that a mask is shifted at most
GAIN = 0.04  # nats per cell that another place must be better by
SHARP = 0.04  # nats per cell that it must stand out by from places 5 cells away
FLOOR = 0.02  # probability that any class keeps


class Small(NamedTuple):
    """An image in cells: its bands and roughness, and the label at each cell's middle, -1 for none."""

    features: Float[np.ndarray, "h w f"]
    labels: Int[np.ndarray, "h w"]


class Colours(NamedTuple):
    """A normal distribution of the features of each class."""

    means: Float[np.ndarray, "k f"]
    inverses: Float[np.ndarray, "k f f"]
    log_scales: Float[np.ndarray, " k"]


class Place(NamedTuple):
    """Where a mask fits better than where it lies: shifted, in shares of the longer side, or turned."""

    gain: float
    down: float
    right: float
    turn: str


TURNS = {
    "upside down": lambda x: x[..., ::-1, :],
    "mirrored": lambda x: x[..., ::-1],
    "turned by 180 degrees": lambda x: x[..., ::-1, ::-1],
    "turned by 90 degrees": lambda x: np.rot90(x, 1, (-2, -1)),
    "turned by 270 degrees": lambda x: np.rot90(x, 3, (-2, -1)),
    "transposed": lambda x: np.swapaxes(x, -2, -1),
}


def learn_colours(smalls: Sequence[Small], classes: int) -> Colours:
    """The mean and covariance of the features of each class; of all classes where one has too few cells."""
    features = np.concatenate([small.features[small.labels >= 0] for small in smalls]).astype(np.float64)
    labels = np.concatenate([small.labels[small.labels >= 0] for small in smalls])
    parts = [features[labels == label] for label in range(classes)]
    parts = [part if len(part) > 4 * features.shape[1] else features for part in parts]
    floor = np.diag(features.var(axis=0) * 1e-3 + 1e-12)
    covariances = np.stack([np.cov(part.T) + floor for part in parts])
    means = np.stack([part.mean(axis=0) for part in parts])
    return Colours(means, np.linalg.inv(covariances), np.linalg.slogdet(covariances)[1])


def better_place(small: Small, colours: Colours) -> Place | None:
    """A shift or a turn of the mask that fits the image clearly better, if there is one."""
    evidence = _evidence(small.features, colours)
    hot = np.stack([small.labels == label for label in range(len(evidence))]).astype(np.float64)
    if np.count_nonzero(hot.sum(axis=(1, 2))) < 2:
        return None
    here = (evidence * hot).sum() / hot.sum()
    alike = {name: turn(hot) for name, turn in TURNS.items()}
    fits = {name: (evidence * hot).sum() / hot.sum() for name, hot in alike.items() if hot.shape == evidence.shape}
    turn = max(fits, key=lambda name: fits[name])
    if fits[turn] - here > GAIN:
        return Place(fits[turn] - here, 0, 0, turn)
    return _shift(evidence, hot)


def _evidence(features: Float[np.ndarray, "h w f"], colours: Colours) -> Float[np.ndarray, "k h w"]:
    """The log probability of each class at each cell from the colours alone."""
    away = features[None].astype(np.float64) - colours.means[:, None, None]
    distance = np.einsum("khwi,kij,khwj->khw", away, colours.inverses, away)
    fit = -0.5 * (distance + colours.log_scales[:, None, None])
    shares = np.exp(fit - fit.max(axis=0))
    return np.log(shares / shares.sum(axis=0) + FLOOR)


def _shift(evidence: Float[np.ndarray, "k h w"], hot: Float[np.ndarray, "k h w"]) -> Place | None:
    height, width = evidence.shape[1:]
    fits = _fits(evidence, hot)
    row, column = np.unravel_index(fits.argmax(), fits.shape)
    down, right = int(row) - REACH, int(column) - REACH
    rows, columns = np.mgrid[: 2 * REACH + 1, : 2 * REACH + 1]
    ring = np.maximum(abs(rows - row), abs(columns - column)) == 5
    gain, sharp = fits[row, column] - fits[REACH, REACH], fits[row, column] - fits[ring].max()
    if max(abs(down), abs(right)) < 2 or gain < GAIN or sharp < SHARP:
        return None
    return Place(float(gain), down / max(height, width), right / max(height, width), "")


def _fits(evidence: Float[np.ndarray, "k h w"], hot: Float[np.ndarray, "k h w"]) -> Float[np.ndarray, "s s"]:
    """The mean evidence for the labels of the mask moved by up to ``REACH`` cells: a correlation, by Fourier."""
    size = [length + 2 * REACH for length in evidence.shape[1:]]
    shifts = np.ix_(*[np.arange(-REACH, REACH + 1)] * 2)
    spectrum = np.fft.rfft2(hot, size).conj()
    total = np.fft.irfft2((np.fft.rfft2(evidence, size) * spectrum).sum(axis=0), size)
    cells = np.fft.irfft2(np.fft.rfft2(np.ones(evidence.shape[1:]), size) * spectrum.sum(axis=0), size)
    enough = cells[shifts] > 0.5 * hot.sum()
    return np.where(enough, total[shifts] / np.maximum(cells[shifts], 1), -np.inf)
