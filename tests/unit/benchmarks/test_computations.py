"""The benchmarks run at small sizes, compare what they time, and print tables."""

from __future__ import annotations

import json
import mmap
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import cases
from benchmarks.computations import benchmark, growth, main, markdown
from benchmarks.measure import compare, peak_above_now_mb
from regard.blocks import self_attention
from regard.errors import ConfigError, UnknownName

SMALL = {"attention": 1100, "upsample": 64, "evaluate": 64, "model": 64}


@pytest.mark.parametrize("what", ["attention", "upsample", "evaluate"])
def test_every_case_gives_a_row_and_agrees(what: str):
    result = benchmark(what, sizes=[SMALL[what]], pairs=1, memory=False)
    assert [row["case"] for row in result["rows"]] == list(cases.CASES[what])
    for row in result["rows"]:
        assert row["least"] <= row["faster"] <= row["most"]
        assert row.get("labels that differ", 0) == row.get("counts that differ", 0) == 0
        assert max(row.get("ours error", 0), row.get("difference", 0)) < 1e-2
    table = markdown(result)
    assert table.count("\n|") == 2 + len(result["rows"])
    assert all(row["case"] in table for row in result["rows"])


def test_the_networks_own_attention_is_put_back():
    case = cases.network(64, architecture="danet", backbone="resnet18")
    assert case.facts()["difference"] < 1e-4
    assert self_attention.attend is cases.attend
    assert cases.fast_network(64, architecture="ocrnet", backbone="resnet18").facts()["difference"] < 1e-4


def test_threads_and_random_numbers_are_left_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    benchmark("upsample", sizes=[32], pairs=1, memory=False, threads=2)
    assert torch.get_num_threads() == 1
    assert torch.equal(torch.rand(1), expected)


def test_an_unknown_benchmark_is_refused():
    with pytest.raises(UnknownName, match="attention"):
        benchmark("atention")


def test_the_command_prints_and_writes_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    quick = ["--sizes", "32", "64", "--pairs", "1", "--no-memory"]
    for name in ("speed.json", "speed.md"):
        main(["upsample", "evaluate", *quick, "-o", str(tmp_path / name), "--json"])
        results = json.loads(capsys.readouterr().out)["benchmarks"]
        assert [result["benchmark"] for result in results] == ["upsample", "evaluate"]
        assert [row["n"] for row in results[0]["rows"]] == [32, 64]
    assert (tmp_path / "speed.md").read_text() == "\n".join(map(markdown, results))
    assert len(json.loads((tmp_path / "speed.json").read_text())) == 2
    with pytest.raises(ConfigError, match=r"\.md or \.json; got speed\.csv"):
        main(["attention", "-o", str(tmp_path / "speed.csv")])


def test_growth_is_the_power_of_n():
    rows = [{"n": n, "case": "a", "reference ms": 3e-4 * n**2, "ours extra MB": 0.5 * n} for n in (100, 300, 1000)]
    assert growth(rows) == {"a": {"reference ms": 2.0, "ours extra MB": 1.0}}
    unmeasured = [row | {"ours extra MB": None} for row in rows]  # where the system does not tell
    assert growth(unmeasured) == {"a": {"reference ms": 2.0}}


def test_compare_knows_the_faster():
    few, many = torch.randn(100, 100), torch.randn(400, 400)
    assert compare(lambda: many @ many, lambda: few @ few, pairs=3)["faster"] > 5


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_peak_memory_counts_what_is_freed_again():
    pages = 100 * 2**20  # mapped anew: malloc may have kept memory that another test has freed
    assert 90 < peak_above_now_mb(lambda: torch.frombuffer(mmap.mmap(-1, pages), dtype=torch.uint8).fill_(1)) < 300


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_of_both_sides_in_processes_of_their_own():
    row, *_ = benchmark("attention", sizes=[4096], pairs=1)["rows"]
    attention_map = 4096**2 * 4 / 2**20
    assert row["ours extra MB"] < attention_map < row["reference extra MB"]
