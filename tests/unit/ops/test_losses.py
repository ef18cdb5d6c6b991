"""Losses against PyTorch's own and against the formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from regard.ops.losses import cross_entropy, weighted_sum


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
