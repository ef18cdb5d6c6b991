"""The ways of computing attention against float64, wherever blocks begin and end, and with NaN and infinity."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from regard.ops import attention
from regard.ops import attention_blockwise as blockwise
from regard.ops.attention import attend, attend_at_once, to_map, to_tokens

Shape = tuple[int, int, int, int, int]
shapes = st.tuples(*(st.integers(1, top) for top in (3, 40, 40, 9, 12)))  # b n m d c
layouts = st.sampled_from(["rows", "map", "strided", "expanded"])
seeds = st.integers(0, 10_000)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks small enough that every test crosses their borders, and no problem too small for them."""
    monkeypatch.setattr(blockwise, "ROWS", 7)
    monkeypatch.setattr(blockwise, "KEYS", 11)
    monkeypatch.setattr(attention, "_is_small", lambda *_: False)


def made(shape: tuple[int, int, int], layout: str, dtype: torch.dtype, rng: np.random.Generator) -> Tensor:
    b, n, c = shape
    if layout == "map":
        return torch.from_numpy(rng.normal(size=(b, c, n))).to(dtype).mT
    if layout == "strided":
        return torch.from_numpy(rng.normal(size=(b, 2 * n, 3 * c))).to(dtype)[:, ::2, ::3]
    if layout == "expanded":
        return torch.from_numpy(rng.normal(size=(1, n, c))).to(dtype).expand(b, n, c)
    return torch.from_numpy(rng.normal(size=shape)).to(dtype)


def inputs(shape: Shape, layout: str, dtype: torch.dtype, seed: int) -> list[Tensor]:
    b, n, m, d, c = shape
    rng = np.random.default_rng(seed)
    return [made(one, layout, dtype, rng) for one in ((b, n, d), (b, m, d), (b, m, c))]


def exactly(query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
    """The definition, in float64, in a form of its own."""
    energies = torch.einsum("bnd,bmd->bnm", query.double(), key.double()) * scale
    return torch.einsum("bnm,bmc->bnc", energies.softmax(dim=-1), value.double())


def error(result: Tensor, exact: Tensor) -> float:
    result, exact = result.detach(), exact.detach()
    return float((result.double() - exact).abs().max() / exact.abs().max().clamp(min=1))


@given(
    shape=shapes, layout=layouts, dtype=st.sampled_from(list(TOLERANCE)), scale=st.sampled_from([1.0, -0.7]), seed=seeds
)
@example(shape=(1, 1, 1, 1, 1), layout="map", dtype=torch.float32, scale=1.0, seed=0)
@example(shape=(2, 8, 34, 3, 5), layout="map", dtype=torch.bfloat16, scale=1.0, seed=1)
def test_blocks_equal_the_definition(shape: Shape, layout: str, dtype: torch.dtype, scale: float, seed: int):
    query, key, value = inputs(shape, layout, dtype, seed)
    result = attend(query, key, value, scale=scale)
    assert result.dtype == dtype
    assert error(result, exactly(query, key, value, scale)) < TOLERANCE[dtype]


@given(shape=shapes, layout=layouts, seed=seeds)
def test_gradients_are_the_definitions(shape: Shape, layout: str, seed: int):
    parts = [part.detach().requires_grad_() for part in inputs(shape, layout, torch.float32, seed)]
    slope = torch.randn(shape[0], shape[1], shape[4])
    ours = torch.autograd.grad(attend(*parts, scale=0.6), parts, slope)
    exact = torch.autograd.grad(exactly(*parts, 0.6), parts, slope.double())
    for one, other, part in zip(ours, exact, parts, strict=True):
        assert one.dtype == part.dtype
        assert error(one, other) < 1e-5


@pytest.mark.parametrize("layout", ["rows", "map"])
def test_first_and_second_derivatives_in_float64(layout: str):
    parts = [part.requires_grad_() for part in inputs((1, 8, 12, 2, 3), layout, torch.float64, 3)]
    assert torch.autograd.gradcheck(lambda *args: attend(*args, scale=0.8), parts)
    small = [part.detach()[:, :8].requires_grad_() for part in parts]
    assert torch.autograd.gradgradcheck(lambda *args: attend(*args, scale=0.8), small)


def test_only_the_wanted_gradients_of_second_derivatives_are_asked_for():
    query, key, value = inputs((1, 8, 12, 3, 4), "map", torch.float64, 0)
    key.requires_grad_()
    (first,) = torch.autograd.grad(attend(query, key, value).square().sum(), key, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), key)
    (plain,) = torch.autograd.grad(attend_at_once(query, key, value, 1.0).square().sum(), key, create_graph=True)
    (expected,) = torch.autograd.grad(plain.square().sum(), key)
    torch.testing.assert_close(second, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_half_precision(dtype: torch.dtype):
    parts = [part.requires_grad_() for part in inputs((1, 30, 40, 8, 6), "map", dtype, 5)]
    slope = torch.randn(1, 30, 6).to(dtype)
    ours = torch.autograd.grad(attend(*parts), parts, slope)
    exact = torch.autograd.grad(exactly(*parts), parts, slope.double())
    assert max(error(one, other) for one, other in zip(ours, exact, strict=True)) < TOLERANCE[dtype]


@given(
    where=st.sampled_from(["query", "key", "value"]),
    number=st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    places=st.lists(st.integers(0, 29), min_size=1, max_size=30, unique=True),
    layout=st.sampled_from(["rows", "map"]),
    seed=seeds,
)
def test_what_is_not_finite_spreads_as_in_the_formula(
    where: str, number: float, places: list[int], layout: str, seed: int
):
    parts = dict(zip(("query", "key", "value"), inputs((1, 30, 30, 2, 3), layout, torch.float32, seed), strict=True))
    parts[where][0, places, seed % 2] = number
    ours, plain = attend(*parts.values()), attend_at_once(*parts.values(), 1.0)
    torch.testing.assert_close(ours, plain, equal_nan=True, atol=1e-5, rtol=1e-4)


def test_energies_that_overflow_spread_as_in_the_formula():
    query, key, value = inputs((1, 30, 30, 2, 3), "rows", torch.float32, 0)
    query, key = query.abs() * 1e20, key.abs() * 1e20
    key[:, :25] *= -1  # a whole block of keys at minus infinity
    ours, plain = attend(query, key, value), attend_at_once(query, key, value, 1.0)
    assert plain.isnan().any()
    torch.testing.assert_close(ours, plain, equal_nan=True)


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_sharp_energies_pick_one_value(size: float):
    query, key, value = inputs((1, 20, 33, 8, 4), "map", torch.float32, 2)
    query = query * size
    assert error(attend(query, key, value), exactly(query, key, value)) < 1e-7 * size * 60


@pytest.mark.parametrize("shape", [(0, 5, 5, 3, 2), (2, 0, 5, 3, 2), (2, 5, 0, 3, 2), (2, 5, 5, 3, 0), (2, 5, 5, 0, 2)])
def test_axes_of_no_length(shape: Shape):
    parts = [part.requires_grad_() for part in inputs(shape, "rows", torch.float32, 0)]
    result = attend(*parts)
    torch.testing.assert_close(result.double(), exactly(*parts).nan_to_num())
    result.sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in parts)


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_result_lies_in_memory_as_the_query(blocks: bool, channels_last: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "_is_small", lambda *_: not blocks)
    form = torch.channels_last if channels_last else torch.contiguous_format
    query, key, value = (torch.randn(2, c, 5, 6).to(memory_format=form) for c in (4, 4, 8))
    result = to_map(attend(to_tokens(query), to_tokens(key), to_tokens(value)), (5, 6))
    assert result.is_contiguous(memory_format=form)


