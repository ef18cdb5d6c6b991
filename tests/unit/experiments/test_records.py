"""Records of studies survive the table, and the tables of docs/ follow from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import records
from experiments.bundled import table as bundled
from experiments.conflict import compare, plot
from experiments.landsat import table as landsat
from experiments.three_networks import table as three_networks

ROOT = Path(__file__).parents[3]
STUDIES = ("bundled", "conflict", "landsat", "three_networks")


def recorded(study: str) -> records.Records:
    return records.read(ROOT / "experiments" / study / "records.csv.gz")


def test_values_of_all_kinds_survive_the_table(tmp_path: Path) -> None:
    kept = {
        "a/run.json": [{"name": "danet", "precision": "32", "none": None, "empty": "", "list": [1, {"x": 0.1}]}],
        "a/metrics.jsonl": [{"step": 1, "loss": 0.6690829659228521}, {"step": 2, "done": True, "text": 'a, "b"\nc'}],
    }
    records.write(kept, tmp_path / "records.csv.gz")
    assert records.read(tmp_path / "records.csv.gz") == kept


def test_collect_adds_runs_and_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, folder = tmp_path / "records.csv.gz", tmp_path / "runs"
    records.write({"old.jsonl": [{"step": 0}], "new.jsonl": [{"step": 0}]}, table)
    records.unpack({"new.jsonl": [{"step": 1}, {"step": 2}]}, folder)
    monkeypatch.setattr("sys.argv", ["records", "collect", str(folder), str(table)])
    records.main()
    assert records.read(table) == {"new.jsonl": [{"step": 1}, {"step": 2}], "old.jsonl": [{"step": 0}]}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_unpacks_and_collects_to_the_same_bytes(study: str, tmp_path: Path) -> None:
    kept = recorded(study)
    records.unpack(kept, tmp_path / "runs")
    unpacked = records.read(tmp_path / "runs")
    assert unpacked == kept
    records.write(unpacked, tmp_path / "records.csv.gz")
    assert json.dumps(records.read(tmp_path / "records.csv.gz")) == json.dumps(kept)


def test_the_tables_of_the_study_page_follow_from_the_records() -> None:
    page, kept = (ROOT / "docs" / "conflict.md").read_text(encoding="utf-8"), recorded("conflict")
    for table in (plot.table(plot.runs_of(kept)), *compare.tables(kept)):
        assert table in page


def test_the_tables_of_the_results_page_follow_from_the_records() -> None:
    lines = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    kept = recorded("three_networks")
    rows = [*three_networks.alike(kept), *three_networks.longer(kept), *landsat.rows(recorded("landsat"))]
    assert [row for row in rows if row not in lines] == []


def test_the_page_of_the_bundled_models_follows_from_the_records() -> None:
    assert (ROOT / "experiments" / "bundled" / "README.md").read_text(encoding="utf-8") == bundled.readme()
