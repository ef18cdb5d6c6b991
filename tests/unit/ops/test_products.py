"""Products are exact in float32 for factors that lie in memory in any way, and fast for those of attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from regard.ops import products
from regard.ops.products import multiply


def laid(rows: int, columns: int, way: str) -> Tensor:
    """A random matrix, by rows, by columns, or cut out of a wider one."""
    if way == "rows":
        return torch.randn(rows, columns)
    if way == "columns":
        return torch.randn(columns, rows).t()
    wide = torch.randn(rows + 3, columns + 5) if way == "cut rows" else torch.randn(columns + 5, rows + 3).t()
    return wide[2 : rows + 2, 1 : columns + 1]


WAYS = st.sampled_from(["rows", "columns", "cut rows", "cut columns"])
SIDE = st.integers(1, 70)


@given(rows=SIDE, inner=SIDE, columns=SIDE, left=WAYS, right=WAYS, seed=st.integers(0, 10_000))
@torch.inference_mode()
def test_factors_may_lie_in_any_way(rows: int, inner: int, columns: int, left: str, right: str, seed: int) -> None:
    torch.manual_seed(seed)
    a, b = laid(rows, inner, left), laid(inner, columns, right)
    torch.testing.assert_close(multiply(a, b).double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_keep_theirs(dtype: torch.dtype) -> None:
    a, b = torch.randn(5, 4, dtype=dtype), torch.randn(4, 3, dtype=dtype)
    assert torch.equal(multiply(a, b), a @ b)


def test_without_the_private_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "HAS_ONEDNN", False)
    a, b = torch.randn(5, 4), torch.randn(4, 3)
    assert torch.equal(multiply(a, b), a @ b)
