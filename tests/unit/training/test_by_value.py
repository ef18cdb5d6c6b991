"""Numbers of a training step held against what a formula gives: averages, dropout, rates, weights, random views."""

from __future__ import annotations

import colorsys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regard.checkpoints.file import load
from regard.classes import known_classes
from regard.datasets.labelled_data import LabelledData, Sample
from regard.evaluation.scores import Scores
from regard.io.raster import Box
from regard.ops.losses import Criterion
from regard.training import loader
from regard.training.augment import _random_crop, generator, random_view
from regard.training.callbacks import Bookkeeping
from regard.training.config import Augmentation, TrainConfig
from regard.training.loader import ResumableSampler
from regard.training.optimizer import criterion_of, optimizer_of, poly
from regard.training.record import Record, best_line, read_metrics
from regard.training.task import SegmentationTask
from regard.training.train import completed, train
from support import tiny

QUICK: dict[str, Any] = {"steps": 3, "batch": 2, "crop": 32, "workers": 0, "seed": 1, "warmup": 1, "log": ("none",)}
CITYSCAPES = {  # HRNet-Semantic-Segmentation, lib/datasets/cityscapes.py
    **{"road": 0.8373, "sidewalk": 0.918, "building": 0.866, "wall": 1.0345, "fence": 1.0166, "pole": 0.9969},
    **{"traffic light": 0.9754, "traffic sign": 1.0489, "vegetation": 0.8786, "terrain": 1.0023, "sky": 0.9539},
    **{"person": 0.9843, "rider": 1.1116, "car": 0.9037, "truck": 1.0865, "bus": 1.0955, "train": 1.0865},
    **{"motorcycle": 1.1529, "bicycle": 1.0507},
}


def watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights and buffers after each step of the training that follows."""
    seen, original = [], Bookkeeping.on_train_batch_end

    def note(self: Bookkeeping, trainer: Any, task: Any, *rest: Any) -> None:
        seen.append({name: value.clone() for name, value in task.model.state_dict().items()})
        original(self, trainer, task, *rest)

    monkeypatch.setattr(Bookkeeping, "on_train_batch_end", note)
    return seen


def test_what_is_saved_is_the_moving_average_of_weights_and_buffers(
    toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By hand: the first step's values, then 0.7 of the average and 0.3 of the new ones."""
    seen = watched(monkeypatch)
    train(tiny(), toy, tmp_path, progress=False, **QUICK, ema=0.7, learning_rate=0.05)
    saved, expected = load(tmp_path / "last.safetensors").state_dict(), seen[0]
    for weights in seen[1:]:
        expected = {name: 0.7 * value + 0.3 * weights[name] for name, value in expected.items()}
    floating = [name for name, value in saved.items() if value.is_floating_point()]
    assert len(seen) == 3 and any("running_var" in name for name in floating)
    for name in floating:
        torch.testing.assert_close(saved[name], expected[name], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(saved["classify.weight"], seen[-1]["classify.weight"], rtol=1e-4)


def test_dropout_depends_on_the_step_and_the_process_alone(monkeypatch: pytest.MonkeyPatch):
    task = SegmentationTask(tiny().train(), TrainConfig.of(**QUICK), Criterion())
    image = torch.randn(2, 3, 32, 32)

    def seen(step: int, rank: int) -> torch.Tensor:
        monkeypatch.setattr(SegmentationTask, "global_step", step)
        monkeypatch.setattr(SegmentationTask, "global_rank", rank)
        torch.manual_seed(99 + step)  # what a worker or another library left
        task.on_train_batch_start({}, 0)  # type: ignore[typeddict-item]
        return task.model.outputs(image)["main"].detach()

    places = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    masks = {place: seen(*place) for place in places}
    assert all(torch.equal(masks[place], seen(*place)) for place in places)
    assert not any(torch.equal(masks[one], masks[other]) for one, other in combinations(places, 2))


def test_no_rate_falls_below_the_lowest_whatever_its_group():
    config = TrainConfig.of(steps=20, warmup=0, learning_rate=1e-2, backbone_rate=0.1, lowest_rate=4e-4, power=0.9)
    optimizer, schedule = optimizer_of(tiny(), config)
    for step in range(21):
        shares = [(1 - step / 20) ** 0.9 * (rate - 4e-4) + 4e-4 for rate in (1e-3, 1e-2)]  # mmengine's PolyLR
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(shares)
        optimizer.step()
        schedule.step()
    assert poly(5, steps=10, power=2.0, lowest=0.5) == pytest.approx(0.5 + 0.5 * 0.25)


def test_the_optimizers_are_pytorchs_with_the_settings():
    sgd, _ = optimizer_of(tiny(), TrainConfig.of(optimizer="sgd", weight_decay=5e-4))
    adamw, _ = optimizer_of(tiny(), TrainConfig.of(weight_decay=0.03))
    assert type(sgd) is torch.optim.SGD and type(adamw) is torch.optim.AdamW
    assert {(group["momentum"], group["weight_decay"], group["nesterov"]) for group in sgd.param_groups} == {
        (0.9, 5e-4, False)
    }
    assert {(group["betas"], group["weight_decay"]) for group in adamw.param_groups} == {((0.9, 0.999), 0.03)}


def test_class_weights_are_the_published_ones():
    classes = known_classes("cityscapes")
    weighted = criterion_of(tiny(classes=classes), TrainConfig.of(class_weights="cityscapes"), None)
    assert weighted.class_weights is not None
    assert dict(zip(classes.names, weighted.class_weights, strict=True)) == CITYSCAPES
    pixels = np.array([[90, 9, 1], [0, 0, 0]])
    shares = np.array([0.9, 0.09, 0.01])
    enet = 1 / np.log(1.02 + shares)  # Paszke et al. 2016, section 5.2
    balanced = criterion_of(tiny(), TrainConfig.of(class_weights="balanced"), pixels)
    assert balanced.class_weights == pytest.approx(enet / enet.mean())
    plain = TrainConfig.of(loss="ohem", focal_power=3.0, hard_below=0.7, hard_pixels=99)
    assert criterion_of(tiny(), plain, pixels) == Criterion("ohem", 255, None, 3.0, 0.7, 99)


def test_of_equal_scores_the_last_model_is_the_best(toy: LabelledData, tmp_path: Path):
    """File, line and scores tell of one model."""
    record = Record(tmp_path, tiny(), toy, TrainConfig.of(**QUICK))
    record.start(0)
    for step, wrong in ((1, 9), (2, 2), (3, 2), (4, 5)):
        model = tiny().with_card(tiny().card.model_copy(update={"origin": f"step {step}"}))
        confusion = np.array([[10, wrong, 0], [0, 10, wrong], [wrong, 0, 10]])
        record.add_scores(step, model, Scores(toy.classes, np.roll(confusion, step, axis=(0, 1))))
    best = best_line(read_metrics(tmp_path))
    assert best is not None and best["step"] == 3 and load(record.best_file).card.origin == "step 3"
    stored = record.best_scores()
    assert stored is not None and stored.confusion.tolist() == best["confusion"]
    assert load(tmp_path / "last.safetensors").card.origin == "step 4"
    assert [record.has_stalled(patience) for patience in (0, 1, 2, 3, 4)] == [False, True, True, False, False]


def test_the_window_of_val_is_that_of_the_crops_where_it_is_cut_from_a_scene(toy: LabelledData):
    boxed = {split: tuple(replace(pair, box=Box(0, 0, 9, 9)) for pair in pairs) for split, pairs in toy.splits.items()}
    scene = replace(toy, splits=boxed)
    found = [completed("default", {"crop": 32, "crop_width": 48}, data).window for data in (toy, scene)]
    assert found == [0, 48] and completed("default", {"window": 0}, scene).window == 0
    assert completed("default", {"epochs": 2.5, "batch": 4, "devices": 2}, toy).steps == 2, "10 samples, 8 a step"


def test_processes_share_the_samples_of_each_step(monkeypatch: pytest.MonkeyPatch):
    """Three processes with batches of 2 see together what one sees with batches of 6, in the same steps."""
    parts = []
    for rank in range(3):
        monkeypatch.setattr(loader, "rank_and_size", lambda rank=rank: (rank, 3))
        sampler = ResumableSampler(2, 8, 2)
        parts.append(np.reshape(list(sampler), (3, 2)))
        assert len(sampler) == 8
    steps = np.concatenate(parts, axis=1)
    assert np.array_equal(np.sort(steps, axis=1), np.arange(6, 24).reshape(3, 6))


def flat(colour: tuple[float, ...]) -> Sample:
    """An image of one colour, and a darker half."""
    image = np.array(colour, np.float32)[:, None, None] * np.concatenate([np.ones((24, 48)), np.full((24, 48), 0.5)])
    return Sample(image.astype(np.float32), np.zeros((48, 48), int), np.ones((48, 48), bool), "flat")


def jittered(sample: Sample, strength: float) -> np.ndarray:
    """Thirty views with random colours (n, c, h, w)."""
    given = Augmentation.model_construct(crop=48, scale=(1.0, 1.0), flip=False, colour=strength)
    how = {"ignore_index": 255, "divisor": 1.0}
    return np.stack([random_view(sample, given, generator(7, n), **how)[0].numpy() for n in range(30)])


def test_hue_moves_by_a_tenth_of_the_strength_of_a_turn():
    """Brightness, contrast and saturation leave it as it is."""
    before = colorsys.rgb_to_hsv(0.6, 0.3, 0.2)[0]
    for strength in (0.2, 0.6):
        hues = np.array([colorsys.rgb_to_hsv(*view[:, 5, 5])[0] for view in jittered(flat((0.6, 0.3, 0.2)), strength)])
        moved = (hues - before + 0.5) % 1 - 0.5
        assert abs(moved).max() <= 0.1 * strength + 2e-3 and np.ptp(moved) > 0.1 * strength


def test_brightness_and_contrast_change_by_at_most_the_strength():
    sample = flat((0.6, 0.3, 0.2, 0.5))  # four bands: neither saturation nor hue
    views = jittered(sample, 0.4)
    brightness = views.mean(axis=(1, 2, 3)) / sample.image.mean()
    contrast = views.std(axis=(1, 2, 3)) / sample.image.std() / brightness
    for factors in (brightness, contrast):
        assert 0.6 - 1e-4 <= factors.min() < 0.75 and 1.25 < factors.max() <= 1.4 + 1e-4
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.6


def test_as_many_views_are_enlarged_as_shrunk():
    """Factors from a half to two are drawn evenly in their logarithm."""
    sample, given = flat((0.1, 0.1, 0.1)), Augmentation.model_construct(crop=16, scale=(0.5, 2.0))
    sides = np.array(
        [_random_crop(sample, given, generator(1, n), ignore_index=255, label=None)[1].shape[0] for n in range(600)]
    )
    assert sides.min() == 8 and sides.max() == 32
    assert abs((sides > 16).mean() - 0.5) < 0.08 and abs((sides > 22).mean() - 0.25) < 0.08
