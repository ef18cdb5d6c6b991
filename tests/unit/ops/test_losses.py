"""Losses against PyTorch's own and against the formula."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from regard.ops.losses import Criterion, cross_entropy, dice, focal, hard_cross_entropy, lovasz, weighted_sum


@pytest.mark.parametrize("ignored", [0.0, 0.5, 0.98])
def test_cross_entropy_is_pytorchs_mean_over_labelled_pixels(ignored: float):
    logits, labels = torch.randn(2, 5, 6, 7) * 4, torch.randint(5, (2, 6, 7))
    labels[torch.rand(labels.shape) < ignored] = 255
    assert (labels != 255).any()
    torch.testing.assert_close(cross_entropy(logits, labels), F.cross_entropy(logits, labels, ignore_index=255))


def test_cross_entropy_of_one_pixel_by_hand():
    logits = torch.tensor([1.0, 3.0, 0.0])[None, :, None, None]
    expected = -torch.log(torch.exp(torch.tensor(3.0)) / (1 + torch.exp(torch.tensor([1.0, 3.0]))).sum().sub(1))
    torch.testing.assert_close(cross_entropy(logits, torch.tensor([[[1]]])), expected)


def test_no_labelled_pixel_gives_zero_loss_and_zero_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))  # F.cross_entropy gives NaN here


def test_another_ignore_index():
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(3, (1, 4, 4))
    labels[0, 0] = -1
    expected = F.cross_entropy(logits[:, :, 1:], labels[:, 1:])
    torch.testing.assert_close(cross_entropy(logits, labels, ignore_index=-1), expected)


def test_half_precision_logits_are_summed_in_full():
    logits, labels = (torch.randn(1, 3, 300, 300) * 5).bfloat16(), torch.randint(3, (1, 300, 300))
    loss = cross_entropy(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(logits.float(), labels))


def test_weighted_sum_adds_each_output_times_its_weight():
    outputs = {name: torch.randn(1, 3, 4, 4) for name in ("main", "regions", "position")}
    labels = torch.randint(3, (1, 4, 4))
    losses = weighted_sum(outputs, labels, {"main": 1.0, "regions": 0.4, "position": 0.0})
    single = {name: F.cross_entropy(logits, labels) for name, logits in outputs.items()}
    assert set(losses) == {"loss", *outputs}
    torch.testing.assert_close(losses["regions"], single["regions"])
    torch.testing.assert_close(losses["loss"], single["main"] + 0.4 * single["regions"])


WEIGHTS = (0.5, 2.0, 1.0, 0.25)
NAMES = ("ce", "ohem", "focal", "ce+dice", "ce+lovasz")


def pixels(ignored: float = 0.2) -> tuple[torch.Tensor, torch.Tensor, list[tuple[list[float], int]]]:
    """Logits, labels without class 3, and the labelled pixels one by one: probabilities and label."""
    logits, labels = torch.randn(2, 4, 3, 5, dtype=torch.float64) * 2, torch.randint(3, (2, 3, 5))
    labels[torch.rand(labels.shape) < ignored] = 255
    labels[0, 0, 0] = 1
    every = []
    for b, y, x in (labels != 255).nonzero().tolist():
        powers = [math.exp(value) for value in logits[b, :, y, x].tolist()]
        every.append(([power / sum(powers) for power in powers], int(labels[b, y, x])))
    return logits, labels, every


def test_weighted_cross_entropy_by_pixel():
    logits, labels, every = pixels()
    expected = sum(-WEIGHTS[k] * math.log(p[k]) for p, k in every) / sum(WEIGHTS[k] for _, k in every)
    assert cross_entropy(logits, labels, class_weights=WEIGHTS).item() == pytest.approx(expected, rel=1e-12)


def test_focal_by_pixel():
    logits, labels, every = pixels()
    for power, weights in ((2.0, None), (0.5, WEIGHTS)):
        how = Criterion("focal", class_weights=weights, focal_power=power)
        terms = [-(weights or (1,) * 4)[k] * (1 - p[k]) ** power * math.log(p[k]) for p, k in every]
        assert focal(logits, labels, how).item() == pytest.approx(sum(terms) / len(terms), rel=1e-10)


@pytest.mark.parametrize(("below", "least"), [(0.3, 2), (0.01, 7), (1.1, 1), (0.01, 1000)])
def test_hard_pixels_as_the_authors_choose_them(below: float, least: int):
    logits, labels, every = pixels()
    order = sorted(p[k] for p, k in every)
    limit = max(order[min(least, len(order) - 1)], below)
    kept = [-math.log(p[k]) for p, k in every if p[k] < limit]
    how = Criterion("ohem", hard_below=below, hard_pixels=least)
    assert hard_cross_entropy(logits, labels, how).item() == pytest.approx(sum(kept) / len(kept), rel=1e-12)


@pytest.mark.parametrize("least", [2, 1000])
def test_hard_pixels_are_chosen_by_probability_and_weighted(least: int):
    logits, labels, every = pixels()
    limit = max(sorted(p[k] for p, k in every)[min(least, len(every) - 1)], 0.3)
    kept = [-WEIGHTS[k] * math.log(p[k]) for p, k in every if p[k] < limit]
    how = Criterion("ohem", class_weights=WEIGHTS, hard_below=0.3, hard_pixels=least)
    assert hard_cross_entropy(logits, labels, how).item() == pytest.approx(sum(kept) / len(kept), rel=1e-12)


def test_the_authors_settings():
    how = Criterion()
    assert (how.name, how.ignore_index, how.focal_power) == ("ce", 255, 2.0)
    assert (how.hard_below, how.hard_pixels) == (0.9, 131_072)


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_has_the_ignore_index_of_its_criterion(name: str):
    logits, labels, _ = pixels()
    usual = Criterion(name, class_weights=WEIGHTS, hard_below=0.5, hard_pixels=4)
    other = Criterion(name, ignore_index=3, class_weights=WEIGHTS, hard_below=0.5, hard_pixels=4)
    renamed = labels.where(labels != 255, 3)
    torch.testing.assert_close(other.main(logits, renamed), usual.main(logits, labels))


def test_auxiliary_losses_are_weighted_by_class():
    logits, labels, _ = pixels()
    losses = weighted_sum({"regions": logits}, labels, {"regions": 0.4}, Criterion("focal", class_weights=WEIGHTS))
    torch.testing.assert_close(losses["regions"], cross_entropy(logits, labels, class_weights=WEIGHTS))


def test_dice_by_class():
    logits, labels, every = pixels()
    scores = [
        2 * sum(p[c] for p, k in every if k == c) / (sum(p[c] for p, _ in every) + sum(k == c for _, k in every))
        for c in {k for _, k in every}
    ]
    assert dice(logits, labels).item() == pytest.approx(1 - sum(scores) / len(scores), rel=1e-12)


def test_lovasz_is_the_integral_of_the_jaccard_loss_over_thresholds():
    """Its other definition: the set function at {error >= t}, integrated over t from 0 to 1."""
    logits, labels, every = pixels()
    losses = []
    for c in sorted({k for _, k in every}):
        errors = [abs((k == c) - p[c]) for p, k in every]
        steps = sorted({0.0, *errors})
        total = 0.0
        for low, high in itertools.pairwise(steps):
            wrong = [error >= high for error in errors]
            missed = sum(w for w, (_, k) in zip(wrong, every, strict=True) if k == c)
            false = sum(w for w, (_, k) in zip(wrong, every, strict=True) if k != c)
            truth = sum(k == c for _, k in every)
            total += (high - low) * (missed + false) / (truth + false)
        losses.append(total)
    assert lovasz(logits, labels).item() == pytest.approx(sum(losses) / len(losses), rel=1e-10)


def test_dice_and_lovasz_of_perfect_and_of_opposite_answers():
    labels = torch.randint(2, (1, 6, 6))
    labels[0, 0, :2] = torch.tensor([0, 1])
    right = torch.nn.functional.one_hot(labels, 2).movedim(-1, 1).double() * 100
    for loss in (dice, lovasz):
        assert loss(right, labels).item() == pytest.approx(0, abs=1e-12)
        assert loss(-right, labels).item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_ignored_pixels(name: str):
    logits, labels, _ = pixels()
    how = Criterion(name, class_weights=WEIGHTS, hard_below=0.5, hard_pixels=4)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: how.main(x, labels), logits)
    (gradient,) = torch.autograd.grad(how.main(logits, labels), logits)
    assert gradient.abs().sum() > 0
    assert not gradient.movedim(1, -1)[labels == 255].any()
    (nothing,) = torch.autograd.grad(how.main(logits, torch.full_like(labels, 255)), logits)
    assert not nothing.any()
    changed = logits.detach().clone()
    changed.movedim(1, -1)[labels == 255] = 50.0
    torch.testing.assert_close(how.main(changed, labels), how.main(logits, labels).detach())


def test_the_named_loss_is_for_the_main_output_alone():
    logits, labels, _ = pixels()
    losses = weighted_sum(
        {"main": logits, "regions": logits}, labels, {"main": 1.0, "regions": 0.4}, Criterion("ce+dice")
    )
    torch.testing.assert_close(losses["main"], losses["regions"] + dice(logits, labels))
    torch.testing.assert_close(losses["regions"], cross_entropy(logits, labels))
