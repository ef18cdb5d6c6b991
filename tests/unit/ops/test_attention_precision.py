"""Attention where precision, infinities and torch's own GPU kernel decide; against float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from regard.ops import attention
from regard.ops import attention_blockwise as blockwise
from regard.ops.attention import attend, attention_map, gather_objects


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, and no problem too small for them."""
    monkeypatch.setattr(blockwise, "ROWS", 7)
    monkeypatch.setattr(blockwise, "KEYS", 11)
    monkeypatch.setattr(attention, "_is_small", lambda *_: False)


def parts(n: int, m: int, d: int, c: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, rows, width).to(dtype) for rows, width in ((n, d), (m, d), (m, c))]


def exactly(query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
    return (scale * query.double() @ key.double().mT).softmax(dim=2) @ value.double()


def test_gather_weighs_in_full_precision_by_rounded_logits():
    tokens, logits = torch.randn(2, 500, 6), (4 * torch.randn(2, 5, 500)).bfloat16()
    found = gather_objects(tokens, logits)
    torch.testing.assert_close(found.double(), logits.double().softmax(dim=2) @ tokens.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, -0.7])
def test_the_map_is_scaled_and_not_rounded_under_autocast(scale: float):
    query, key, _ = parts(9, 12, 30, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention_map(query, key, scale=scale)
    expected = (scale * query.double() @ key.double().mT).softmax(dim=2)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("as_map", [True, False])
def test_a_small_problem_is_not_rounded_under_autocast(as_map: bool):
    query, key, value = parts(9, 12, 30, 5)
    query = query.mT.contiguous().mT if as_map else query
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attend(query, key, value)
    torch.testing.assert_close(found.double(), exactly(query, key, value), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("as_map", [True, False])
def test_weights_are_rounded_after_the_softmax(as_map: bool):
    query, key, value = parts(60, 50, 30, 5, torch.bfloat16)
    query = query.mT.contiguous().mT if as_map else query
    assert error(attend(4 * query, key, value), exactly(4 * query, key, value)) < 2 * 2**-9


@pytest.mark.parametrize("scale", [1.0, -1.0])
@pytest.mark.parametrize(("width", "size"), [(1, 1e20), (2, 1.5e19), (8, 1e19)], ids=["product", "below", "sum"])
@pytest.mark.usefixtures("blocks")
def test_keys_at_minus_infinity_weigh_nothing(width: int, size: float, scale: float):
    """Whole blocks of them, where only the sum of the products may overflow too."""
    query, key, value = torch.full((1, 9, width), size), torch.rand(1, 40, width) / size, torch.randn(1, 40, 3)
    key[:, :30] = -scale * size
    found = attend(query, key, value, scale=scale)
    torch.testing.assert_close(found.double(), exactly(query, key, value, scale), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", [0, 20, 39])
@pytest.mark.parametrize("number", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.usefixtures("blocks")
def test_an_infinite_value_that_sharp_energies_pass_over(number: float, place: int):
    query, key, value = parts(30, 40, 4, 3)
    query, value[:, place] = 60 * query, number
    found, formula = attend(query, key, value), attention.attend_at_once(query, key, value, 1.0)
    torch.testing.assert_close(found, formula, equal_nan=True, rtol=1e-3, atol=1e-4)
    assert formula.isinf().any() or formula.isnan().all()


def error(found: Tensor, exact: Tensor) -> float:
    """Root mean square, relative."""
    return float(((found.double() - exact).norm() / exact.norm()).detach())


# In units of bfloat16's rounding: the result, and the gradients of query, key and value.
ROUNDING = (2.5, 4.5, 2.1, 1.6)


@pytest.mark.usefixtures("blocks")
def test_sums_over_many_blocks_are_not_rounded_to_half_precision():
    parts_of = [part[:1].requires_grad_() for part in parts(140, 330, 3, 4, torch.bfloat16)]
    slope = torch.randn(1, 140, 4).bfloat16() + 1
    result, exact = attend(*parts_of), exactly(*parts_of)
    found = (result, *torch.autograd.grad(result, parts_of, slope))
    expected = (exact, *torch.autograd.grad(exact, parts_of, slope.double()))
    errors = [error(mine, wanted) / 2**-9 for mine, wanted in zip(found, expected, strict=True)]
    assert [most for most, one in zip(ROUNDING, errors, strict=True) if not one < most] == [], errors


@pytest.mark.parametrize(
    ("n", "m", "c", "whole"), [(1024, 1024, 1, True), (1025, 1024, 1, False), (1100, 990, 991, True)]
)
def test_a_map_larger_than_a_million_energies_and_than_the_result_is_never_whole(
    n: int, m: int, c: int, whole: bool, monkeypatch: pytest.MonkeyPatch
):
    sizes, compute = [], attention.energies

    def record(query: Tensor, key: Tensor, scale: float) -> Tensor:
        sizes.append(query.shape[1] * key.shape[1])
        return compute(query, key, scale)

    monkeypatch.setattr(attention, "energies", record)
    attend(torch.randn(1, n, 1), torch.randn(1, m, 1), torch.randn(1, m, c))
    assert sizes == ([n * m] if whole else [])


class OnGpu(Tensor):
    """A tensor of the CPU that says that it is on a GPU."""

    is_cuda = True


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of torch's fused kernel, which are computed on the CPU; ours are left out."""
    calls, compute = [], attention.F.scaled_dot_product_attention

    def record(*given: Tensor, **options: float) -> Tensor:
        calls.append("fused")
        return compute(*given, **options)

    monkeypatch.setattr(attention, "SMALL", 0)
    monkeypatch.setattr(attention, "has_kernel", lambda *_: False)
    monkeypatch.setattr(blockwise, "has_kernel", lambda *_: False)
    monkeypatch.setattr(torch.backends.cuda, "can_use_flash_attention", lambda _: True)
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", record)
    return calls


@pytest.mark.parametrize("same", [True, False], ids=["one precision", "two precisions"])
@pytest.mark.usefixtures("unchecked")
def test_torchs_kernel_takes_the_scale_and_one_precision(same: bool, fused: list[str]):
    query, key, value = (part.as_subclass(OnGpu) for part in parts(5, 9, 8, 4))
    found = attend(query if same else query.double(), key, value, scale=0.3)
    expected = exactly(query, key, value, 0.3).as_subclass(Tensor)
    torch.testing.assert_close(found.as_subclass(Tensor).double(), expected, rtol=1e-5, atol=1e-6)
    assert fused == (["fused"] if same else [])


def test_second_derivatives_know_the_scale(blocks: None):
    query, key, value = (part.double().requires_grad_() for part in parts(8, 12, 2, 3))
    call: Callable[..., Tensor]
    seconds = []
    for call in (lambda *given: attend(*given, scale=0.3), lambda *given: exactly(*given, 0.3)):
        (first,) = torch.autograd.grad(call(query, key, value).square().sum(), query, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), key)[0])
    torch.testing.assert_close(*seconds)