def test_autocast_keeps_energies_in_full_precision():
    query, key, value = inputs((1, 30, 40, 32, 6), "map", torch.float32, 7)
    parts = [part.detach().requires_grad_() for part in (query * 4, key, value)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = attend(*parts)
        gradients = torch.autograd.grad(result.sum(), parts)
    assert result.dtype == torch.float32
    assert error(result, exactly(*parts)) < 1e-5
    assert error(gradients[0], torch.autograd.grad(exactly(*parts).sum(), parts)[0]) < 1e-4


def test_torch_accepts_the_operators():
    parts = [part.requires_grad_() for part in inputs((2, 9, 13, 3, 4), "map", torch.float32, 0)]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.regard.attend.default, (*parts, 1.0), test_utils=tests)


def test_exported_programs_know_no_operator_of_ours():
    class Twice(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return attend(x, x, attend(x, x, x))

    length = torch.export.Dim("length", min=4, max=4096)
    x = torch.randn(1, 6, 30).mT
    program = torch.export.export(Twice(), (x,), dynamic_shapes=({1: length},), strict=False)
    assert "regard" not in str(program.graph)
    other = torch.randn(1, 6, 50).mT
    torch.testing.assert_close(program.module()(other), attend(other, other, attend(other, other, other)))


COMPILED = """
import torch
from regard.ops import attention
from regard.ops import attention_blockwise as blockwise

blockwise.ROWS, blockwise.KEYS, attention.SMALL = 7, 11, 0

def twice(query, key, value):
    return attention.attend(query, key, attention.attend(query, key, value), scale=0.5)

query, key, value = (torch.randn(2, width, 30).mT.requires_grad_() for width in (5, 5, 6))
slope = torch.randn(2, 30, 6)
compiled = torch.compile(twice, backend="BACKEND", fullgraph=True, dynamic=True)
for parts in ((query, key, value), [part[:, :20] for part in (query, key, value)]):
    slope = torch.randn_like(parts[2])
    for precision in (None, torch.bfloat16):
        with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            ours, plain = compiled(*parts), twice(*parts)
        torch.testing.assert_close(ours, plain)
        assert ours.stride() == plain.stride()
        gradients = [torch.autograd.grad(out, parts, slope) for out in (ours, plain)]
        torch.testing.assert_close(*gradients)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_twice_with_gradients_equals_eager(backend: str):
    """In a process of its own: the shape checks of these tests cannot be compiled."""
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    ran = subprocess.run([sys.executable, "-c", COMPILED.replace("BACKEND", backend)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
