"""The command as a user runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import Affine

import regard.cli as cli
from regard.checkpoints.file import load, save
from regard.cli.training import _new_model
from regard.datasets.folder import folder
from regard.mapping.predict import predict
from regard.training.config import recipe
from support import save_image, tiny, write_set, write_tif


def regard(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "regard", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def run_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return int(stop.value.code or 0), output.out, output.err


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, regard, regard.cli\n"
        "try: regard.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'rasterio', 'timm', 'lightning', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "predict" in result.stdout and "train" in result.stdout


def test_predict_imports_no_trainer_and_no_compiler(tmp_path: Path) -> None:
    """Nor what draws pictures or writes vector files: each would take memory and time for nothing."""
    save(tiny(), tmp_path / "m.safetensors")
    save_image(tmp_path / "a.png", [[[200, 40, 40]] * 50] * 40)
    write_tif(tmp_path / "b.tif", np.full((3, 40, 50), 90, np.uint8))
    code = (
        "import sys, regard.cli\n"
        "for name in ('a.png', 'b.tif'):\n"
        "    try: regard.cli.main(['predict', 'm.safetensors', name, '-o', 'map_' + name])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "trainers = ('lightning', 'tensorboardX', 'torchmetrics', 'regard.training.train', 'regard.datasets')\n"
        "import torch; from regard.ops.attention import attend; attend(*torch.randn(3, 1, 2000, 8))\n"
        "unused = {*trainers, 'torch._dynamo', 'sympy', 'triton', 'matplotlib', 'pyogrio'} & set(sys.modules)\n"
        "unused -= {'sympy'} if torch.__version__ < '2.8' else set()\n"  # that imports it itself
        "assert not unused, unused\n"
        "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)) == 2"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "map_a.png").is_file() and (tmp_path / "map_b.tif").is_file()


def test_predict_writes_and_reports_json(tmp_path: Path) -> None:
    model = save(tiny(), tmp_path / "m.safetensors")
    image = save_image(tmp_path / "a.jpg", [[[200, 40, 40]] * 50] * 40)
    result = regard("predict", model, image, "-o", tmp_path / "a.png", "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["files"] == [str(tmp_path / "a.png")] and (tmp_path / "a.png").is_file()
    assert facts["mpx_per_s"] > 0 and facts["peak_memory_mb"] > 10


@pytest.mark.parametrize("options", [{}, {"scales": (1.0, 1.5), "flip": True}])
def test_the_command_makes_the_map_that_python_makes(
    tmp_path: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(tiny(), tmp_path / "m.safetensors")
    scene = write_tif(tmp_path / "scene.tif", np.random.default_rng(1).integers(0, 255, (3, 70, 90), dtype=np.uint8))
    places = {"tile": 64, "overlap": 32}
    for side in ("python", "command"):
        (tmp_path / side).mkdir()
    predict(
        load(model, fast=True),
        scene,
        tmp_path / "python" / "map.tif",
        confidence=tmp_path / "python" / "c.tif",
        **places,
        **options,
    )
    words = [word for name, value in places.items() for word in (f"--{name}", value)]
    words += ["--scales", 1.0, "--scales", 1.5, "--flip"] if options else []
    out = tmp_path / "command"
    code, _, error = run_here(
        capsys, "predict", model, scene, "-o", out / "map.tif", "--confidence", out / "c.tif", *words
    )
    assert code == 0, error
    for name in ("map.tif", "c.tif"):
        assert (out / name).read_bytes() == (tmp_path / "python" / name).read_bytes()


def test_several_sources_go_to_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(tiny(), tmp_path / "m.safetensors")
    images = [save_image(tmp_path / f"{name}.png", [[[9, 9, 9]] * 40] * 40) for name in "ab"]
    code, out, _ = run_here(capsys, "predict", model, *images, "-o", tmp_path / "out")
    assert code == 0 and (tmp_path / "out" / "a.png").is_file() and (tmp_path / "out" / "b.png").is_file()
    assert "Mpx/s" in out


def test_options_may_stand_between_the_model_and_the_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(tiny(), tmp_path / "m.safetensors")
    images = [save_image(tmp_path / name, [[[200, 40, 40]] * 50] * 40) for name in ("a.png", "b.png")]
    code, _, errors = run_here(capsys, "predict", model, "--no-progress", "--out", tmp_path / "maps", *images)
    assert code == 0, errors
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.png")) == ["a.png", "b.png"]


def test_train_evaluate_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_set(tmp_path / "toy")
    network = ["--backbone", "test_resnet", "--config.width", 16, "--config.output_stride", 16]
    settings = ["--steps", 4, "--batch", 2, "--crop", 32, "--workers", 0, "--evaluate-every", 2]
    code, out, error = run_here(capsys, "train", data, "-o", tmp_path / "run", *network, *settings, "--json")
    assert code == 0, error
    assert set(json.loads(out)["scores"]["iou"]) == {"red thing", "green thing", "blue thing"}
    best = tmp_path / "run" / "best.safetensors"
    views = ["--scales", 1, 1.5, "--leave-out", "red thing", "blue thing"]
    code, out, _ = run_here(capsys, "evaluate", best, data, *views, "--json", "--save", tmp_path / "scores.json")
    facts = json.loads(out)
    assert code == 0 and all(0 <= facts[name] <= 1 for name in ("miou", "accuracy", "mean_f1"))
    assert {**json.loads((tmp_path / "scores.json").read_text()), "window": 0} == facts
    assert facts["left_out"] == ["red thing", "blue thing"]
    code, out, error = run_here(capsys, "report", tmp_path / "run", "-o", tmp_path / "report.html")
    assert code == 0, error
    assert "<html" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["predict", "nope", "x.jpg", "-o", "y.png"], 1, ["x.jpg does not exist"]),
        (["evaluate", "dubai", "nowhere"], 1, ["nowhere is not a folder"]),
        (["predict"], 2, ["MODEL", "regard predict --help"]),
        (["predikt"], 2, ["predikt"]),
        (["predict", "m", "x.jpg", "y.png"], 2, ["--out is missing. Did you mean -o y.png?"]),
        (["predict", "x.webp", "m", "-o", "y.png"], 2, ["x.webp is an image; the model comes first"]),
        (["explain", "x.tif", "m", "--at", "1,2", "-o", "y.png"], 2, ["x.tif is an image; the model comes first"]),
        (["evaluate", "docs", "m"], 2, ["docs is a folder; the model comes first"]),
        (["compare", "docs"], 2, ["docs is a folder; the model comes first"]),
        (["train", "m", "docs", "-o", "out"], 2, ["Did you mean: regard train docs --init m?"]),
        (["train", "docs", "m", "-o", "out"], 2, ["Did you mean: regard train docs --init m?"]),
        (["export", "no.onnx", "dubai-s"], 2, ["no.onnx does not exist: the model comes first"]),
        (["convert", "no.safetensors", "README.md"], 2, ["The checkpoint comes first"]),
        (["train", "nowhere", "-o", "out", "--steps", "0"], 2, ["steps"]),
        (["train", "nowhere", "-o", "out", "--steps", "many"], 2, ["many"]),
        (["train", "nowhere", "-o", "out", "--overhead"], 2, ["--overhead is now --rot90"]),
        (["train", "nowhere", "-o", "out", "--average=0.9"], 2, ["--average is now --ema"]),
    ],
)
def test_failures_are_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    words: list[str],
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").touch()
    monkeypatch.chdir(tmp_path)
    found, out, error = run_here(capsys, *arguments)
    assert found == code and not out
    assert error.count("\n") == 1 and "Traceback" not in error
    assert all(word in error for word in words), error


def test_the_folder_of_a_run_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "best.safetensors").touch()
    code, _, error = run_here(capsys, "evaluate", tmp_path, "data")
    assert code == 2 and f"is a folder that holds a model: give {tmp_path / 'best.safetensors'}." in error


def test_failures_as_json_and_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_here(capsys, "evaluate", "dubai", "nowhere", "--json")
    assert code == 1 and json.loads(out)["error"]["kind"] == "DatasetError"
    from regard.errors import DatasetError

    with pytest.raises(DatasetError):
        cli.main(["evaluate", "dubai", "nowhere", "--debug"])


def test_a_reader_that_has_had_enough_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        with pytest.raises(SystemExit) as stop:
            cli.main(["doctor", "--json"])
    assert stop.value.code == 0 and not capsys.readouterr().err


def test_a_scene_without_data_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(tiny(), tmp_path / "m.safetensors")
    scene = write_tif(tmp_path / "none.tif", np.zeros((3, 40, 50), np.uint8), nodata=0)
    code, _, error = run_here(
        capsys, "predict", model, scene, "-o", tmp_path / "map.tif", "--areas", tmp_path / "a.csv"
    )
    assert code == 0 and "map.tif is empty: no pixel of none.tif holds data" in error
    assert "window 1/1" in error and " 0.00 Mpx/s" not in error
    assert (tmp_path / "a.csv").read_text().splitlines()[1].endswith(",0,0.0,0.0,0.0")


def test_doctor_names_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_here(capsys, "doctor", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["torch"] and facts["gdal"].count(".") == 2


def test_check_reads_a_data_set_and_asks_a_model(
    capsys: pytest.CaptureFixture[str], set_folder: Path, tmp_path: Path
) -> None:
    save(tiny(), tmp_path / "model.safetensors")
    page = tmp_path / "page.html"
    code, out, _ = run_here(
        capsys, "check", f"{set_folder}", "--model", f"{tmp_path}/model.safetensors", "-o", f"{page}", "--json"
    )
    found = json.loads(out)
    assert code == 0, out
    assert found["errors"] == 0 and found["images"] == {"train": 4, "val": 2}
    assert [one["kind"] for one in found["findings"]].count("highest loss") == 6
    html = page.read_text()
    assert "highest loss" in html.lower() and html.count("data:image/jpeg") == 6 and "tile0.png" in html
    (set_folder / "images/tile1.png").write_bytes(b"no image")
    code, out, _ = run_here(capsys, "check", f"{set_folder}")
    assert code == 1 and "error (unreadable): " in out and "tile1.png" in out


def test_train_by_recipe_from_a_model_of_other_classes(
    capsys: pytest.CaptureFixture[str], set_folder: Path, tmp_path: Path
) -> None:
    save(tiny(classes=("sky", "blue thing")), tmp_path / "old.safetensors")
    options = ("--steps", 2, "--batch", 2, "--crop", 32, "--crop-width", 32, "--workers", 0, "--json")
    code, out, _ = run_here(
        capsys,
        *("train", set_folder, "-o", tmp_path / "run", "--init", tmp_path / "old.safetensors"),
        *("--recipe", "mmseg-40k", "--loss", "ohem", *options),
    )
    notes = " ".join(json.loads(out)["notes"])
    assert code == 0 and "classes kept: blue thing" in notes and "left out: sky" in notes
    settings = json.loads((tmp_path / "run/run.json").read_text())["settings"]
    assert (settings["optimizer"], settings["loss"], settings["crop"], settings["weight_decay"]) == (
        "sgd",
        "ohem",
        32,
        5e-4,
    )


def test_another_backbone_than_the_recipes_has_none_of_its_options(set_folder: Path) -> None:
    plan, data = recipe("openseg-ocr-cityscapes"), folder(set_folder)
    network = {"width": 16, "key_width": 8, "output_stride": None}
    model = _new_model(data, plan, None, "test_resnet", "none", network)
    config = model.card.config
    assert (config["backbone_options"], config["recipe"], config["width"]) == ({}, "bn_leaky_relu", 16)
    own = _new_model(data, plan, None, None, "none", {"width": 16, "key_width": 8})
    assert own.card.config["backbone_options"] == {"pool_ceil": True} and own.backbone.maxpool.ceil_mode


def test_wrong_settings_and_patterns_are_told_by_their_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run_here(capsys, "train", tmp_path, "-o", tmp_path / "run", "--steps", 0)
    assert code == 2 and error.startswith("UsageError: --steps 0: Input should be greater than or equal to 1.")
    code, _, error = run_here(capsys, "predict", "dubai-s", tmp_path / "*.tif", "-o", tmp_path / "out")
    assert code == 1 and "no file matches" in error and "*.tif" in error


def test_an_area_may_begin_west_of_greenwich(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    west = {"crs": "EPSG:4326", "transform": Affine(0.1, 0, -80, 0, -0.1, 40)}
    scene = write_tif(tmp_path / "scene.tif", np.full((3, 64, 64), 90, dtype=np.uint8), **west)
    model = save(tiny(), tmp_path / "m.safetensors")
    code, out, _ = run_here(
        capsys, "predict", model, scene, "-o", tmp_path / "map.tif", "--aoi", "-79,35,-76,39", "--dry-run"
    )
    assert (code, "windows: 1" in out) == (0, True)


def test_what_is_looked_at_before_and_after_may_be_a_pattern_but_is_one_raster(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tif(tmp_path / "scene1.tif", np.full((3, 64, 64), 90, dtype=np.uint8))
    model = save(tiny(), tmp_path / "m.safetensors")
    verified = ("predict", model, tmp_path / "scene*.tif", "-o", tmp_path / "map.tif", "--verify")
    code, out, _ = run_here(capsys, *verified)
    assert (code, "0.00 % of the labels differ" in out) == (0, True)
    monkeypatch.chdir(tmp_path)
    code, out, error = run_here(capsys, "predict", model, "[rs]cene1.tif", "-o", "same.tif")
    assert (code, (tmp_path / "same.tif").is_file()) == (0, True), error
    code, out, error = run_here(capsys, *verified[:2], "scene1.tif", "-o", "none.tif", "--verify", "--shard", "2/2")
    assert (code, "verified" in out, (tmp_path / "none.tif").exists()) == (0, False, False), error
    write_tif(tmp_path / "scene2.tif", np.full((3, 64, 64), 90, dtype=np.uint8))
    code, _, error = run_here(capsys, *verified)
    assert (code, "got 2 sources" in error) == (2, True)
    photograph = save_image(tmp_path / "photo.png", np.zeros((20, 20, 3)))
    code, _, error = run_here(capsys, "predict", model, photograph, "-o", tmp_path / "map.png", "--dry-run")
    assert (code, "photo.png, a photograph" in error, (tmp_path / "map.png").exists()) == (2, True, False)


def test_options_that_would_do_nothing_are_refused(
    capsys: pytest.CaptureFixture[str], set_folder: Path, tmp_path: Path
) -> None:
    model = save(tiny(), tmp_path / "m.safetensors")
    picture = save_image(tmp_path / "photo.png", np.zeros((20, 20, 3)))
    scene, page = write_tif(tmp_path / "map.tif", np.zeros((1, 20, 20), np.uint8)), tmp_path / "page.html"
    (tmp_path / "file").touch()
    for command, words in (
        (
            ("train", set_folder, "-o", tmp_path / "run", "--init", model, "--architecture", "ocrnet"),
            "--architecture too",
        ),
        (("report", scene, "-o", page, "--model", model), "Omit model and data"),
        (("report", set_folder, "-o", page, "--confidence", scene), "Give the map as source"),
        (("predict", model, picture, "-o", tmp_path / "a.png", "--device", "abacus"), "device 'abacus' cannot be used"),
        (("evaluate", model, set_folder, "--leave-out", "sky"), "sky"),
        (("evaluate", model, set_folder, "--save", tmp_path / "file" / "scores.json"), "it is a file, not a folder"),
    ):
        code, _, error = run_here(capsys, *command)
        assert code in (1, 2) and words in error and error.count("\n") == 1, (command, error)
    assert not (tmp_path / "run").exists() and not page.exists()


def test_a_new_model_learns_the_scale_of_deep_images_from_them(
    capsys: pytest.CaptureFixture[str], set_folder: Path, tmp_path: Path
) -> None:
    """16-bit red, green and blue are no photographs, nor are three other bands; the means are those of the images."""
    rng, options = np.random.default_rng(0), ("--steps", 1, "--batch", 1, "--crop", 32, "--workers", 0)
    network = ("--backbone", "test_resnet", "--config.width", 16, "--config.output-stride", 16)
    values = {
        path.stem: rng.integers(0, 4000, size=(3, 40, 48)).astype(np.uint16) for path in set_folder.glob("images/*")
    }
    shutil.rmtree(set_folder / "images")
    for stem, image in values.items():
        write_tif(set_folder / "images" / f"{stem}.tif", image, photometric="RGB")
    code, _, error = run_here(capsys, "train", set_folder, "-o", tmp_path / "run", *network, *options)
    assert code == 0, error
    card = load(tmp_path / "run" / "last.safetensors").card
    train = (set_folder / "train.txt").read_text().split()
    mean = np.mean([values[stem] / 65535 for stem in train], axis=(0, 2, 3))
    assert card.divisor == 65535 and card.bands == ("red", "green", "blue")
    np.testing.assert_allclose(card.mean, mean, rtol=1e-6)
