"""Training: it learns, it repeats itself bit for bit, and it goes on as if it had not been stopped."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regard.checkpoints.file import load
from regard.checkpoints.hub import readme
from regard.classes import ClassMap
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.errors import ClassMismatch, ConfigError, DatasetError, OutputError, TrainingError
from regard.evaluation.evaluate import evaluate
from regard.io.raster import Box
from regard.training import train as module
from regard.training.callbacks import Bookkeeping
from regard.training.record import Record, Run, read_metrics, read_run
from regard.training.train import train
from support import save_image, tiny

QUICK: dict[str, Any] = {"steps": 12, "batch": 2, "crop": 32, "workers": 0, "evaluate_every": 4, "seed": 1, "warmup": 2}


def run(data: LabelledData, out: Path, **settings: Any) -> Run:
    """A short training of the tiny network from its fixed start."""
    return train(tiny(), data, out, progress=False, **(QUICK | settings))


def weights(out: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return dict(load(out / f"{name}.safetensors").state_dict())


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that are not equal bit for bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


class Stop(Exception):
    """Stands for whatever ends a process."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """End the training right after the bookkeeping of this step."""
    original = Bookkeeping.on_train_batch_end

    def then_stop(self: Bookkeeping, trainer: Any, *rest: Any) -> None:
        original(self, trainer, *rest)
        if trainer.global_step == step:
            raise Stop

    monkeypatch.setattr(Bookkeeping, "on_train_batch_end", then_stop)


@pytest.mark.slow
def test_the_same_seed_trains_to_the_same_weights_bit_for_bit(toy: LabelledData, tmp_path: Path):
    first, again, other = (run(toy, tmp_path / name, seed=seed).folder for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert not differing(weights(first), weights(again))
    assert (first / "metrics.jsonl").read_bytes() == (again / "metrics.jsonl").read_bytes()
    assert differing(weights(first), weights(other))
    assert differing(weights(first), dict(tiny().state_dict()))


def test_a_split_val_without_labels_is_refused_before_the_first_step(set_folder: Path, tmp_path: Path):
    for stem in ("tile4", "tile5"):
        save_image(set_folder / "masks" / f"{stem}.png", np.full((40, 48), 255))
    with pytest.raises(DatasetError, match="the split val has no labelled pixel"):
        run(folder(set_folder), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("step", [3, 6, *(pytest.param(later, marks=pytest.mark.slow) for later in (9, 11))])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
):
    run(toy, tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(Stop):
        stop_at(patched, step)
        run(toy, tmp_path / "stopped")
    assert (tmp_path / "stopped" / "last.ckpt").is_file() == (step > 4)
    run(toy, tmp_path / "stopped")
    assert not differing(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    assert not differing(weights(tmp_path / "whole", "best"), weights(tmp_path / "stopped", "best"))
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "stopped")


@pytest.mark.slow
def test_a_run_folder_of_version_0_1_resumes_bit_for_bit(
    toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its run.json and its checkpoint have the names of then: average and overhead, averaged."""
    settings = {"rot90": True, "ema": 0.9}
    run(toy, tmp_path / "whole", **settings)
    with monkeypatch.context() as patched, pytest.raises(Stop):
        stop_at(patched, 6)
        run(toy, tmp_path / "stopped", **settings)
    facts = json.loads((tmp_path / "stopped" / "run.json").read_text())
    facts["settings"] |= {"overhead": facts["settings"].pop("rot90"), "average": facts["settings"].pop("ema")}
    (tmp_path / "stopped" / "run.json").write_text(json.dumps(facts))
    checkpoint = torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)
    tensors = checkpoint["state_dict"]
    renamed = {name: tensors.pop(name) for name in list(tensors) if name.startswith("ema.")}
    tensors |= {name.replace("ema.", "averaged.", 1): value for name, value in renamed.items()}
    torch.save(checkpoint, tmp_path / "stopped" / "last.ckpt")
    with pytest.raises(TrainingError, match=r"settings ema=0\.9, now 0\.8"):
        run(toy, tmp_path / "stopped", **settings | {"ema": 0.8})
    run(toy, tmp_path / "stopped", **settings)
    assert renamed and not differing(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "stopped")


