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

from regard.ops import attention_blockwise, attention_triton

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


class Hopper:
    """What Triton asks of a GPU's driver before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: object = None) -> int:
        return 0


class Compiled:
    """Stands for a kernel: compiles it for the arguments that it is called with, and notes what comes out."""

    def __init__(self, kernel: Any, found: list[tuple[int, int]]) -> None:
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: object, **options: object) -> None:
            binary = self.kernel.warmup(*arguments, grid=grid, **options)
            self.found.append((binary.asm["ptx"].count("wgmma.mma_async"), binary.metadata.shared))

        return launch


def compiled() -> dict[str, tuple[int, int]]:
    """Matrix instructions and bytes of shared memory of each kernel, for keys of 64 and values of 512 channels."""
    triton.runtime.driver.set_active(Hopper())
    found: list[tuple[int, int]] = []
    for name in ("mean_kernel", "value_kernel", "slope_kernel"):
        setattr(attention_triton, name, Compiled(getattr(attention_triton, name), found))
    for dtype in (torch.bfloat16, torch.float32):
        *inputs, gradient = draw((1, 150, 170, 64, 512), dtype, as_map=False)
        attention_triton.attend(*inputs, 1.0, gradient, gradient.new_empty(1, 150, dtype=torch.float32))
        attention_triton.attend_backward(gradient, tuple(inputs), gradient, torch.empty(1, 150), 1.0)
    names = (f"{dtype} {name}" for dtype in ("bfloat16", "float32") for name in ("mean", "value", "query", "key"))
    return dict(zip(names, found, strict=True))


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
    print(json.dumps(interpreted() if sys.argv[1] == "interpret" else compiled()))
