"""``python -m benchmarks gpu`` without a GPU: every step at toy size, and how a part may end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import LIMITS, markdown, merged, pivoted, run_all, run_part
from benchmarks.gpu_measure import TOY, measured
from regard.errors import ConfigError, RegardError

pytestmark = pytest.mark.slow

NOT_ON_A_CPU = {"SDPA flash", "SDPA efficient", "SDPA cuDNN", "SDPA cuDNN, 8 heads"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The results and the tables of a whole run, by the command."""
    pytest.importorskip("triton", reason="Triton comes with PyTorch for Linux")
    out = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-m", "benchmarks", "gpu", "--toy", "-o", out]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=Path(gpu.__file__).parents[1])
    assert ran.returncode == 0, ran.stderr
    return json.loads((out / "gpu.json").read_text()), (out / "gpu.md").read_text()


@pytest.mark.slow
def test_every_part_measures_something_and_nothing_fails(toy: tuple[dict[str, Any], str]):
    results, text = toy
    assert list(results["parts"]) == list(LIMITS)
    for name, part in results["parts"].items():
        assert part["rows"], name
        assert not part["note"], name
        assert f"## {name[0].upper()}{name[1:]}" in text
        failed = [row for row in part["rows"] if "result" in row and row["way"] not in NOT_ON_A_CPU]
        assert all(row["way"] == "flex_attention" and row["backward"] for row in failed), "CPUs have no backward of it"


@pytest.mark.slow
def test_every_way_of_attention_is_right(toy: tuple[dict[str, Any], str]):
    results, text = toy
    rows = [row for name in LIMITS if name.startswith("attention") for row in results["parts"][name]["rows"]]
    errors = [(row["way"], row["error"], row.get("precision") == "float32") for row in rows if "error" in row]
    assert {"regard, Triton", "regard, blocks", "authors", "SDPA math", "flex_attention"} <= {way for way, *_ in errors}
    assert all(error < (1e-5 if exact else 1e-2) for _, error, exact in errors)
    assert {row["way"].split()[0] for row in rows if row["way"].endswith(")")} == {
        "self-check",
        "mean",
        "value",
        "slope",
    }
    assert "| n | precision | backward | regard, Triton |" in text


@pytest.mark.slow
def test_the_other_parts_say_what_they_should(toy: tuple[dict[str, Any], str]):
    parts = {name: part["rows"] for name, part in toy[0]["parts"].items()}
    steps = {(row["network"].split()[0], row["precision"], row["way"]) for row in parts["training step"]}
    assert len(steps) == 2 * 2 * 2
    assert all(row["Mpx/s"] > 0 and row["loss"] > 0 for row in parts["training step"])
    (scene,) = parts["scene"]
    assert scene["complete"] and scene["windows"] == 9 and scene["Mpx/s"] > 0
    (run,) = parts["study"]
    assert run["steps"] == 1 and 0 < run["val_miou"] < 1


@pytest.mark.slow
def test_what_only_a_gpu_runs_has_run_here_with_stand_ins(tmp_path: Path):
    """Events, peak memory, use of the GPU, transfers: where a typing error would show only on the GPU."""
    pytest.importorskip("triton", reason="Triton comes with PyTorch for Linux")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nwhile true; do echo 40; echo 60; sleep 0.1; done\n")
    tool.chmod(0o755)
    script = Path(__file__).with_name("pretended_gpu.py")
    paths = os.pathsep.join([str(Path(gpu.__file__).parents[1]), *sys.path])
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": paths}
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    rows = merged(ran.stdout.splitlines())
    assert not [row for row in rows if "result" in row]
    (machine,) = (row for row in rows if row["part"] == "machine")
    assert (machine["device"], machine["memory GB"]) == ("NVIDIA Pretence", 80)
    assert machine["TFLOP/s of a product"] == pytest.approx(2 * 64**3 / 1e-3 / 1e12)
    assert all((row["ms"], row["GB"]) == (1, 2.5) for row in rows if "ms" in row)
    assert [row["GPU use %"] for row in rows if row["part"] == "scene"] == [pytest.approx(50, abs=10)]
    assert [row["steps"] for row in rows if row["part"] == "study"] == [1]
    assert sum(row.get("way", "").startswith("self-check") for row in rows) == 4


