"""How well single pixels tell the classes apart: a normal distribution for each class over the bands, no network.

python -m experiments.landsat.pixels OUT/fields.json
"""

from __future__ import annotations

import sys

import numpy as np

from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.evaluation.scores import Scores


def pixels(data: LabelledData, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The labelled pixels of a split, ``(n, bands)``, and their labels."""
    samples = [data.read(pair) for pair in data.split(split)]
    known = [one.labels != data.classes.ignore_index for one in samples]
    values = [one.image[:, here].T.astype(float) for one, here in zip(samples, known, strict=True)]
    return np.concatenate(values), np.concatenate([one.labels[here] for one, here in zip(samples, known, strict=True)])


data = folder(sys.argv[1])
values, labels = pixels(data, "train")
seen, truth = pixels(data, "val")
likely = []
for label in range(len(data.classes)):
    mine = values[labels == label]
    spread, away = np.cov(mine.T) + 2 * np.eye(mine.shape[1]), seen - mine.mean(axis=0)
    likely.append(-np.einsum("ij,jk,ik->i", away, np.linalg.inv(spread), away) - np.linalg.slogdet(spread)[1])
confusion = np.zeros((len(data.classes),) * 2, dtype=np.int64)
np.add.at(confusion, (truth, np.argmax(likely, axis=0)), 1)
print(Scores(data.classes, confusion, confusion[None]).table())