@pytest.mark.slow
def test_a_killed_process_goes_on_bit_for_bit(set_folder: Path, tmp_path: Path):
    """SIGKILL at several moments, writing included; each time the same command is given again."""
    run(folder(set_folder), tmp_path / "whole", steps=40)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from support import tiny\n"
        "from regard.datasets.folder import folder; from regard.training.train import train\n"
        f"train(tiny(), folder(sys.argv[2]), Path(sys.argv[3]), progress=False, **({QUICK!r} | {{'steps': 40}}))\n"
    )
    out = tmp_path / "killed"
    arguments = [sys.executable, "-c", script, str(Path(__file__).parents[2]), str(set_folder), str(out)]
    for lines in (7, 19, 33):
        process = subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 300
        while len(read_metrics(out)) < lines and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert subprocess.run(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode == 0
    assert not differing(weights(tmp_path / "whole"), weights(out))
    assert read_metrics(tmp_path / "whole") == read_metrics(out)


def test_the_loss_falls_and_the_scores_rise(toy: LabelledData, tmp_path: Path):
    quick = {
        "batch": 4,
        "learning_rate": 1e-2,
        "backbone_rate": 1.0,
        "ema": 0.5,
        "colour": 0.1,
        "scale": (1.0, 1.0),
    }
    model = tiny(output_stride=8)
    before = evaluate(model, toy, split="train").accuracy
    result = train(
        model, toy, tmp_path / "run", progress=False, **(QUICK | quick | {"steps": 60, "evaluate_every": 60})
    )
    losses = [line["loss"] for line in read_metrics(result.folder) if "loss" in line]
    assert len(losses) == 60 and sum(losses[-10:]) < 0.4 * sum(losses[:10])
    after = evaluate(load(result.best), toy, split="train").accuracy
    assert before < 0.6 and after > 0.8


def test_what_a_run_leaves_behind(toy: LabelledData, tmp_path: Path):
    result = run(toy, tmp_path / "deep" / "run")
    names = {path.name for path in result.folder.iterdir()}
    assert names == {
        "best.safetensors",
        "last.safetensors",
        "last.ckpt",
        "metrics.jsonl",
        "metrics.csv",
        "run.json",
        "tensorboard",
        "batch.png",
    }
    facts, classes = read_run(result.folder)
    assert facts["finished"] and facts["settings"]["steps"] == 12 and classes == toy.classes
    assert facts["data"] == {"root": "toy", "train": 4, "val": 2}
    lines = read_metrics(result.folder)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    validations = [line for line in lines if "miou" in line]
    assert [line["step"] for line in validations] == [4, 8, 12]
    best = load(result.best)
    assert result.scores is not None and best.card.scores["miou"] == round(max(line["miou"] for line in validations), 4)
    assert evaluate(best, toy).miou == pytest.approx(result.scores.miou)


@pytest.mark.slow
def test_val_is_scored_in_windows_of_the_crop_where_it_is_cut_from_a_scene_or_as_told(
    toy: LabelledData, tmp_path: Path
):
    cut = {split: [replace(pair, box=Box(0, 0, 40, 48)) for pair in pairs] for split, pairs in toy.splits.items()}
    scene = replace(toy, splits={split: tuple(pairs) for split, pairs in cut.items()})
    scored = set()
    for name, data, settings, window in (
        ("whole", toy, {}, 0),
        ("told", toy, {"window": 36}, 36),
        ("scene", scene, {}, 32),
        ("wide", scene, {"crop_width": 44}, 44),
        ("scene, whole", scene, {"window": 0}, 0),
    ):
        out = run(data, tmp_path / name, steps=4, **settings).folder
        assert read_run(out)[0]["settings"]["window"] == window
        line = read_metrics(out)[-1]
        last = load(out / "last.safetensors").to(memory_format=torch.channels_last)
        alone = evaluate(last, data, window=window or None).as_dict()
        assert line["window"] == window and line["confusion"] == alone["confusion"]
        assert last.card.protocol == (f"val, windows of {window} pixels" if window else "val, whole images")
        assert f"On {last.card.protocol}.\n" in readme(last.card)
        scored.add(str(line["confusion"]))
    assert len(scored) > 3
    with pytest.raises(TrainingError, match="settings window=36, now 0"):
        run(toy, tmp_path / "told", steps=4)


def test_the_rate_follows_the_schedule_and_the_backbone_its_share(toy: LabelledData, tmp_path: Path):
    result = run(toy, tmp_path / "run", learning_rate=1e-3, warmup=0, power=1.0)
    rates = [line["rate"] for line in read_metrics(result.folder) if "rate" in line]
    assert rates == pytest.approx([1e-3 * (1 - step / 12) for step in range(12)], rel=1e-4)
    start, frozen = dict(tiny().state_dict()), run(toy, tmp_path / "frozen", backbone_rate=0.0).folder
    moved = {name for name, value in weights(frozen).items() if not torch.allclose(value, start[name])}
    assert {name for name, _ in tiny().named_parameters() if name in moved and name.startswith("backbone")} == set()
    assert "classify.weight" in moved


def test_without_a_validation_part_the_last_model_is_the_best(set_folder: Path, tmp_path: Path):
    (set_folder / "val.txt").unlink()
    result = run(folder(set_folder), tmp_path / "run", steps=4)
    assert result.scores is None and not differing(weights(result.folder, "best"), weights(result.folder))


def test_a_finished_run_is_not_trained_again(toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = run(toy, tmp_path / "run")
    monkeypatch.setattr(module, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = run(toy, tmp_path / "run")
    assert again.scores is not None and first.scores is not None and again.scores.miou == first.scores.miou


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"steps": 13}, "settings steps=12, now 13"), ({"seed": 2}, "settings seed=1, now 2")],
)
def test_other_settings_in_the_same_folder_are_refused(toy: LabelledData, tmp_path: Path, changed: dict, message: str):
    run(toy, tmp_path / "run")
    with pytest.raises(TrainingError, match=message):
        run(toy, tmp_path / "run", **changed)