def test_out_of_memory_is_a_result_and_a_lost_device_is_the_end(monkeypatch: pytest.MonkeyPatch):
    size, given_back = replace(TOY, device="cuda"), []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(True))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def fails(error: Exception) -> torch.Tensor:
        raise error

    assert measured(partial(fails, torch.OutOfMemoryError("CUDA out of memory")), size) == {"result": "out of memory"}
    row = measured(partial(fails, RuntimeError("CUDA error: invalid argument\nmore")), size)
    assert row == {"result": "RuntimeError: CUDA error: invalid argument"}
    assert len(given_back) == 2
    monkeypatch.setattr(torch.cuda, "synchronize", partial(fails, RuntimeError("illegal memory access")))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        measured(partial(fails, RuntimeError("CUDA error")), size)


def child(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_part_that_takes_too_long_is_stopped_and_what_it_measured_is_kept():
    code = "import time; print('{\"n\": 1}', flush=True); print('{\"n\":', end='', flush=True); time.sleep(60)"
    part = run_part(child(code), 3)
    assert part["rows"] == [{"n": 1}]
    assert part["note"] == "stopped after 3 s"
    assert part["seconds"] < 30


def test_a_part_that_fails_keeps_its_rows_and_says_why():
    part = run_part(child("print('{\"n\": 1}', flush=True); raise SystemExit('CUDA error: launch failed')"), 60)
    assert part["rows"] == [{"n": 1}]
    assert part["note"] == "ended with 1: CUDA error: launch failed"
    killed = run_part(child("import os; print('{\"n\": 2}', flush=True); os.abort()"), 60)
    assert killed["rows"] == [{"n": 2}]
    assert killed["note"].startswith("ended with -6")


def test_later_lines_about_the_same_scene_add_to_its_row():
    lines = ['{"model": "m", "side": 9, "windows": 3}', '{"model": "m", "side": 9, "windows": 5, "Mpx/s": 2}']
    assert merged([*lines, '{"model": "m", "side": 8}', "{"]) == [
        {"model": "m", "side": 9, "windows": 5, "Mpx/s": 2},
        {"model": "m", "side": 8},
    ]


def test_out_of_memory_stands_in_its_column():
    about = {"n": 65536, "precision": "float32", "backward": True}
    ours = about | {"way": "regard, Triton", "ms": 12.345, "GB": 0.2, "error": 1e-6}
    rows = [ours, about | {"way": "authors", "result": "out of memory"}]
    assert pivoted(rows) == [about | {"regard, Triton": "12.35 ms, 0.20 GB, 1e-06", "authors": "out of memory"}]
    parts = {"attention, regard": {"seconds": 1, "note": "", "rows": rows}}
    assert "| 65536 | float32 | True | 12.35 ms, 0.20 GB, 1e-06 | out of memory |" in markdown(
        {"missing": [], "parts": parts}
    )


def test_one_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(gpu, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(ConfigError, match=r"has no torch\. Give make gpu a PYTHON that has PyTorch\.$"):
        run_all(tmp_path / "out", toy=False, seconds=10)
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_the_run_ends_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    failed = {"seconds": 1, "note": "ended with 1: RuntimeError: No CUDA GPUs are available", "rows": []}
    monkeypatch.setattr(gpu, "run_part", lambda *_: failed)
    with pytest.raises(RegardError, match="No CUDA GPUs are available"):
        run_all(tmp_path, toy=False, seconds=10)


def test_parts_for_which_no_time_is_left_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    given: list[float] = []

    def run(command: list[str], seconds: float) -> dict[str, Any]:
        given.append(seconds)
        monkeypatch.setattr(gpu.time, "monotonic", lambda: 1e9 + 97 * len(given))
        return {"seconds": 97, "note": "", "rows": [{"part": command[-1], "way": "x"}]}

    monkeypatch.setattr(gpu.time, "monotonic", lambda: 1e9)
    monkeypatch.setattr(gpu, "run_part", run)
    parts = run_all(tmp_path, toy=False, seconds=200)["parts"]
    assert given == [40, 103, 6]
    assert [part["note"] for part in parts.values()] == ["", "", "", *["no time left"] * 4]
