"""Light heads fitted to labelled pixels: linear ones, which keep to the present answers, and kernel machines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from regard.classes import ClassMap
from regard.models.refined import Head, Headless, Refined, RefinedConfig, headless
from regard.models.segmenter import ModelConfig, Segmenter
from regard.refine.samples import Samples

LANDMARKS = 256
KERNEL_WIDTH = 0.3  # the square of a standardised value's difference weighs so much, divided by the number of values
RIDGE, RIDGE_BEFORE = 1.0, 5.0  # per unit of squared distance from 0 and from present weights, in labelled pixels
REHEARSED, REHEARSED_BEFORE = 50.0, 200.0  # labelled pixels that present answers weigh as much as, at ``keep`` 1

STEPS = 60
JITTER = 1e-3
Linear = tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]  # weights and biases


@dataclass(frozen=True, eq=False)
class Task:
    """What is fitted: labelled pixels with their labels, and pixels all over the scene whose present answers are kept.

    ``like`` says for each class which present class it begins as, -1 for none; ``keep`` is the option. ``in_context``
    gives the deep features of the labelled and of the other pixels as a model with a context head sees them.
    """

    classes: ClassMap
    labelled: Samples
    labels: Int[Tensor, " n"]
    rehearsed: Samples
    like: tuple[int, ...]
    keep: float
    squares: tuple[int, ...]
    seed: int
    in_context: Callable[[Refined], tuple[Float[Tensor, "n e"], Float[Tensor, "m e"]]]

    @property
    def knows(self) -> bool:
        """Whether any class has a present answer that should be kept."""
        return self.keep > 0 and max(self.like) >= 0

    @property
    def weights(self) -> Float[Tensor, " n"]:
        """Classes weigh alike; where present answers are kept, the rare ones less than that."""
        counts = torch.bincount(self.labels, minlength=len(self.like)).double()
        fair = len(self.labels) / (counts > 0).sum() / counts.clamp(min=1)
        return (fair.sqrt() if self.knows else fair)[self.labels]

    @property
    def kept(self) -> Float[Tensor, "m k"]:
        """The present probabilities of the classes in rehearsed pixels, 0 of new ones; those begun alike share."""
        sharing = torch.tensor([self.like.count(place) for place in self.like]).double()
        return self.extended(self.rehearsed.present.softmax(dim=1), 0.0) / sharing

    def extended(self, values: Float[Tensor, "n _"], unknown: float) -> Float[Tensor, "n k"]:
        """The columns of the present classes for the new classes."""
        return torch.cat([values, values.new_full((len(values), 1), unknown)], dim=1)[:, list(self.like)]

    def part(self, which: Int[Tensor, " m"]) -> Task:
        """With some of the labelled pixels alone."""
        parted = self.in_context
        return replace(
            self,
            labelled=self.labelled.chosen(which),
            labels=self.labels[which],
            in_context=lambda model: (parted(model)[0][which], parted(model)[1]),
        )


def as_refined(model: Segmenter) -> Refined:
    """A network of the same answers, parted into a base and a linear head; a refined model as it is.

    Raises:
        ConfigError: the model was loaded with ``fast=True`` or is an exported file.
    """
    model.check_plain("refined")
    if isinstance(model, Refined):
        return copy.deepcopy(model).eval()
    base = headless(copy.deepcopy(model))
    common = {name: getattr(model.config, name) for name in ModelConfig.model_fields}
    own = {name: value for name, value in model.card.config.items() if name not in common}
    settings = {**common, "base": model.card.architecture, "base_config": own, "base_classes": len(model.classes)}
    start = _made(model, model.classes, settings, base)
    weight = torch.eye(len(model.classes)) if base.classifier is None else base.classifier.weight[:, :, 0, 0]
    bias = None if base.classifier is None else base.classifier.bias
    _set(start.classify, weight, torch.zeros(len(model.classes)) if bias is None else bias)
    return start


def _made(start: Segmenter, classes: ClassMap, settings: dict[str, Any], base: Headless | None) -> Refined:
    config = RefinedConfig(**settings).model_dump(mode="json")
    card = start.card.model_copy(update={"architecture": "refined", "config": config, "classes": classes})
    with torch.random.fork_rng(devices=[]):
        return Refined(card, base=base).to(start.device).eval()


def reheaded(start: Refined, task: Task, head: Head, *, deep: bool, bands: bool, **sizes: int) -> Refined:
    """The base of a network with a new head, which is not fitted."""
    deep = deep and bool(start.config.base)
    bands = bands or not deep
    settings = {"head": head, "sees_bands": bands, "squares": task.squares if bands else (), **sizes}
    if not deep:
        return _made(start, task.classes, {"backbone": "none", **settings}, None)
    kept = start.config.model_dump(exclude={"landmarks"})
    kept["base_classes"] = start.config.base_classes or len(start.classes)
    return _made(start, task.classes, {**kept, **settings}, Headless(start.base, task.labelled.deep.shape[1], None))


@torch.no_grad()
def fitted(start: Refined, task: Task, head: Head, *, deep: bool, bands: bool) -> Refined:
    """A network with the base of ``start`` and a head that is fitted to a task: ``linear``, ``context``, ``kernel``."""
    model = reheaded(
        start, task, head, deep=deep, bands=bands, landmarks=min(LANDMARKS, len(task.labels)) if head == "kernel" else 1
    )
    blocks: dict[str, Block] = {}
    if head == "context":
        first = fitted(start, task, "linear", deep=True, bands=False)
        blocks["classify"] = _in_context(model, first, task)
    elif hasattr(model, "classify"):
        blocks["classify"] = Block.of(task.labelled.deep, task.rehearsed.deep, _before(start, task))
    if hasattr(model, "classify_bands"):
        seen = task.labelled.seen, task.rehearsed.seen
        blocks["classify_bands"] = Block.kernel(*seen, task.seed) if head == "kernel" else Block.of(*seen)
    weights, bias = solve([*blocks.values()], task)
    for (name, block), weight in zip(blocks.items(), weights, strict=True):
        block.write(getattr(model, name), weight, bias)
        bias = torch.zeros_like(bias)
    return model


def _before(start: Refined, task: Task) -> Linear | None:
    """The linear classifier of the deep features that there was, for the new classes."""
    if start.config.head != "linear" or not hasattr(start, "classify") or not task.knows:
        return None
    weight, bias = start.classify.weight[:, :, 0, 0].double(), _bias(start.classify)
    return task.extended(weight.T, 0.0).T, task.extended(bias[None], float(bias.min()) - 2)[0]


def _bias(layer: Any) -> Float[Tensor, " k"]:
    return layer.bias.detach().double()


def _in_context(model: Refined, first: Refined, task: Task) -> Block:
    """The features of a context head, whose object regions are the classes of a linear classifier."""
    weight, bias = first.classify.weight[:, :, 0, 0].double(), _bias(first.classify)
    _set(model.regions, weight, bias)
    both = torch.cat([task.labelled.deep, task.rehearsed.deep])
    model.context.mean.copy_(both.mean(0)[:, None, None])
    model.context.spread.copy_(both.std(0, correction=0).clamp(min=1e-6)[:, None, None])
    before = torch.cat([weight, torch.zeros_like(weight)], dim=1), bias
    return Block.of(*task.in_context(model), before if task.knows else None)


@torch.no_grad()
def _set(layer: Any, weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"]) -> None:
    layer.weight.copy_(weight.reshape(layer.weight.shape))
    layer.bias.copy_(bias)


@dataclass(frozen=True, eq=False)
class Block:
    """Features of labelled and of rehearsed pixels, and the weights and biases that these begin from.

    They are ``(x - mean) / spread``, or the similarities to landmarks times ``root``.
    """

    labelled: Float[Tensor, "n d"]
    rehearsed: Float[Tensor, "m d"]
    before: Linear | None
    mean: Float[Tensor, " c"]
    spread: Float[Tensor, " c"]
    landmarks: Float[Tensor, "l c"] | None = None
    root: Float[Tensor, "l l"] | None = None

    @classmethod
    def of(cls, labelled: Tensor, rehearsed: Tensor, before: Linear | None = None) -> Block:
        """Features of mean 0 and standard deviation 1."""
        both = torch.cat([labelled, rehearsed])
        mean, spread = both.mean(0), both.std(0, correction=0)
        spread = spread.where(spread > 1e-9, 1.0)
        if before is not None:
            before = before[0] * spread, before[1] + before[0] @ mean
        return cls((labelled - mean) / spread, (rehearsed - mean) / spread, before, mean, spread)

    @classmethod
    def kernel(cls, labelled: Tensor, rehearsed: Tensor, seed: int) -> Block:
        """Similarities to some of the labelled pixels, such that the weights' length is that of the function."""
        plain, scale = cls.of(labelled, rehearsed), (KERNEL_WIDTH / labelled.shape[1]) ** 0.5
        order = np.random.default_rng([seed, 2]).permutation(len(labelled))[:LANDMARKS]
        landmarks = plain.labelled[order] * scale
        near = _similar(landmarks, landmarks) + JITTER * torch.eye(len(order), dtype=torch.float64)
        root = torch.linalg.inv(torch.linalg.cholesky(near)).T
        near, far = (_similar(values * scale, landmarks) @ root for values in (plain.labelled, plain.rehearsed))
        return cls(near, far, None, plain.mean, plain.spread / scale, landmarks, root)

    def write(self, layer: Any, weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"]) -> None:
        """Put the weights into a layer that takes the features as they are."""
        if self.landmarks is None or self.root is None:
            plain = weight / self.spread
            _set(layer, plain, bias - plain @ self.mean)
            return
        layer.inverse_width.copy_(1 / self.spread)
        layer.landmarks.copy_(self.landmarks + self.mean / self.spread)
        layer.classify.weight.copy_(weight @ self.root.T)
        layer.classify.bias.copy_(bias)


def _similar(values: Float[Tensor, "n c"], landmarks: Float[Tensor, "m c"]) -> Float[Tensor, "n m"]:
    return torch.cdist(values, landmarks).square().neg().exp()


def solve(blocks: list[Block], task: Task) -> tuple[list[Float[Tensor, "k _"]], Float[Tensor, " k"]]:
    """The weights of each block and the biases of least loss: cross-entropy of the labelled pixels, divergence from the
    present answers in the rehearsed ones, and the squared distance from the weights before.
    """
    labelled, rehearsed = (
        torch.cat([getattr(block, name) for block in blocks], 1) for name in ("labelled", "rehearsed")
    )
    sizes, count = [block.labelled.shape[1] for block in blocks], len(task.like)
    before = [
        block.before or (labelled.new_zeros(count, size), labelled.new_zeros(count))
        for block, size in zip(blocks, sizes, strict=True)
    ]
    first = torch.cat(
        [*(weight for weight, _ in before), torch.stack([bias for _, bias in before]).sum(0)[:, None]], dim=1
    )
    ridges = [RIDGE if block.before is None else RIDGE_BEFORE for block in blocks]
    ridge = torch.tensor(ridges).repeat_interleave(torch.tensor(sizes))
    weighs = REHEARSED if all(block.before is None for block in blocks) else REHEARSED_BEFORE
    pull = task.keep * weighs / max(1, len(rehearsed)) if task.knows else 0.0
    found, weights, kept = first.clone().requires_grad_(), task.weights, task.kept
    optimiser = torch.optim.LBFGS([found], max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        scores = labelled @ found[:, :-1].T + found[:, -1]
        total = (weights * F.cross_entropy(scores, task.labels, reduction="none")).sum()
        if pull:
            answers = (rehearsed @ found[:, :-1].T + found[:, -1]).log_softmax(dim=1)
            total = total - pull * (kept * answers).sum()
        total = total + (ridge / 2 * (found - first)[:, :-1].square()).sum()
        total.backward()
        return total

    with torch.enable_grad():
        optimiser.step(loss)
    found = found.detach()
    return list(found[:, :-1].split(sizes, dim=1)), found[:, -1]
