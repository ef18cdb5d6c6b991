"""Many sources: in one process, in several, in shards, on a cluster."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regard.checkpoints.file import save
from regard.errors import ConfigError, OutputError, ScenesFailed, UnreadableImage
from regard.io.source import Source
from regard.mapping import batch as many
from regard.mapping.batch import Scene, SceneResult, _summary, network, predict_many, predict_scene, run_on_cluster
from regard.mapping.journal import Journal
from regard.mapping.sources import check_failures, listed, targets_of
from regard.models import Segmenter
from regard.options import Compute, Outputs, Sharing
from support import map_options, write_tif

SMALL = {"tile": 64, "overlap": 32}


@pytest.fixture
def world(tmp_path: Path, tiny_model: Segmenter) -> tuple[str, Path]:
    for number in range(5):
        values = np.random.default_rng(number).integers(0, 256, size=(3, 70, 60), dtype=np.uint8)
        write_tif(tmp_path / "tiles" / f"tile{number}.tif", values)
    return str(save(tiny_model, tmp_path / "model.safetensors")), tmp_path


def made(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tif"))}


def test_patterns_shards_and_a_second_run(world: tuple[str, Path]) -> None:
    model, root = world
    sources = [root / "tiles" / "*.tif"]
    facts = predict_many(model, sources, map_options(root / "all", **SMALL))
    assert len(facts["files"]) == 5 and facts["mpx_per_s"] > 0
    for shard in ("1/2", "2/2"):
        predict_many(model, sources, map_options(root / "shards", **SMALL), sharing=Sharing(shard=shard))
    assert made(root / "shards") == made(root / "all") and len(made(root / "all")) == 5
    before = {path: path.stat().st_mtime_ns for path in (root / "all").glob("*.tif*")}
    predict_many(model, sources, map_options(root / "all", **SMALL))
    assert before == {path: path.stat().st_mtime_ns for path in (root / "all").glob("*.tif*")}


def test_results_are_a_manifest_again(world: tuple[str, Path]) -> None:
    model, root = world
    manifest = root / "scenes.jsonl"
    tiles = sorted((root / "tiles").iterdir())[:3]
    rows = [
        {"source": str(tiles[0]), "target": str(root / "else" / "first.tif")},
        *({"source": str(t)} for t in tiles[1:]),
    ]
    manifest.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (root / "tiles" / "tile2.tif").write_bytes(b"no raster")
    with pytest.raises(ScenesFailed, match="1 of 3 sources failed"):
        predict_many(model, [manifest], map_options(root / "out", **SMALL))
    results = [json.loads(line) for line in (root / "out" / "results.jsonl").read_text().splitlines()]
    assert [result["source"] for result in results] == [row["source"] for row in rows]
    assert [bool(result["failed"]) for result in results] == [False, False, True]
    assert results[0]["target"] == str(root / "else" / "first.tif") and Path(results[0]["target"]).is_file()
    assert results[2]["target"] == str(root / "out" / "tile2.tif"), "where its map is to be"
    assert results[1]["pixels"] == 70 * 60 and results[1]["files"] == [str(root / "out" / "tile1.tif")]
    before = made(root / "out")
    write_tif(root / "tiles" / "tile2.tif", np.ones((3, 40, 40), np.uint8))
    facts = predict_many(model, [root / "out" / "results.jsonl"], map_options(root / "out", **SMALL))
    assert len(facts["files"]) == 3 and {**made(root / "out"), **before} == made(root / "out")
    assert predict_many(model, [manifest], map_options(root / "out", **SMALL), sharing=Sharing(shard="2/3"))[
        "results"
    ].endswith("results-2-of-3.jsonl")


@pytest.mark.parametrize(
    "line", ['{"target": "x.tif"}', "tile.tif", "[1]", '{"source": 3}', '{"source": "a.tif", "target": 3}']
)
def test_a_manifest_names_its_sources(world: tuple[str, Path], line: str) -> None:
    model, root = world
    (root / "scenes.jsonl").write_text(f'{{"source": "a.tif"}}\n{line}\n')
    with pytest.raises(ConfigError, match="line 2 is not a scene"):
        predict_many(model, [root / "scenes.jsonl"], map_options(root / "out", **SMALL))
    with pytest.raises(UnreadableImage, match="cannot be read as a manifest"):
        predict_many(model, [root / "none.jsonl"], map_options(root / "out", **SMALL))


def test_a_list_of_one_is_still_a_list(world: tuple[str, Path]) -> None:
    model, root = world
    facts = predict_many(model, [root / "tiles" / "tile0*.tif"], map_options(root / "out", **SMALL))
    assert facts["files"] == [str(root / "out" / "tile0.tif")] and Path(facts["results"]).is_file()
    single = [root / "tiles" / "tile0.tif"]
    assert (
        predict_many(model, single, map_options(root / "m.tif", **SMALL), sharing=Sharing(shard="2/2"))["files"] == []
    )
    assert predict_many(model, single, map_options(root / "m.tif", **SMALL), sharing=Sharing(shard="1/2"))["files"] == [
        str(root / "m.tif")
    ]
    assert predict_many(model, [root / "tiles" / "tile1*.tif"], map_options(root / "n.tif", **SMALL))["files"] == [
        str(root / "n.tif")
    ]
    (root / "empty.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match=r"empty\.jsonl lists no scene"):
        predict_many(model, [root / "empty.jsonl"], map_options(root / "out", **SMALL))


def test_what_fails_is_named_and_the_rest_is_done(world: tuple[str, Path]) -> None:
    model, root = world
    (root / "tiles" / "tile3.tif").write_bytes(b"no raster")
    with pytest.raises(ScenesFailed, match=r"1 of 5 sources failed.*tile3\.tif: UnreadableImage: .*is no GeoTIFF"):
        predict_many(model, [root / "tiles" / "*.tif"], map_options(root / "out", **SMALL))
    assert sorted(made(root / "out")) == [f"tile{number}.tif" for number in (0, 1, 2, 4)]


def test_impossible_wishes(world: tuple[str, Path]) -> None:
    model, root = world
    sources = [root / "tiles" / "*.tif"]
    for shard in ("0/2", "3/2", "x", "1/"):
        with pytest.raises(ConfigError, match="need i/n"):
            predict_many(model, sources, map_options(root / "out", **SMALL), sharing=Sharing(shard=shard))
    with pytest.raises(ConfigError, match="--areas names one file"):
        predict_many(model, sources, map_options(root / "out", areas=root / "a.csv", **SMALL))
    write_tif(root / "other" / "tile1.tif", np.ones((3, 40, 40), np.uint8))
    with pytest.raises(OutputError, match=r"would both become .*tile1\.tif"):
        predict_many(model, [*sources, root / "other" / "tile1.tif"], map_options(root / "out", **SMALL))


def test_a_scene_that_no_worker_survives_is_named(world: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="distributed is in the extra 'cluster'")
    model, root = world
    good, bad = sorted((root / "tiles").iterdir())[:2]
    scenes = [Scene(model, Source.of(tile), map_options(root / "out" / tile.name, **SMALL)) for tile in (bad, good)]
    run_scene = many.run_scene
    monkeypatch.setattr(many, "run_scene", lambda scene: 1 / 0 if scene == scenes[0] else run_scene(scene))
    with distributed.LocalCluster(1, processes=False, threads_per_worker=1, dashboard_address=":0") as cluster:
        results = {Path(result.source): result for result in run_on_cluster(scenes, cluster.scheduler_address, 1)}
    assert "Error" in results[bad].failed and not results[bad].files and not results[good].failed
    assert list(made(root / "out")) == [good.name]


def test_a_worker_that_does_not_stop_in_time_fails_nothing(
    world: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed", reason="distributed is in the extra 'cluster'")

    class Slow(distributed.LocalCluster):
        def __init__(self, **options: Any) -> None:
            super().__init__(**(options | {"processes": False, "host": None}))
            started.append(len(self.workers))

        def close(self, timeout: float | None = None) -> None:
            super().close(timeout)
            raise TimeoutError

    started: list[int] = []
    monkeypatch.setattr(distributed, "LocalCluster", Slow)
    model, root = world
    scene = Scene(model, Source.of(root / "tiles" / "tile0.tif"), map_options(root / "out" / "tile0.tif", **SMALL))
    assert [result.failed for result in run_on_cluster([scene], "local", 3)] == [""]
    assert (root / "out" / "tile0.tif").is_file() and started == [3]


@pytest.mark.slow
def test_the_end_of_another_run_of_a_scene_is_waited_for(world: tuple[str, Path]) -> None:
    model, root = world
    target = root / "out" / "tile0.tif"
    scene = Scene(model, Source.of(root / "tiles" / "tile0.tif"), map_options(target, **SMALL))
    (root / "out").mkdir()
    with ThreadPoolExecutor(1) as pool, Journal(target, {"another": "job"}):
        result = pool.submit(predict_scene, scene)
        with pytest.raises(TimeoutError):
            result.result(timeout=1.5)
        assert not target.exists()
    assert not result.result().failed and target.is_file()


def test_a_killed_process_is_told_in_one_line(world: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, root = world
    monkeypatch.setattr(many.ProcessPoolExecutor, "map", lambda *_: (_ for _ in ()).throw(BrokenProcessPool()))
    with pytest.raises(ScenesFailed, match="fewer --workers than 2"):
        predict_many(model, [root / "tiles" / "*.tif"], map_options(root / "out", **SMALL), sharing=Sharing(2))


@pytest.mark.slow
@pytest.mark.parametrize("sharing", [{"workers": 2}, {"cluster": "local", "workers": 2}])
def test_processes_give_the_same_bytes(world: tuple[str, Path], sharing: dict) -> None:
    if "cluster" in sharing:
        pytest.importorskip("distributed", reason="distributed is in the extra 'cluster'")
    model, root = world
    for source in sorted((root / "tiles").iterdir()):
        result = predict_scene(Scene(model, Source.of(source), map_options(root / "serial" / source.name, **SMALL)))
        assert not result.failed and result.pixels == 70 * 60
    predict_many(model, [root / "tiles" / "*.tif"], map_options(root / "shared", **SMALL), sharing=Sharing(**sharing))
    assert made(root / "shared") == made(root / "serial") and len(made(root / "serial")) == 5


def test_a_network_is_loaded_as_it_is_to_be_computed(world: tuple[str, Path]) -> None:
    """Once in each process for each device and precision."""
    plain, rounded = (network(world[0], Compute(precision=way, plain=True)) for way in ("float32", "bfloat16"))
    assert network(world[0], Compute(plain=True)) is plain is not rounded
    assert type(rounded) is not type(plain) and plain.fast != network(world[0]).fast


def test_the_rate_counts_millions_of_pixels() -> None:
    results = [SceneResult("a.tif", "b.tif", ["b.tif"], pixels, 2.0, memory) for pixels, memory in ((3, 9.0), (5, 7.0))]
    facts = _summary([replace(result, pixels=result.pixels * 10**6) for result in results], 4.0)
    assert facts == {"files": ["b.tif"] * 2, "mpx_per_s": 2.0, "seconds": 4.0, "peak_memory_mb": 9.0}
    with pytest.raises(ScenesFailed, match=r"1 of 2 sources failed.*a\.tif: dark"):
        _summary([results[0], replace(results[1], failed="dark")], 1.0)


def test_patterns_are_in_order_and_two_names_of_one_map_are_refused(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        write_tif(tmp_path / f"{name}.tif", np.zeros((1, 4, 4), np.uint8))
    assert [source.stem for source in listed([f"{tmp_path}/*.tif"])] == ["a", "b", "c"]
    rows = [{"source": "a.tif", "target": "m/x.tif"}, {"source": "b.tif", "target": "m/../m/x.tif"}]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(OutputError, match=r"a\.tif and b\.tif would both become m/\.\./m/x\.tif"):
        targets_of([tmp_path / "all.jsonl"], Outputs(tmp_path))


def test_each_scene_is_in_one_shard() -> None:
    parts = [list(range(10))[Sharing(shard=f"{number}/4").part] for number in (1, 2, 3, 4)]
    assert parts == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]] and list(range(10))[Sharing().part] == list(range(10))


def test_of_many_failures_the_first_are_told(tmp_path: Path) -> None:
    failed = {f"scene{number}": "dark" for number in range(7)}
    with pytest.raises(ScenesFailed, match=r"7 of 9 sources failed.*scene4: dark And 2 more, see r\.jsonl\.") as told:
        check_failures(failed, 9, Path("r.jsonl"))
    assert "scene5" not in str(told.value)
    check_failures({}, 9)
