"""Random views: image, labels and validity move together, and nothing but (seed, counter) decides how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.card import Scaling
from regard.datasets.labelled_data import Sample
from regard.inference.scores import normalise, prepare
from regard.training.augment import _is_useful, _largest_share, drop_band, generator, random_view
from regard.training.config import Augmentation

PLAIN = {"colour": 0.0, "flip": False, "scale": (1.0, 1.0)}


def painted(size: tuple[int, int], *, block: int = 8, dtype: str = "uint8") -> Sample:
    """Blocks of three grey levels, 80 x label, with the labels to match."""
    rng = np.random.default_rng(7)
    labels = np.kron(
        rng.integers(0, 3, size=(-(-size[0] // block), -(-size[1] // block))), np.ones((block, block), int)
    )
    labels = labels[: size[0], : size[1]]
    return Sample((80 * labels)[None].repeat(3, 0).astype(dtype), labels, np.ones(size, bool), "painted")


def view(sample: Sample, counter: int = 0, **settings: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    augmentation = Augmentation.model_construct(**settings)  # unchecked: crops smaller than a network can take
    return random_view(sample, augmentation, generator(3, counter), ignore_index=255, divisor=80.0)


@given(counter=st.integers(0, 10_000), rot90=st.booleans(), size=st.sampled_from([(60, 80), (33, 90), (20, 20)]))
def test_a_view_without_scaling_is_a_turned_cut_out(counter: int, rot90: bool, size: tuple[int, int]):
    values, labels, valid = view(painted(size), counter, crop=40, rot90=rot90, **PLAIN | {"flip": True})
    assert values.shape == (3, 40, 40) and labels.shape == valid.shape == (40, 40)
    inside = valid > 0
    assert torch.equal(values[0][inside].round().long(), labels[inside])  # the picture is painted from the labels
    assert torch.equal(inside, labels != 255)
    assert int(inside.sum()) == min(40, size[0]) * min(40, size[1])
    assert not values[:, ~inside].any()


@given(counter=st.integers(0, 10_000))
def test_scaled_labels_stay_on_the_picture(counter: int):
    """Where a view lies inside one block, its picture has that block's grey; only seams may blend."""
    values, labels, valid = view(painted((120, 160), block=20), counter, crop=64, scale=(0.5, 2.0), colour=0.0)
    inside = (valid > 0) & (labels == labels.roll(3, 0)) & (labels == labels.roll(3, 1))
    inside &= (labels == labels.roll(-3, 0)) & (labels == labels.roll(-3, 1))
    inside[:3] = inside[-3:] = inside[:, :3] = inside[:, -3:] = False
    off = (values[0] - labels).abs()[inside & (labels != 255)]
    assert off.numel() == 0 or float((off > 0.2).float().mean()) < 0.02  # corners of blocks


@pytest.mark.parametrize("factor", [0.45, 0.77, 1.3, 2.0, 2.9])
def test_scaled_labels_are_not_shifted(factor: float):
    """The border between two halves lies at the same place in picture and labels, to a tenth of a pixel on average."""
    shifts = []
    for border in range(40, 60):
        labels = (np.arange(100) >= border)[None].repeat(100, 0).astype(int)
        sample = Sample((80 * labels)[None].astype(np.uint8), labels, np.ones((100, 100), bool), "halves")
        how = {"crop": round(80 * factor), "scale": (factor, factor), "flip": False, "colour": 0.0}
        values, scaled, _ = view(sample, border, **how)
        shifts.append(float(values[0].sum(dim=1).mean() - scaled.sum(dim=1).double().mean()))
    assert abs(np.mean(shifts)) < 0.1, f"labels lie {np.mean(shifts):.2f} pixels beside the picture"