def test_another_network_or_data_in_the_same_folder_is_refused(toy: LabelledData, set_folder: Path, tmp_path: Path):
    run(toy, tmp_path / "run", steps=4)
    with pytest.raises(TrainingError, match="model architecture=danet_ocr, now danet"):
        train(tiny("danet"), toy, tmp_path / "run", **(QUICK | {"steps": 4}))
    (set_folder / "train.txt").write_text("tile0\ntile1\n")
    with pytest.raises(TrainingError, match="data train=4, now 2"):
        run(folder(set_folder), tmp_path / "run", steps=4)


def test_a_loss_that_is_no_number_ends_the_run_with_the_step(toy: LabelledData, tmp_path: Path):
    said = r"the (loss is (nan|inf)|weights are no longer numbers) at step \d+ \(images tile\d, tile\d\)"
    with pytest.raises(TrainingError, match=said):
        run(toy, tmp_path / "run", learning_rate=1e20, optimizer="sgd", warmup=0, steps=30)


def test_a_batch_too_small_for_batch_norm_is_refused_in_words(toy: LabelledData, tmp_path: Path):
    model = tiny("ocrnet", aspp=True)
    with pytest.raises(ConfigError, match=r"batch 1 with crop 32 .* Use a batch of 2 or more"):
        train(model, toy, tmp_path / "run", progress=False, **(QUICK | {"batch": 1}))


