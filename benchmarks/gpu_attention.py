"""Position attention on a GPU: the authors' formula, PyTorch's ways, and regard's; a row for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.attention_formula import SAMPLED, authors_attention
from benchmarks.gpu_measure import Row, Size, measured
from benchmarks.measure import difference
from regard.ops import attention as attention_ops
from regard.ops import attention_blockwise

Function = Callable[[Tensor, Tensor, Tensor], Tensor]


class Way(NamedTuple):
    """One way to compute attention; ``around`` is entered while it runs, backward pass included."""

    function: Function
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


def by_backend(backend: SDPBackend, heads: int = 1) -> Function:
    """PyTorch's SDPA by one backend; with ``heads``, each takes a part of the values and compares all over again."""

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = value.unflatten(2, (heads, -1)).transpose(1, 2).contiguous()
        inputs = (tensor[:, None].contiguous().expand(-1, heads, -1, -1) for tensor in (query, key))
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(*inputs, parts, scale=1.0).transpose(1, 2).flatten(2)

    return run


def flex(size: Size) -> Function:
    """PyTorch's flex_attention, compiled on a GPU."""
    from torch.nn.attention.flex_attention import flex_attention

    run = torch.compile(flex_attention, dynamic=False) if size.device == "cuda" else flex_attention

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return run(*(tensor[:, None].contiguous() for tensor in (query, key, value)), scale=1.0)[:, 0]

    return attend


def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The operator that networks call."""
    return torch.ops.regard.attend(query, key, value, 1.0)[0]


def with_kernels(size: Size) -> AbstractContextManager[Any]:
    """Our Triton kernels: on a CPU too, in Triton's interpreter."""
    from regard.ops import attention_triton

    def found(query: Tensor, key: Tensor, value: Tensor) -> bool:
        if size.device == "cuda" and not attention_ops.has_kernel(query, key, value):
            raise RuntimeError("no blocks of ours reproduce the formula here, see the rows of the self-check")
        return attention_triton.fits(query, key, value)

    return mock.patch.object(attention_blockwise, "has_kernel", found)


def without_kernels() -> AbstractContextManager[Any]:
    return mock.patch.object(attention_blockwise, "has_kernel", lambda *_: False)


def attention(size: Size, which: str) -> Iterator[Row]:
    """Position attention by some ways: ``regard``, ``PyTorch`` or ``flex``."""
    if which == "regard":
        yield from self_check(size, slice(1))
    ways = ways_of(which, size)
    few = which == "flex"  # each is compiled by itself
    for pixels in size.pixels[1::2] or size.pixels if few else size.pixels:
        for precision in size.precisions[:2] if few else size.precisions:
            torch.set_float32_matmul_precision("high" if precision.endswith("TF32") else "highest")
            for train in (False, True):
                dtype = torch.float32 if "float32" in precision else size.half
                inputs = tokens(pixels, dtype, size, train)
                exact = exactly(inputs, train) if pixels <= 4096 or not train else None
                for name, way in ways.items():
                    with way.around():
                        row = measured(partial(gradients if train else result, way.function, inputs), size)
                    given = {"n": pixels, "precision": precision, "backward": train, "way": name}
                    yield given | finished(row, exact, pixels * pixels * (size.key + size.value), train)
    if which == "regard":
        yield from other_blocks(size)
        yield from self_check(size, slice(1, None if size.device == "cuda" else 1))


