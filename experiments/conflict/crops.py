"""Crops of images at half size, as a pure function of (seed, step), and the frozen backbone's maps of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regard

CROP, BATCH = 128, 4
Batch = tuple[Tensor, Tensor]  # images (b, 3, 128, 128) in 0..255, labels (b, 128, 128)


class Crops:
    """Training batches by step, and one fixed list of validation batches: six crops of each of about twelve images."""

    def __init__(self, root: Path, steps: int, device: str = "cpu") -> None:
        self.data, self.steps, self.device = regard.folder(root), steps, device
        pairs = self.data.split("val")
        self.train = [self._read(pair) for pair in self.data.split("train")]
        self.val = [self._read(pair) for pair in pairs[:: max(1, len(pairs) // 12)]]
        # photographs stay upright; aerial images are rotated by quarter turns
        self.rot90 = root.name != "camvid"

    def _read(self, pair: object) -> tuple[Tensor, Tensor]:
        sample = self.data.read(pair)
        image = F.avg_pool2d(torch.from_numpy(sample.image.astype(np.float32)), 2).to(torch.uint8)
        labels = torch.from_numpy(sample.labels[::2, ::2].astype(np.int64))
        return image, labels[: image.shape[1], : image.shape[2]]

    def batch(self, seed: int, step: int, *, shuffled: bool = True) -> Batch:
        views = [self._view(seed, BATCH * step + i, shuffled) for i in range(BATCH)]
        return self._stacked(views)

    def _view(self, seed: int, counter: int, shuffled: bool) -> Batch:
        rng = np.random.default_rng([seed, counter])
        drawn = int(rng.integers(len(self.train)))
        image, labels = self.train[drawn if shuffled else counter * len(self.train) // (BATCH * self.steps)]
        top, left = (int(rng.integers(side - CROP + 1)) for side in labels.shape)
        window = np.s_[..., top : top + CROP, left : left + CROP]
        flip, turns = rng.random() < 0.5, int(rng.integers(4)) if self.rot90 else 0
        parts = [part[window].rot90(turns, (-2, -1)) for part in (image, labels)]
        image, labels = (part.flip(-1) if flip else part for part in parts)
        return image.float(), labels

    def validation(self) -> list[Batch]:
        crops = []
        for image, labels in self.val:
            tops, lefts = (np.linspace(0, side - CROP, count) for side, count in zip(labels.shape, (2, 3), strict=True))
            corners = [(int(top), int(left)) for top in tops for left in lefts]
            windows = [np.s_[..., top : top + CROP, left : left + CROP] for top, left in corners]
            crops.extend((image[window].float(), labels[window]) for window in windows)
        parts = [crops[start : start + BATCH] for start in range(0, len(crops), BATCH)]
        return [self._stacked(part) for part in parts]

    def _stacked(self, views: list[Batch]) -> Batch:
        images, labels = (torch.stack(kind).to(self.device) for kind in zip(*views, strict=True))
        return images, labels


class Given(nn.Module):
    """Stands in a network for its frozen backbone and gives the maps that were put into it."""

    maps: list[Tensor]

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.maps


@dataclass
class Maps:
    """The last two maps of a frozen backbone for every batch of a run: equal in all arms, so computed once.

    ``train[step]``, and ``val[step]`` at the steps of evaluation, with the running statistics of that step.
    """

    train: list[list[Tensor]] = field(default_factory=list)
    val: dict[int, list[list[Tensor]]] = field(default_factory=dict)


@torch.no_grad()
def frozen_maps(backbone: nn.Module, crops: Crops, seed: int, *, every: int, batch_norm: bool, shuffled: bool) -> Maps:
    """With ``batch_norm`` the statistics are the batch's, and the running ones move, as in the seed."""
    network, maps = copy.deepcopy(backbone), Maps()
    validation = [images for images, _ in crops.validation()]
    for step in range(crops.steps + 1):
        if step % every == 0:
            network.eval()
            moved = batch_norm or step == 0
            maps.val[step] = [network(scaled(images))[-2:] for images in validation] if moved else maps.val[0]
        if step < crops.steps:
            network.train(batch_norm)
            maps.train.append(network(scaled(crops.batch(seed, step, shuffled=shuffled)[0]))[-2:])
    return maps


def scaled(images: Tensor) -> Tensor:
    """As timm's EfficientNet-Lite0 wants them: -1..1."""
    return images / 127.5 - 1
