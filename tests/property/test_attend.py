"""attend against three nested loops in float64, for all shapes, sizes of one and layouts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from regard.ops.attention import attend, attention_map, to_map, to_tokens

sizes = st.integers(1, 9)


def by_loops(query: np.ndarray, key: np.ndarray, value: np.ndarray, scale: float) -> np.ndarray:
    result = np.zeros((query.shape[0], query.shape[1], value.shape[2]))
    for image in range(query.shape[0]):
        for row in range(query.shape[1]):
            energies = [scale * sum(query[image, row] * other) for other in key[image]]
            weights = [math.exp(energy - max(energies)) for energy in energies]
            for weight, one in zip(weights, value[image], strict=True):
                result[image, row] += weight / sum(weights) * one
    return result


def tensor(rng: np.random.Generator, shape: tuple[int, int, int], layout: str) -> Tensor:
    """Random numbers of this shape, laid out in memory in one of several ways."""
    if layout == "transposed":
        return torch.from_numpy(rng.normal(size=(shape[0], shape[2], shape[1])).astype(np.float32)).transpose(1, 2)
    if layout == "strided":
        return torch.from_numpy(rng.normal(size=(*shape[:2], 2 * shape[2])).astype(np.float32))[:, :, ::2]
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


@given(
    shape=st.tuples(sizes, sizes, sizes, sizes, sizes),
    scale=st.sampled_from([1.0, 0.3, 2.5]),
    layout=st.sampled_from(["contiguous", "transposed", "strided"]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_loop(shape: tuple[int, int, int, int, int], scale: float, layout: str, seed: int):
    batch, n, m, width, channels = shape
    rng = np.random.default_rng(seed)
    query, key, value = (tensor(rng, (batch, *rest), layout) for rest in ((n, width), (m, width), (m, channels)))
    expected = by_loops(*(x.double().numpy() for x in (query, key, value)), scale)
    np.testing.assert_allclose(attend(query, key, value, scale=scale).numpy(), expected, rtol=2e-4, atol=2e-5)


@given(shape=st.tuples(sizes, sizes, sizes, sizes), seed=st.integers(0, 10_000))
def test_each_row_of_the_map_is_a_distribution(shape: tuple[int, int, int, int], seed: int):
    batch, n, m, width = shape
    rng = np.random.default_rng(seed)
    weights = attention_map(tensor(rng, (batch, n, width), ""), tensor(rng, (batch, m, width), ""))
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(batch, n))


@pytest.mark.parametrize("size", [1e3, -1e3, 1e5])
def test_large_energies_stay_finite(size: float):
    query, key, value = torch.randn(1, 20, 8) * size, torch.randn(1, 30, 8), torch.randn(1, 30, 4)
    result = attend(query, key, value)
    assert torch.isfinite(result).all()
    hardest = (query @ key.transpose(1, 2)).argmax(dim=-1)[0]
    sharp = (query @ key.transpose(1, 2)).topk(2).values.diff(dim=-1).abs()[0, :, 0] > 100
    assert sharp.any()
    torch.testing.assert_close(result[0][sharp], value[0][hardest][sharp])


def test_the_order_of_keys_does_not_matter():
    query, key, value, order = torch.randn(2, 7, 5), torch.randn(2, 11, 5), torch.randn(2, 11, 3), torch.randperm(11)
    torch.testing.assert_close(attend(query, key[:, order], value[:, order]), attend(query, key, value))


def test_constant_values_are_returned():
    value = torch.tensor([2.0, -3.0]).expand(1, 9, 2)
    result = attend(torch.randn(1, 4, 6) * 5, torch.randn(1, 9, 6), value)
    torch.testing.assert_close(result, value[:, :4])


@pytest.mark.parametrize("which", [0, 1, 2], ids=["query", "key", "value"])
def test_gradients_are_those_of_finite_differences(which: int):
    parts = [torch.randn(1, rows, 2, requires_grad=True) for rows in (3, 4, 4)]
    (slope,) = torch.autograd.grad((attend(*parts, scale=0.8) ** 2).sum(), parts[which])

    def loss(place: tuple[int, ...], step: float) -> float:
        arrays = [part.detach().double().numpy() for part in parts]
        arrays[which][place] += step
        return float((by_loops(*arrays, 0.8) ** 2).sum())

    for place in np.ndindex(slope.shape):
        expected = (loss(place, 1e-5) - loss(place, -1e-5)) / 2e-5
        assert float(slope[place]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_half_precision_keeps_the_energies_in_full():
    query, key, value = torch.randn(1, 50, 64), torch.randn(1, 50, 64), torch.rand(1, 50, 4)
    result = attend(query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert result.dtype == torch.bfloat16
    expected = by_loops(*(x.bfloat16().double().numpy() for x in (query, key, value)), 1.0)
    np.testing.assert_allclose(result.float().numpy(), expected, atol=0.02)


@given(shape=st.tuples(sizes, sizes, sizes, sizes))
def test_tokens_are_pixels_row_by_row_and_back(shape: tuple[int, int, int, int]):
    feature_map = torch.randn(shape)
    tokens = to_tokens(feature_map)
    for row in range(shape[2]):
        for column in range(shape[3]):
            assert torch.equal(tokens[:, row * shape[3] + column], feature_map[:, :, row, column])
    assert torch.equal(to_map(tokens, shape[2:]), feature_map)