def ways_of(which: str, size: Size) -> dict[str, Way]:
    if which == "flex":
        return {"flex_attention": Way(flex(size))}
    if which == "regard":
        return {"regard, Triton": Way(ours, partial(with_kernels, size)), "regard, blocks": Way(ours, without_kernels)}
    backends = {"SDPA math": SDPBackend.MATH, "SDPA flash": SDPBackend.FLASH_ATTENTION}
    backends |= {"SDPA efficient": SDPBackend.EFFICIENT_ATTENTION, "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION}
    ways = {"authors": Way(authors_attention), **{name: Way(by_backend(kind)) for name, kind in backends.items()}}
    for name in ("SDPA flash", "SDPA cuDNN"):  # they want values as wide as keys
        ways[f"{name}, 8 heads"] = Way(by_backend(backends[name], size.value // size.key))
    return ways


def tokens(pixels: int, dtype: torch.dtype, size: Size, train: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value as a 1x1 convolution leaves them; the energies' standard deviation is 1."""
    draw = torch.Generator().manual_seed(0)
    sizes = ((size.key, size.key**-0.25), (size.key, size.key**-0.25), (size.value, 1.0))
    made = [torch.randn(1, width, pixels, generator=draw) * spread for width, spread in sizes]
    query, key, value = (tensor.to(size.device, dtype).mT.requires_grad_(train) for tensor in made)
    return query, key, value


def result(function: Function, inputs: tuple[Tensor, ...]) -> Tensor:
    with torch.inference_mode():
        return function(*inputs)


def gradients(function: Function, inputs: tuple[Tensor, ...]) -> Tensor:
    found = torch.autograd.grad(function(*inputs), inputs, inputs[2].detach())
    return torch.cat([gradient.mT.flatten() for gradient in found])


def exactly(inputs: tuple[Tensor, ...], train: bool) -> Tensor:
    """In float64: the results of some queries, or all gradients."""
    query, key, value = (tensor.detach().double() for tensor in inputs)
    if train:
        return gradients(authors_attention, tuple(tensor.requires_grad_() for tensor in (query, key, value)))
    return authors_attention(sampled(query), key, value)


def sampled(rows: Tensor) -> Tensor:
    return rows[:, :: max(1, rows.shape[1] // SAMPLED)]


def finished(row: Row, exact: Tensor | None, products: int, train: bool) -> Row:
    """With the formula's operations per second, whatever a way adds to them, and the error relative to float64."""
    if "value" not in row:
        return row
    value = row.pop("value")
    if exact is not None:
        row["error"] = difference(value if train else sampled(value), exact)
    return row | {"TFLOP/s": (3 if train else 1) * 2e-9 * products / row["ms"]}


def self_check(size: Size, plans: slice) -> Iterator[Row]:
    """What decides whether our kernels are used, for some sets of blocks: the largest error, or why there is none."""
    from regard.ops import attention_triton as kernels

    for dtype, all_plans in ((size.half, kernels.HALF), (torch.float32, kernels.SINGLE)):
        for plan in all_plans[plans]:
            began = time.perf_counter()
            try:
                error = kernels._largest_error(torch.device(size.device), dtype, (size.key, size.value), plan)
                row: Row = {"error": error}
            except Exception as failure:
                row = {"result": f"{type(failure).__name__}: {' '.join(str(failure).split())[:400]}"}
            seconds = round(time.perf_counter() - began, 1)  # to compile, above all
            yield {"way": f"self-check {dtype} {tuple(map(tuple, plan))}", "seconds": seconds} | row


def other_blocks(size: Size) -> Iterator[Row]:
    """Other sizes of blocks, in 16 bits, forward and backward: what to choose by."""
    from regard.ops import attention_triton as kernels

    best, pixels = kernels.HALF[0], size.pixels[len(size.pixels) // 2]
    tried = {"mean": ((64, 64, 256, 4, 3), (64, 64, 512, 8, 2), (128, 64, 128, 4, 3), (128, 128, 128, 8, 2))}
    tried |= {"value": ((64, 64, 256, 4, 3), (128, 64, 128, 4, 3), (128, 128, 128, 8, 2))}
    tried |= {"slope": ((64, 64, 512, 4, 1), (64, 32, 512, 4, 2), (128, 64, 512, 8, 1), (128, 64, 64, 8, 3))}
    for kernel, choices in tried.items():
        for blocks in choices if size.device == "cuda" else choices[:1]:
            plan, train = best._replace(**{kernel: kernels.Blocks(*blocks)}), kernel != "mean"
            inputs = tokens(pixels, size.half, size, train)
            with with_kernels(size), mock.patch.object(kernels, "plan_for", lambda *_, plan=plan: plan):
                row = measured(partial(gradients if train else result, ours, inputs), size)
            row.pop("value", None)
            yield {"way": f"{kernel} {blocks}", "n": pixels, "precision": size.precisions[0], "backward": train} | row
