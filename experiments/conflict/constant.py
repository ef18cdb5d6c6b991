"""What a network without any input can reach: the class frequencies alone, without and with a weight decay of 1.

Adam's weight decay adds half the squared weights to the loss. The best constant prediction under it is the bias b that
minimises CE(shares, softmax(b)) + |b|^2 / 2; a network whose other weights have decayed away ends there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.conflict.crops import Crops


def shares(labels: Tensor, classes: int) -> Tensor:
    counts = torch.bincount(labels[labels != 255].flatten(), minlength=classes).double()
    return (counts / counts.sum()).cpu()


def constant_answers(crops: Crops, seed: int) -> dict[str, float]:
    """Losses in nats, on the run's training crops and on the validation crops."""
    classes = len(crops.data.classes)
    train = shares(torch.stack([crops.batch(seed, step)[1] for step in range(crops.steps)]), classes)
    val = shares(torch.cat([labels for _, labels in crops.validation()]), classes)
    bias = torch.zeros(classes, dtype=torch.float64)
    for _ in range(2000):
        bias -= 0.3 * (bias.softmax(0) - train + bias)
    answers = {"free": train.clamp(min=1e-9).log(), "decay1": bias.log_softmax(0)}
    return {
        f"{name}_{split}": float(-(given * answer).sum())
        for name, answer in answers.items()
        for split, given in (("train", train), ("val", val))
    }
