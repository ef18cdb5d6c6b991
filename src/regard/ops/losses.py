"""Losses over logits of any number of outputs. All skip pixels with the ignore index; none computes below float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Logits = Float[Tensor, "b k h w"]
Labels = Int[Tensor, "b h w"]


@dataclass(frozen=True)
class Criterion:
    """The loss of the main output by name; ``class_weights`` enter the cross entropy of every output."""

    name: str = "ce"  # ce, ohem, focal, ce+dice or ce+lovasz
    ignore_index: int = 255
    class_weights: tuple[float, ...] | None = None
    focal_power: float = 2.0
    hard_below: float = 0.9
    hard_pixels: int = 131_072

    def auxiliary(self, logits: Logits, labels: Labels) -> Float[Tensor, ""]:
        """The weighted cross entropy."""
        return cross_entropy(logits, labels, ignore_index=self.ignore_index, class_weights=self.class_weights)

    def main(self, logits: Logits, labels: Labels) -> Float[Tensor, ""]:
        """The loss that ``name`` says."""
        if self.name == "ohem":
            return hard_cross_entropy(logits, labels, self)
        if self.name == "focal":
            return focal(logits, labels, self)
        loss = self.auxiliary(logits, labels)
        if self.name == "ce+dice":
            return loss + dice(logits, labels, ignore_index=self.ignore_index)
        if self.name == "ce+lovasz":
            return loss + lovasz(logits, labels, ignore_index=self.ignore_index)
        return loss


def cross_entropy(
    logits: Logits, labels: Labels, *, ignore_index: int = 255, class_weights: tuple[float, ...] | None = None
) -> Float[Tensor, ""]:
    """The mean over labelled pixels of -log softmax(logits)[label], in nats; 0 where no pixel is labelled.

    With class weights: sum of weight[label] × loss over sum of weight[label], as PyTorch has it.
    """
    weights = _weights(logits, class_weights)
    summed = F.cross_entropy(_wide(logits), labels, weights, ignore_index=ignore_index, reduction="sum")
    known = labels != ignore_index
    if weights is None:
        return summed / known.sum().clamp(min=1)
    return summed / weights[labels[known]].sum().clamp(min=torch.finfo(weights.dtype).tiny)


def hard_cross_entropy(logits: Logits, labels: Labels, how: Criterion) -> Float[Tensor, ""]:
    """The mean weighted cross entropy of the pixels whose true class has a probability below ``hard_below``; of the
    ``hard_pixels`` hardest where these are fewer.

    Source: HRNet-OCR's OhemCrossEntropy (0.9, 131 072 pixels a GPU), main output only; its threshold takes the
    probability of pixel number ``hard_pixels``, counted from 0, and keeps those strictly below it.
    """
    wide, known = _wide(logits), labels != how.ignore_index
    if not known.any():
        return wide.sum() * 0
    weights = _weights(logits, how.class_weights)
    losses = F.cross_entropy(wide, labels, weights, ignore_index=how.ignore_index, reduction="none")[known]
    with torch.no_grad():
        index = labels.where(known, 0).unsqueeze(1)
        probabilities = wide.softmax(dim=1).gather(1, index).squeeze(1)[known]
        rank = min(how.hard_pixels, len(probabilities) - 1)
        limit = probabilities.sort().values[rank].clamp(min=how.hard_below)
        hard = probabilities < limit
    return losses[hard].mean() if hard.any() else losses.mean()


def focal(logits: Logits, labels: Labels, how: Criterion) -> Float[Tensor, ""]:
    """The mean over labelled pixels of weight[label] × (1 - p)^power × -log p, p the true class's probability.

    Source: Lin et al. 2017, equation 5, on the softmax; the mean is over pixels, not over the weights.
    """
    losses = F.cross_entropy(_wide(logits), labels, ignore_index=how.ignore_index, reduction="none")
    known = labels != how.ignore_index
    losses = losses * (-torch.expm1(-losses)).clamp(min=0) ** how.focal_power
    weights = _weights(logits, how.class_weights)
    if weights is not None:
        losses = losses * weights[labels.where(known, 0)]
    return losses.where(known, 0).sum() / known.sum().clamp(min=1)


def dice(logits: Logits, labels: Labels, *, ignore_index: int = 255) -> Float[Tensor, ""]:
    """1 - mean over the classes in the labels of 2 Σ p y / (Σ p + Σ y), sums over all labelled pixels of the batch.

    Source: Milletari et al. 2016, equation 3, with p in place of its square.
    """
    probabilities, truth = _flat(logits, labels, ignore_index)
    both, size = (probabilities * truth).sum(dim=0), probabilities.sum(dim=0) + truth.sum(dim=0)
    present = truth.any(dim=0)
    scores = 2 * both / size.clamp(min=torch.finfo(size.dtype).tiny)
    return ((1 - scores) * present).sum() / present.sum().clamp(min=1)


def lovasz(logits: Logits, labels: Labels, *, ignore_index: int = 255) -> Float[Tensor, ""]:
    """The Lovász extension of 1 - IoU at the errors |y - p|: mean over the classes in the labels, over the batch.

    Source: Berman et al. 2018, algorithm 1 and section 3; the authors' ``classes="present"``, ``per_image=False``.
    """
    probabilities, truth = _flat(logits, labels, ignore_index)
    errors, order = (truth - probabilities).abs().sort(dim=0, descending=True)
    ranked = truth.gather(0, order)
    total = ranked.sum(dim=0)
    found, false = ranked.cumsum(dim=0), (1 - ranked).cumsum(dim=0)
    jaccard = 1 - (total - found) / (total + false)
    steps = torch.diff(jaccard, dim=0, prepend=jaccard.new_zeros(1, jaccard.shape[1]))
    present = total > 0
    return ((errors * steps).sum(dim=0) * present).sum() / present.sum().clamp(min=1)


def weighted_sum(
    outputs: Mapping[str, Logits], labels: Labels, weights: Mapping[str, float], how: Criterion = Criterion()
) -> dict[str, Float[Tensor, ""]]:
    """The loss of every output, and under ``"loss"`` their sum, each times its weight."""
    losses = {name: (how.main if name == "main" else how.auxiliary)(logits, labels) for name, logits in outputs.items()}
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    return {"loss": total, **losses}


def _wide(logits: Logits) -> Logits:
    return logits if logits.dtype == torch.float64 else logits.float()


def _weights(logits: Logits, class_weights: tuple[float, ...] | None) -> Float[Tensor, " k"] | None:
    if class_weights is None:
        return None
    return torch.tensor(class_weights, dtype=_wide(logits).dtype, device=logits.device)


def _flat(logits: Logits, labels: Labels, ignore_index: int) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """Probabilities and 0/1 truth of the labelled pixels."""
    known = labels != ignore_index
    probabilities = _wide(logits).softmax(dim=1).movedim(1, -1)[known]
    return probabilities, F.one_hot(labels[known], logits.shape[1]).to(probabilities.dtype)
