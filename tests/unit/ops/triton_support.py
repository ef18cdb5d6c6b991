"""The GPU kernels of attention without a GPU, in a process of its own, which prints a line of JSON.

python tests/unit/ops/triton_support.py interpret    in Triton's interpreter: largest relative errors
python tests/unit/ops/triton_support.py compile      for an H100: matrix instructions, shared memory
"""

from __future__ import annotations

import json
import os
import sys

if sys.argv[1] == "interpret":
    os.environ["TRITON_INTERPRET"] = "1"  # before the first import of Triton

from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from regard.ops import attention_blockwise, attention_kernels, attention_triton

SIZES = {  # images, queries, keys, channels of keys and of values
    "position attention": (1, 70, 90, 64, 512),
    "several images, ragged blocks": (2, 150, 70, 20, 72),
    "few channels": (1, 40, 150, 3, 17),
}
SHARP = 3.0  # standard deviation of the energies: far from uniform attention


def draw(sizes: tuple[int, ...], dtype: torch.dtype, *, as_map: bool) -> list[Tensor]:
    """Query, key, value and a gradient of the output; ``as_map``: views of (b, c, h, w) maps."""
    b, n, m, d, c = sizes
    shapes = ((n, d, (SHARP**2 / d) ** 0.25), (m, d, (SHARP**2 / d) ** 0.25), (m, c, 1.0), (n, c, 1.0))
    made = [torch.randn(b, *((w, k) if as_map else (k, w))) * size for k, w, size in shapes]
    return [(tensor.mT if as_map else tensor).to(dtype) for tensor in made]


def results(inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """The output and the gradients, through the operator that networks call."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out = torch.ops.regard.attend(*leaves, 1.1)[0]
    assert (out.stride(1) == 1) == (inputs[0].stride(1) == 1), "the output lies in memory as the query does"
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]


def exactly(inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """The same by the formula as written, in float64."""
    query, key, value = leaves = [tensor.detach().double().requires_grad_() for tensor in inputs]
    out = torch.einsum("bnm,bmc->bnc", torch.einsum("bnd,bmd->bnm", query, key).mul(1.1).softmax(-1), value)
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient.double())]


def errors(inputs: list[Tensor], gradient: Tensor) -> list[float]:
    pairs = zip(results(inputs, gradient), exactly(inputs, gradient), strict=True)
    return [float((mine.double() - right).abs().max() / right.abs().max()) for mine, right in pairs]


def compiled(dtype: str, kernel: str) -> tuple[int, int]:
    """Matrix instructions and bytes of shared memory of a kernel for keys of 64 and values of 512 channels."""
    plan = (attention_triton.HALF if dtype == "bf16" else attention_triton.SINGLE)[0]
    blocks: attention_triton.Blocks = getattr(plan, kernel)
    floats = {"mean": "ttttf", "value": "tttft", "slope": "ttttfft"}[kernel]
    names: dict[str, Any] = {"tensors": tuple({"t": f"*{dtype}", "f": "*fp32"}[letter] for letter in floats)}
    names |= {"sizes": ("i32",) * 4, **({"strides": ("i32", "i32")} if kernel == "mean" else {}), "scale": "fp32"}
    names |= {"by_key": "constexpr"} if kernel == "slope" else {}
    names |= {"blocks": ("constexpr",) * 5, "exact": "constexpr"}
    places = {name: place for place, name in enumerate(names)}
    shape = (blocks.rows, blocks.others, blocks.channels, 64, 512)
    given: dict[tuple[int, ...], Any] = {(places["blocks"], i): size for i, size in enumerate(shape)}
    given |= {(places["exact"],): "tf32x3"} | ({(places["by_key"],): True} if kernel == "slope" else {})
    aligned = {(at, i): [["tt.divisibility", 16]] for at in (0, 1) for i in range(len((floats, "nmdc")[at]))}
    source = ASTSource(getattr(attention_kernels, f"{kernel}_kernel"), names, given, aligned)
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return binary.asm["ptx"].count("wgmma.mma_async"), binary.metadata.shared


def interpreted() -> dict[str, object]:
    calls: list[bool] = []

    def on_gpu(*inputs: Tensor) -> bool:
        calls.append(attention_triton.fits(*inputs))
        return calls[-1]

    attention_blockwise.has_kernel = on_gpu
    torch.manual_seed(0)
    found: dict[str, object] = {}
    for name, sizes in SIZES.items():
        for dtype in (torch.float32, torch.float16):
            *inputs, gradient = draw(sizes, dtype, as_map=dtype == torch.float32)
            found[f"{name}, {dtype}"] = errors(inputs, gradient)
    *inputs, gradient = draw((1, 40, 150, 8, 24), torch.float32, as_map=False)
    first, again = results(inputs, gradient), results(inputs, gradient)
    found["repeats"] = all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    with torch.inference_mode():  # as a map is predicted
        plan = attention_triton.SINGLE[1]
        found["self-check"] = attention_triton._largest_error(torch.device("cpu"), torch.float32, (8, 24), plan)
    inputs[0][..., 0], inputs[1][..., 0] = 1e20, 0.0
    inputs[1][:, :100, 0] = -1e20  # energies beyond float32: a whole block of keys that no query attends to
    out = torch.ops.regard.attend(*inputs, 1.0)[0]
    right = torch.softmax(inputs[0].double() @ inputs[1].double().mT, dim=-1) @ inputs[2].double()
    found["keys at -inf"] = float((out - right).abs().max())
    found["calls"] = [len(calls), sum(calls)]
    return found


if __name__ == "__main__":
    if sys.argv[1] == "interpret":
        print(json.dumps(interpreted()))
    else:
        kernels = [(dtype, kernel) for dtype in ("bf16", "fp32") for kernel in attention_triton.Plan._fields]
        print(json.dumps({" ".join(kernel): compiled(*kernel) for kernel in kernels}))