def test_other_classes_are_refused_before_the_folder_is_made(toy: LabelledData, tmp_path: Path):
    with pytest.raises(ClassMismatch):
        train(tiny(classes=("a", "b")), toy, tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_masks_of_one_class_are_refused(set_folder: Path, tmp_path: Path):
    for mask in (set_folder / "masks").iterdir():
        save_image(mask, torch.zeros(40, 48))
    with pytest.raises(ClassMismatch, match="only class 0"):
        run(folder(set_folder), tmp_path / "run")


def test_bands_without_published_statistics_are_measured(set_folder: Path, tmp_path: Path):
    data = folder(set_folder, bands=("blue", "red"))
    model = tiny(in_channels=2, bands=("blue", "red"))
    before = model.card
    result = train(model, data, tmp_path / "run", progress=False, **(QUICK | {"steps": 4}))
    assert model.card is before and not any(before.mean) and not before.scores, "the caller's card stays as it is"
    card = load(result.best).card
    assert card.scores and card.protocol == "val, whole images"
    images = [data.read(pair).image.reshape(2, -1) / 255 for pair in data.split("train")]
    pixels = torch.from_numpy(np.concatenate(images, axis=1))
    assert card.mean == pytest.approx(pixels.mean(dim=1).tolist()) and card.divisor == 255
    assert card.std == pytest.approx(pixels.std(dim=1, correction=0).tolist())


def test_a_folder_that_cannot_be_made_or_written_is_refused(toy: LabelledData, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"cannot write to .*file/run \(Not a directory\)"):
        run(toy, tmp_path / "file" / "run")
    (tmp_path / "run" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"metrics\.jsonl is a folder\. Give the name of a file"):
        run(toy, tmp_path / "run")


def test_a_torn_line_is_left_out_and_a_broken_record_is_refused(toy: LabelledData, tmp_path: Path):
    out = run(toy, tmp_path / "run", steps=4).folder
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert [line["step"] for line in read_metrics(out)][-1] == 4
    (out / "run.json").write_text('{"settings": {')
    for read in (lambda: read_run(out), lambda: run(toy, out, steps=4)):
        with pytest.raises(TrainingError, match=r"run\.json .*is broken"):
            read()
    with pytest.raises(TrainingError, match="holds no run"):
        read_run(tmp_path)


def test_what_a_killed_run_left_of_its_checkpoint_is_deleted(toy: LabelledData, tmp_path: Path):
    record = Record(tmp_path / "run", tiny(), toy, module.TrainConfig.of(**QUICK))
    left, another = (tmp_path / "run" / f".{name}.0f0f0f0f.part.ckpt" for name in ("last.ckpt", "mine.ckpt"))
    left.touch()
    another.touch()
    with record.alone():
        assert [path for path in (left, another) if path.exists()] == [another]


def test_a_folder_that_is_gone_is_not_made_again(toy: LabelledData, tmp_path: Path):
    """Its disk may be unmounted: what is written to the mount point is on no disk of the run."""
    record = Record(tmp_path / "run", tiny(), toy, module.TrainConfig.of(**QUICK))
    with record.alone():
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        for write in (lambda: record.start(0), lambda: record.add_scores(2, tiny(), None), record.finish):
            with pytest.raises(OutputError, match=r"cannot write to .*run \(No such file or directory\)"):
                write()
    assert not (tmp_path / "run").exists()
    record.start(0)
    assert (tmp_path / "run" / "run.json").is_file()


def test_warnings_and_log_levels_are_as_before(toy: LabelledData, tmp_path: Path):
    level = logging.getLogger("lightning.pytorch").level
    with pytest.raises(TrainingError):
        run(toy, tmp_path / "run", learning_rate=1e20, optimizer="sgd", warmup=0, steps=30)
    assert logging.getLogger("lightning.pytorch").level == level
    assert not torch.are_deterministic_algorithms_enabled()


def test_facts_of_a_record_are_json(toy: LabelledData, tmp_path: Path):
    record = Record(tmp_path / "run", tiny(), toy, module.TrainConfig.of(**QUICK))
    assert json.loads(json.dumps(record.facts)) == record.facts and isinstance(record.classes, ClassMap)


def test_frozen_parts_stay_as_they_are(toy: LabelledData, tmp_path: Path):
    before = tiny().state_dict()
    for what in ("backbone", "norms"):
        run(
            toy,
            tmp_path / what,
            freeze=what,
            steps=2,
            ema=0.0,
            loss="ce+lovasz",
            class_weights="balanced",
            balance=1.0,
        )
    after = {what: weights(tmp_path / what) for what in ("backbone", "norms")}
    body = [name for name in before if name.startswith("backbone.")]
    norms = [name for name in body if "running_" in name]
    assert norms and all(torch.equal(before[name], after["backbone"][name]) for name in body)
    assert all(torch.equal(before[name], after["norms"][name]) for name in norms)
    assert not all(torch.equal(before[name], after["norms"][name]) for name in body)
    assert not all(torch.equal(before[name], after["backbone"][name]) for name in before)


def test_a_recipe_trains_with_what_is_given_over_it(toy: LabelledData, tmp_path: Path):
    train(tiny(), toy, tmp_path, recipe="mmseg-40k", progress=False, **(QUICK | {"steps": 2, "crop_width": 48}))
    settings = json.loads((tmp_path / "run.json").read_text())["settings"]
    assert (settings["optimizer"], settings["steps"], settings["crop_width"]) == ("sgd", 2, 48)
    rates = [line["rate"] for line in read_metrics(tmp_path) if "rate" in line]
    assert rates[0] < 0.01 and min(rates) >= 1e-4 / 3  # two steps of warm-up


def test_weights_of_cityscapes_need_its_classes(toy: LabelledData, tmp_path: Path):
    with pytest.raises(ConfigError, match="19 classes; the model has 3"):
        run(toy, tmp_path, class_weights="cityscapes")
