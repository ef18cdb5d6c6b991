"""Matrix products in float32 by the fastest exact routine that PyTorch holds.

On a CPU, PyTorch computes products of float32 by MKL, which reaches less than half of the processor's rate where it is
not Intel's. oneDNN, which PyTorch holds too and convolves by, is as fast as MKL on Intel and more than twice as fast on
AMD. PyTorch offers a product by oneDNN only under a private name; where that is missing, as on other devices and in
other precisions, the usual product is taken. Nothing else decides: a run that is resumed gives the same bytes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def _find_onednn() -> bool:
    """Whether this PyTorch multiplies by oneDNN under the name and with the arguments that we know."""
    try:
        unit = torch.ones(1, 1)
        return bool(torch.ops.mkldnn._linear_pointwise(unit, unit, None, "none", [], "").item() == 1)
    except (AttributeError, RuntimeError, TypeError):
        return False


HAS_ONEDNN = _find_onednn()


def multiply(left: Float[Tensor, "r d"], right: Float[Tensor, "d w"]) -> Float[Tensor, "r w"]:
    """Left · right, of one precision; gradients do not pass through it.

    oneDNN is slow where its second factor is cut out of a wider matrix, so that one goes first, transposed.
    """
    if HAS_ONEDNN and left.dtype == right.dtype == torch.float32 and left.device.type == "cpu" and left.numel():
        multiply_transposed = torch.ops.mkldnn._linear_pointwise
        if _is_dense(right):
            return multiply_transposed(left, right.t(), None, "none", [], "")
        if _is_dense(left):
            return multiply_transposed(right.t(), left, None, "none", [], "").t()
    return left @ right


def _is_dense(matrix: Float[Tensor, "r w"]) -> bool:
    """Whether its numbers lie side by side in memory, by rows or by columns."""
    return matrix.is_contiguous() or matrix.t().is_contiguous()
