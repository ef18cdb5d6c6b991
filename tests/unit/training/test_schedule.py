"""The learning rate over the steps."""

from __future__ import annotations

import pytest
import torch

from regard.training.optimizer import poly


def test_poly_is_pytorchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=40, power=0.9)
    for step in range(45):
        assert poly(step, steps=40, power=0.9) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        schedule.step()


def test_warmup_rises_from_above_zero_to_the_full_rate():
    rates = [poly(step, steps=1000, warmup=9, power=0.9) for step in range(12)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx((1 - 9 / 1000) ** 0.9)
    assert rates[:10] == sorted(rates[:10]) and rates[10] < rates[9]


def test_never_negative_nor_complex_after_the_end():
    assert poly(100, steps=100) == 0 and poly(101, steps=100) == 0