def test_the_same_numbers_give_the_same_view_and_others_another():
    sample = painted((80, 80))
    first, again, other = (view(sample, counter, crop=32, rot90=True) for counter in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_flips_and_quarter_turns_are_as_frequent_as_they_should_be():
    arrow = Sample(np.zeros((3, 8, 8), np.uint8), np.arange(64).reshape(8, 8), np.ones((8, 8), bool), "arrow")
    corners = [
        int(view(arrow, counter, crop=8, rot90=True, **PLAIN | {"flip": True})[1][0, 0]) for counter in range(800)
    ]
    shares = np.array([corners.count(corner) for corner in (0, 7, 56, 63)]) / 800
    assert sum(shares) == 1 and (abs(shares - 0.25) < 0.06).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("crop", [16, 64])
def test_every_type_of_pixel_becomes_float(dtype: str, crop: int):
    values, labels, _ = view(painted((40, 50), dtype=dtype), crop=crop, **PLAIN)
    assert values.dtype == torch.float32 and labels.dtype == torch.int64
    assert float(values.max()) == pytest.approx(2.0)


def test_colour_moves_values_but_no_labels():
    sample = painted((40, 40))
    plain, coloured = view(sample, crop=40, **PLAIN), view(sample, crop=40, **PLAIN | {"colour": 0.5})
    assert torch.equal(plain[1], coloured[1]) and not torch.equal(plain[0], coloured[0])


@pytest.mark.parametrize("void", [np.nan, np.inf, -9999.0])
def test_no_data_is_zero_after_scaling_and_does_not_bleed(void: float):
    sample = painted((40, 40), dtype="float32")
    valid = np.ones((40, 40), bool)
    valid[10:20, 10:20] = False
    image = np.where(valid, sample.image, void)
    holed = Sample(image, np.where(valid, sample.labels, 255), valid, "holed")
    scaling = Scaling((0.5,) * 3, (0.25,) * 3, 80.0)
    values, labels, inside = view(holed, crop=48, rot90=True)
    ready = normalise(values, scaling, inside)
    assert torch.isfinite(ready).all() and not ready[:, inside == 0].any() and (labels[inside == 0] == 255).all()
    whole = prepare(image, valid, scaling)
    assert not whole[:, ~torch.from_numpy(valid)].any()
    expected = (sample.image / 80 - 0.5) / 0.25
    np.testing.assert_allclose(whole.numpy()[:, valid], expected[:, valid], rtol=1e-5)


def test_crops_that_one_class_fills_are_drawn_again():
    """Two of three columns of blocks are one class: of crops as large as a block, far fewer are of it alone."""
    labels = np.kron(np.array([[0, 0, 1] * 6] * 18), np.ones((10, 10), int))
    sample = Sample(labels[None].astype(np.uint8), labels, np.ones(labels.shape, bool), "stripes")
    filled = {
        ratio: np.mean([len(view(sample, n, crop=9, class_ratio=ratio, **PLAIN)[1].unique()) == 1 for n in range(200)])
        for ratio in (1.0, 0.75)
    }
    assert filled[1.0] > 0.3 > 0.05 > filled[0.75]
    flat = Sample(np.zeros((1, 20, 20), np.uint8), np.zeros((20, 20), int), np.ones((20, 20), bool), "flat")
    assert not view(flat, crop=9, class_ratio=0.5, **PLAIN)[1].any()  # after ten draws, the last one
    void = Sample(flat.image, np.full((20, 20), 255), flat.valid, "void")
    assert (view(void, crop=9, class_ratio=0.5, **PLAIN)[1] == 255).all()


def test_the_largest_class_is_measured_among_what_is_labelled():
    """Of the labelled pixels three in four are of one class, of all pixels three in eight."""
    labels = np.full((2, 4), 255)
    labels[0] = [1, 1, 1, 2]
    assert _largest_share(labels, 255) == 0.75 and not _is_useful(labels, 255, 0.75) and _is_useful(labels, 255, 0.76)
    assert _is_useful(labels, 255, 1.0) and not _is_useful(np.full((4, 4), 255), 255, 1.0)


def test_each_band_has_its_own_gain_and_offset():
    rng = np.random.default_rng(1)
    spreads = np.array([200, 200, 200, 5, 5, 5])[:, None, None]
    image = (spreads * rng.random((6, 40, 40)) + 100).astype(np.float32)
    sample = Sample(image, np.zeros((40, 40), int), np.ones((40, 40), bool), "six")
    plain, jittered = (view(sample, crop=40, band_jitter=s, **PLAIN)[0].flatten(1) for s in (0.0, 0.2))
    lines = [np.polyfit(before, after, 1) for before, after in zip(plain.numpy(), jittered.numpy(), strict=True)]
    gains, offsets = np.array(lines).T
    assert (abs(gains - 1) < 0.2).all() and len({round(float(gain), 3) for gain in gains}) == 6
    spread = plain.std(dim=1).numpy()
    assert (abs(offsets) < 0.2 * spread + 1e-5).all() and np.ptp(offsets) > 0


def test_blur_takes_contrast_between_neighbours_but_no_brightness():
    image = np.random.default_rng(2).integers(0, 80, size=(3, 64, 64)).astype(np.uint8)
    sample = Sample(image, np.zeros((64, 64), int), np.ones((64, 64), bool), "noise")
    plain = view(sample, crop=64, **PLAIN)[0]
    blurred = [view(sample, n, crop=64, blur=0.5, **PLAIN)[0] for n in range(60)]
    changed = [values for values in blurred if not torch.equal(values, plain)]
    assert 18 <= len(changed) <= 42
    assert all(float(values.mean()) == pytest.approx(float(plain.mean()), rel=0.02) for values in changed)
    rough = [float(values.diff(dim=-1).abs().mean() / plain.diff(dim=-1).abs().mean()) for values in changed]
    assert max(rough) <= 1.001 and min(rough) < 0.5


def test_one_band_is_dropped_as_often_as_asked():
    lost = [(drop_band(torch.ones(4, 2, 2), 0.4, generator(5, n)) == 0).all(dim=(1, 2)) for n in range(500)]
    counts = torch.stack(lost).sum(dim=0)
    assert int(torch.stack(lost).sum(dim=1).max()) == 1
    assert 0.33 < int(counts.sum()) / 500 < 0.47 and int(counts.min()) > 25
    assert drop_band(torch.ones(1, 2, 2), 1.0, generator(5)).all(), "the only band stays"
