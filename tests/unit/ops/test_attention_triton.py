"""The GPU kernels of attention, without a GPU: run by Triton's interpreter, and compiled for Hopper."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

pytest.importorskip("triton", reason="Triton comes with PyTorch for Linux")

from regard.ops import attention, attention_triton

pytestmark = pytest.mark.slow

LARGEST = {"torch.float32": 1e-5, "torch.float16": 3e-3}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    return run("interpret")


def run(*arguments: str) -> Any:
    """What ``triton_support`` prints: in a process of its own, without checks of types: Triton cannot read them."""
    script = Path(__file__).with_name("triton_support.py")
    ran = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("dtype", LARGEST)
@pytest.mark.parametrize("name", ["position attention", "several images, ragged blocks", "few channels"])
def test_the_result_and_its_gradients_are_the_formulas(interpreted: dict[str, Any], name: str, dtype: str):
    assert max(interpreted[f"{name}, {dtype}"]) < LARGEST[dtype]


def test_equal_inputs_give_equal_bytes(interpreted: dict[str, Any]):
    assert interpreted["repeats"]


def test_the_self_check_passes_in_inference_mode(interpreted: dict[str, Any]):
    assert interpreted["self-check"] < 1e-5


def test_keys_that_no_query_attends_to_change_nothing(interpreted: dict[str, Any]):
    assert interpreted["keys at -inf"] < 1e-5


def test_the_operator_called_the_kernels_every_time(interpreted: dict[str, Any]):
    calls, taken = interpreted["calls"]
    assert calls == taken == 2 * 8 + 1


def tokens(d: int, c: int, dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, ...]:
    return tuple(torch.empty(1, 2000, width, dtype=dtype, device="meta") for width in (d, d, c))


@pytest.mark.parametrize(
    ("inputs", "fits"),
    [
        (tokens(64, 512), True),
        (tokens(32, 256, torch.float32), True),
        (tokens(64, 512, torch.float64), False),
        (tokens(512, 512), False),  # PyTorch's kernels take these
        (tokens(64, 1024), False),
        ((*tokens(64, 512)[:2], tokens(64, 512, torch.float32)[2]), False),
    ],
)
def test_which_shapes_and_precisions_the_kernels_take(inputs: tuple[torch.Tensor, ...], fits: bool):
    assert attention_triton.fits(*inputs) is fits


def test_a_cpu_has_no_kernel():
    assert not attention.has_kernel(*(torch.zeros(1, 2, width) for width in (4, 4, 8)))


@pytest.fixture(scope="module")
def compiled() -> dict[str, list[int]]:
    return run("compile")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kernel", ["mean", "value", "query", "key"])
def test_the_kernels_compile_for_hopper(compiled: dict[str, list[int]], dtype: str, kernel: str):
    matrix_instructions, shared_memory = compiled[f"{dtype} {kernel}"]
    assert matrix_instructions > 0, "Hopper's own"
    assert shared_memory <= 227 * 1024, "bytes that a program may use on an H100"


def test_a_gpu_takes_the_kernels_only_where_they_work(monkeypatch: pytest.MonkeyPatch):
    with FakeTensorMode():
        inputs = tuple(torch.empty(1, 2000, width, dtype=torch.bfloat16, device="cuda") for width in (64, 64, 512))
    for plan in (None, attention_triton.HALF[1]):
        monkeypatch.setattr(attention_triton, "working_plan", lambda *_, plan=plan: plan)
        assert attention.has_kernel(*inputs) == (plan is not None)
    assert attention_triton.plan_for(inputs[0], inputs[2]) == attention_triton.HALF[1]
    monkeypatch.setattr(attention, "HAS_TRITON", False)
    assert not attention.has_kernel(*inputs)


@pytest.mark.parametrize(
    ("outcomes", "chosen"),
    [([1e-3], 0), ([float("inf"), 1e-3], 1), ([RuntimeError("out of resources"), 1e-3], 1), ([0.5, OSError()], None)],
)
def test_the_first_blocks_that_reproduce_the_formula_are_taken(
    monkeypatch: pytest.MonkeyPatch, outcomes: list[float | Exception], chosen: int | None
):
    left = iter(outcomes)

    def error(*_: object) -> float:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(attention_triton, "_largest_error", error)
    plan = attention_triton.working_plan.__wrapped__(torch.device("cuda"), torch.bfloat16, 64, 512)
    assert plan == (None if chosen is None else attention_triton.HALF[chosen])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert attention_triton.working_plan.__wrapped__(torch.device("cuda"), torch.bfloat16, 64, 512) is None
