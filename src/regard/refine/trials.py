"""Kinds of heads, and their trial on blocks of ground that they were not fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.models.refined import Head, Refined
from regard.ops.metrics import confusion_matrix, intersection_over_union
from regard.refine.heads import Task, fitted
from regard.refine.labels import Labels
from regard.refine.options import DEEP, RefineOptions

FOLDS = 5
ALONG = 8  # blocks along the longer side of the ground that was labelled
POINT = 0.01  # of IoU: a smaller fall is not reported


class Kind(NamedTuple):
    """A kind of head, and what it looks at."""

    head: Head
    deep: bool
    bands: bool

    @property
    def title(self) -> str:
        """In words."""
        names = {"deep features": self.deep, "bands": self.bands}
        return f"{self.head} on {' and '.join(name for name, used in names.items() if used)}"

    def stride(self, start: Refined) -> int:
        """The pixels of a cell of its answers."""
        return start.base.stride if self.deep and not self.bands and self.head in DEEP else 1


def kinds_of(options: RefineOptions, *, has_base: bool) -> list[Kind]:
    """The kinds that the options allow, in the order in which they are preferred."""
    if options.head == "auto":
        return [Kind("linear", True, False)] * has_base + [Kind("kernel", False, True)]
    deep = options.looks_at != "bands" and has_base
    return [Kind(options.head, deep, options.looks_at != "deep" or not deep)]


@dataclass(frozen=True, eq=False)
class Trial:
    """The IoU of each class on held-out blocks before and after; nan where it cannot be said.

    A class is scored where its labels lie in two ``blocks`` or more: else it is not learned when it is held out.
    """

    kind: Kind
    names: tuple[str, ...]
    before: Float[Tensor, " k"]
    after: Float[Tensor, " k"]
    blocks: Int[Tensor, " k"]

    @property
    def means(self) -> tuple[float, float]:
        """The mean IoU before and after over the classes that are scored."""
        return float(self.before.nanmean()), float(self.after.nanmean())

    @property
    def worth(self) -> float:
        """By which kinds are compared; of what could not be scored, the least."""
        return -1.0 if math.isnan(self.means[1]) else self.means[1]

    def as_dict(self) -> dict[str, Any]:
        """All figures, as JSON has them."""
        rows = zip(self.names, self.before.tolist(), self.after.tolist(), self.blocks.tolist(), strict=True)
        classes = {name: {"before": _said(old), "after": _said(new), "blocks": n} for name, old, new, n in rows}
        return {"before": _said(self.means[0]), "after": _said(self.means[1]), "classes": classes}

    def table(self, counts: dict[str, tuple[int, int]]) -> str:
        """Before and after, as a Markdown table."""
        lines = ["| IoU on held-out blocks | objects | pixels | blocks | before | after |", "| --- |" + " ---: |" * 5]
        rows = zip(self.names, self.before.tolist(), self.after.tolist(), self.blocks.tolist(), strict=True)
        for name, old, new, n in rows:
            lines.append(f"| {name} | {counts[name][0]} | {counts[name][1]} | {n} | {_shown(old)} | {_shown(new)} |")
        objects, pixels = (sum(count[place] for count in counts.values()) for place in range(2))
        mean = " | ".join(map(_shown, self.means))
        return "\n".join([*lines, f"| mean | {objects} | {pixels} | | {mean} |"])

    def doubts(self) -> list[str]:
        """What a user should know before the new model is used."""
        old, new = self.means
        if math.isnan(new):
            return [
                "no class is labelled in two blocks of ground, so nothing says how good this is. Label more places."
            ]
        found = []
        if new < old:
            found.append(f"the mean IoU on held-out blocks fell from {100 * old:.1f} to {100 * new:.1f} %")
        fell = [name for name, a, b in zip(self.names, self.before, self.after, strict=True) if a - b > POINT]
        if fell:
            found.append(f"IoU on held-out blocks fell for {', '.join(fell)}")
        return [f"{text}. Look at the map, and label more of them, or use more --keep." for text in found]


def _said(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def try_on_blocks(start: Refined, task: Task, labels: Labels, kind: Kind, share: float = 1.0) -> Trial:
    """Fit a kind of head to a task without the labels of some blocks of ground, and score its answers there.

    A smaller ``share`` of the other objects shows what more labels are worth.
    """
    block, rng = blocks_of(labels), np.random.default_rng([task.seed, 3])
    fold = rng.permutation(block.max() + 1)[block] % FOLDS
    used = np.isin(labels.objects, rng.permutation(every := np.unique(labels.objects))[: round(share * len(every))])
    classes, after = len(task.classes), torch.full_like(task.labels, -1)
    for number in np.unique(fold).tolist():
        rest, held = (torch.from_numpy(np.flatnonzero(which)) for which in (used & (fold != number), fold == number))
        if len(rest):
            model = fitted(start, task.part(rest), kind.head, deep=kind.deep, bands=kind.bands)
            deep = task.in_context(model)[0] if model.config.head == "context" else task.labelled.deep
            after[held] = answers(model, deep[held], task.labelled.seen[held]).argmax(dim=1)
    before = task.extended(task.labelled.present, -math.inf).argmax(dim=1)
    blocks = torch.tensor([len(np.unique(block[labels.labels == label])) for label in range(classes)])
    first, second = (_ious(predicted, task, blocks) for predicted in (before, after))
    return Trial(kind, task.classes.names, first, second, blocks)


def blocks_of(labels: Labels) -> Int[np.ndarray, " n"]:
    """The number of the block of ground that each labelled pixel's object is centred in."""
    places = np.stack([labels.rows, labels.columns], axis=1)
    which = np.unique(labels.objects, return_inverse=True)[1]
    sizes = np.bincount(which)[:, None]
    centres = np.stack([np.bincount(which, weights=places[:, axis]) for axis in range(2)], axis=1) / sizes
    side = max(1, -(-int(np.ptp(places, axis=0).max() + 1) // ALONG))
    return np.unique((centres - places.min(axis=0)) // side, axis=0, return_inverse=True)[1].ravel()[which]


@torch.no_grad()
def answers(model: Refined, deep: Float[Tensor, "n _"], seen: Float[Tensor, "n _"]) -> Float[Tensor, "n k"]:
    """The logits of some pixels from their deep features, in context if the model has one, and their bands."""
    looks = ((deep, bool(model.config.base)), (seen, model.config.sees_bands))
    deep_map, seen_map = (values.T[None, :, :, None].float() if used else None for values, used in looks)
    return model.head(deep_map, seen_map, (len(deep), 1))[0, :, :, 0].T


def _ious(predicted: Int[Tensor, " n"], task: Task, blocks: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    scored = (predicted >= 0) & (blocks >= 2)[task.labels]
    confusion = confusion_matrix(task.labels[scored], predicted[scored], classes=len(blocks), ignore_index=-1)
    return intersection_over_union(confusion).double().where(blocks >= 2, torch.nan)
