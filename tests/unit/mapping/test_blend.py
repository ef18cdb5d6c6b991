"""Scenes in windows against the whole canvas in float64."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from regard.errors import ConfigError
from regard.inference.scores import grid_scores, prepare
from regard.io.image import Pixels
from regard.io.raster import Box, open_raster
from regard.io.window_reader import padded
from regard.mapping import blend
from regard.mapping.blend import _scored, axes, labels_and_measures, memory_needed, predict_rows
from regard.mapping.measures import confidence, entropy, margin
from regard.models import Segmenter
from regard.ops.windows import ramp
from regard.options import Views, Windows
from support import map_options, tiny, write_tif

WINDOWS = Windows(tile=64, overlap=32, batch=3)


def scene_of(folder: Path, size: tuple[int, int], **profile: object) -> Path:
    coarse = np.random.default_rng(sum(size)).integers(
        0, 256, size=(3, size[0] // 5 + 1, size[1] // 5 + 1), dtype=np.uint8
    )
    return write_tif(folder / "scene.tif", coarse.repeat(5, 1).repeat(5, 2)[:, : size[0], : size[1]], **profile)


def by_rows(
    model: Segmenter, path: Path, windows: Windows = WINDOWS, views: Views = Views()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with open_raster(path) as raster:
        parts = list(predict_rows(model, raster, windows, views))
    tops = np.cumsum([0, *(len(rows.labels) for rows in parts[:-1])])
    assert [rows.top for rows in parts] == tops.tolist()
    columns = [(rows.labels, rows.measures["confidence"], rows.valid) for rows in parts]
    labels, confidence, valid = (np.concatenate(column) for column in zip(*columns, strict=True))
    return labels, confidence, valid


def whole_canvas(model: Segmenter, path: Path, views: Views = Views(), score: Callable = grid_scores) -> torch.Tensor:
    """Scores of the whole scene at full size, weighted and summed in float64, all at once."""
    stride = model.stride
    with open_raster(path) as raster:
        height, width = raster.size
        vertical, horizontal = axes(raster.size, WINDOWS, stride)
        total = torch.zeros(len(model.classes), vertical.cells, horizontal.cells, dtype=torch.float64)
        weight = torch.zeros(vertical.cells, horizontal.cells, dtype=torch.float64)
        overlap = WINDOWS.overlap // stride
        shape = ramp(vertical.window, overlap)[:, None] * ramp(horizontal.window, overlap)
        for top in vertical.begins:
            box = Box(top * stride, 0, vertical.window * stride, horizontal.cells * stride)
            pixels, valid = padded(raster, box)
            for left in horizontal.begins:
                cut = np.s_[..., left * stride : (left + horizontal.window) * stride]
                window = Pixels(pixels[cut], valid[cut])
                part = np.s_[..., top : top + vertical.window, left : left + horizontal.window]
                total[part] += score(model, [window], views)[0].double() * shape
                weight[part] += shape
    full = F.interpolate((total / weight)[None], scale_factor=stride, mode="bilinear")
    return full[0, :, :height, :width]


@pytest.mark.parametrize("size", [(150, 201), (64, 64), (65, 129), (20, 33), (1, 1), (1, 200), (97, 40)])
def test_rows_equal_the_whole_canvas(tmp_path: Path, tiny_model: Segmenter, size: tuple[int, int]) -> None:
    path = scene_of(tmp_path, size)
    labels, confidence, valid = by_rows(tiny_model, path)
    reference = whole_canvas(tiny_model, path)
    assert labels.shape == size and valid.all()
    best = reference.softmax(dim=0).max(dim=0)
    np.testing.assert_allclose(confidence, best.values.numpy(), atol=3e-4)
    top_two = reference.topk(2, dim=0).values
    clear = (top_two[0] - top_two[1] > 3e-3).numpy()  # where float32 cannot tip the balance
    assert np.array_equal(labels[clear], best.indices.numpy()[clear])


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_seam_where_rows_are_upsampled_a_few_at_a_time(
    tmp_path: Path, tiny_model: Segmenter, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Each pixel is interpolated between the cells above and below, also at the edge of what is done at once."""
    path = scene_of(tmp_path, (150, 70))
    reference = whole_canvas(tiny_model, path).softmax(dim=0).amax(dim=0)
    monkeypatch.setattr(blend, "GRID_ROWS_AT_ONCE", at_once)
    np.testing.assert_allclose(by_rows(tiny_model, path)[1], reference.numpy(), atol=3e-4)


def averaged_by_hand(model: Segmenter, windows: list[Pixels], views: Views) -> torch.Tensor:
    """The log of the mean probability of all views in float64, each by flips of rows and columns and their swap."""
    mirrors = [(False, False, False), (False, True, False)] if views.flip or views.d4 else [(False, False, False)]
    mirrors = list(product((False, True), repeat=3)) if views.d4 else mirrors
    exact, total, count = deepcopy(model).double(), 0.0, 0
    image = prepare(windows[0].values, windows[0].valid, model.scaling)[None]
    for scale, (down, across, swapped) in product(views.scales, mirrors):
        axes = [axis for axis, turned in ((2, down), (3, across)) if turned]
        size = [round(length * scale) for length in image.shape[-2:]]
        view = F.interpolate(image.double(), size, mode="bilinear", antialias=scale < 1).flip(axes)
        with torch.inference_mode():
            seen = exact(view.transpose(2, 3) if swapped else view)
        seen = (seen.transpose(2, 3) if swapped else seen).flip(axes)
        total = total + F.interpolate(seen, image.shape[-2:], mode="bilinear").softmax(dim=1)
        count += 1
    half = model.stride // 2
    rows = [(total / count).log()[:, :, start :: model.stride] for start in (half - 1, half)]
    return sum(part[..., start :: model.stride] for part in rows for start in (half - 1, half)) / 4


@pytest.mark.parametrize(
    "views", [{"flip": True}, {"scales": (0.5, 1.0, 1.5)}, {"d4": True}, {"scales": (1.0, 0.75), "flip": True}], ids=str
)
def test_several_views_equal_the_whole_canvas_by_hand(
    tmp_path: Path, tiny_model: Segmenter, monkeypatch: pytest.MonkeyPatch, views: dict
) -> None:
    path = scene_of(tmp_path, (101, 75))
    labels, confidence, valid = by_rows(tiny_model, path, views=Views(**views))
    reference = whole_canvas(tiny_model, path, Views(**views), averaged_by_hand)
    best, top_two = reference.softmax(dim=0).max(dim=0), reference.topk(2, dim=0).values
    np.testing.assert_allclose(confidence, best.values.numpy(), atol=3e-4)
    clear = (top_two[0] - top_two[1] > 3e-3).numpy()
    assert np.array_equal(labels[clear], best.indices.numpy()[clear]) and clear.mean() > 0.9
    monkeypatch.setattr(blend, "READ_BYTES", 1.0)
    again = by_rows(tiny_model, path, replace(WINDOWS, batch=5), Views(**views))
    assert all(np.array_equal(*pair) for pair in zip((labels, confidence, valid), again, strict=True))


@pytest.mark.parametrize(("batch", "read_bytes"), [(4, 16e6), (2, 0.0)])
def test_batch_and_memory_change_no_bit(
    tmp_path: Path, tiny_model: Segmenter, monkeypatch: pytest.MonkeyPatch, batch: int, read_bytes: float
) -> None:
    path = scene_of(tmp_path, (130, 170), nodata=3)
    expected = by_rows(tiny_model, path)
    monkeypatch.setattr(blend, "READ_BYTES", read_bytes)
    found = by_rows(tiny_model, path, replace(WINDOWS, batch=batch))
    assert all(np.array_equal(*pair) for pair in zip(expected, found, strict=True))


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_wide_scenes_are_upsampled_in_parts_that_change_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    """At a stride of 4 the last windows begin within a byte of the pixels that hold data."""
    model = tiny()
    model.stride, model.logits = stride, lambda images: {"main": F.avg_pool2d(images, stride)}
    values = np.random.default_rng(2).integers(0, 2, size=(3, 101, 1236), dtype=np.uint8) * 200
    path = write_tif(tmp_path / "scene.tif", values, nodata=0)
    whole = by_rows(model, path)
    assert np.array_equal(whole[2], values.any(0))
    monkeypatch.setattr(blend, "FLOATS_AT_ONCE", 2**17)
    assert all(np.array_equal(*pair) for pair in zip(whole, by_rows(model, path), strict=True))


@pytest.mark.parametrize("height", [64, 97, 130, 200])
def test_resuming_changes_no_bit(tmp_path: Path, tiny_model: Segmenter, height: int) -> None:
    with open_raster(scene_of(tmp_path, (height, 70), nodata=3)) as raster:
        whole = list(predict_rows(tiny_model, raster, WINDOWS))
        for first in range(len(axes(raster.size, WINDOWS, tiny_model.stride)[0].begins)):
            rest = list(predict_rows(tiny_model, raster, WINDOWS, first=first))
            expected = [rows for rows in whole if rows.row >= first]
            assert [rows.top for rows in rest] == [rows.top for rows in expected]
            for one, other in zip(rest, expected, strict=True):
                assert np.array_equal(one.labels, other.labels) and np.array_equal(one.valid, other.valid)
                assert np.array_equal(one.measures["confidence"], other.measures["confidence"])


def test_entropy_is_one_where_all_classes_are_alike_and_zero_where_one_is_certain() -> None:
    certain = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    assert entropy(torch.full((3, 1, 1), 1 / 3)).item() == pytest.approx(1)
    assert entropy(certain).item() == 0 and confidence(certain).item() == 1
    assert entropy(torch.ones(1, 2, 2)).tolist() == [[0, 0], [0, 0]]


def test_the_margin_is_the_lead_of_the_first_class_over_the_second() -> None:
    assert margin(torch.tensor([0.25, 0.625, 0.125])[:, None, None]).item() == 0.375
    assert margin(torch.ones(1, 1, 1)).item() == 1


def test_the_memory_of_a_map_counts_the_probabilities_of_every_class(tmp_path: Path) -> None:
    """Each of 102 classes takes three bytes of the 8 rows of cells that are worked on."""
    model, files = tiny(classes=[f"c{n}" for n in range(102)]), {"probabilities": tmp_path / "p.tif"}
    with open_raster(scene_of(tmp_path, (300, 4000))) as raster:
        plain, more = (memory_needed(model, raster, map_options(**given)) for given in ({}, files))
    assert more - plain == 3 * 102 * 8 * 16 * 4000


def test_one_window_is_the_model_itself(tmp_path: Path, tiny_model: Segmenter) -> None:
    path = scene_of(tmp_path, (64, 64))
    labels, _, _ = by_rows(tiny_model, path)
    with open_raster(path) as raster:
        pixels, valid = padded(raster, Box(0, 0, 64, 64))
    with torch.inference_mode():
        expected = tiny_model(prepare(pixels, valid, tiny_model.scaling)[None])[0].argmax(dim=0)
    assert np.array_equal(labels, expected.numpy())


def test_models_with_aligned_corners_run_on_the_same_grid(tmp_path: Path) -> None:
    model = tiny(align_corners=True)
    path = scene_of(tmp_path, (80, 100))
    _, confidence, _ = by_rows(model, path)
    expected = whole_canvas(model, path).softmax(dim=0).max(dim=0).values
    np.testing.assert_allclose(confidence, expected.numpy(), atol=3e-4)


@pytest.mark.parametrize("align_corners", [True, False])
def test_scores_on_the_grid_are_those_of_the_pixels_around_the_centre_of_each_cell(align_corners: bool) -> None:
    """With aligned corners the network's own cells lie elsewhere, so its answer at full size is taken."""
    model = tiny(align_corners=align_corners)
    values = np.random.default_rng(3).integers(0, 256, size=(3, 64, 96), dtype=np.uint8)
    pixels = Pixels(values, np.ones((64, 96), bool))
    found = grid_scores(model, [pixels])[0]
    with torch.inference_mode():
        image = prepare(*pixels, model.scaling)[None]
        full, own = model(image)[0], model.logits(image)["main"][0]
    half, stride = model.stride // 2, model.stride
    near = [full[:, row::stride, column::stride] for row in (half - 1, half) for column in (half - 1, half)]
    expected = torch.stack(near).mean(dim=0) if align_corners else own
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found, own, atol=1e-3) != align_corners


@pytest.mark.parametrize("batch", [1, 5, 9])
def test_every_window_is_scored_once_however_many_at_a_time(batch: int) -> None:
    """A window without data has no scores; those left over at the end of a row are scored too."""
    values = np.random.default_rng(5).integers(0, 256, size=(7, 3, 32, 32), dtype=np.uint8)
    cuts = [Pixels(each, np.full((32, 32), number != 2)) for number, each in enumerate(values)]
    found = {number: (scores, valid) for number, scores, valid in _scored(tiny(), cuts, Views(), batch)}
    assert sorted(found) == list(range(7)) and found[2][0] is None
    for number in (0, 1, 3, 4, 5, 6):
        assert found[number][1].all()
        torch.testing.assert_close(found[number][0], grid_scores(tiny(), [cuts[number]])[0], rtol=1e-4, atol=1e-4)


def test_more_than_256_classes_have_labels_of_16_bits() -> None:
    cells = torch.zeros(300, 2, 3)
    cells[299] = 1.0
    labels, _ = labels_and_measures(cells, 4, slice(0, 8), 12, ())
    assert labels.dtype == np.uint16 and (labels == 299).all()


def test_the_memory_of_a_map_counts_a_float_for_each_class_and_cell(tmp_path: Path) -> None:
    """Of all that is counted the canvas alone depends on the classes: one row of windows of them."""
    with open_raster(scene_of(tmp_path, (300, 4000))) as raster:
        few, many = (
            memory_needed(tiny(classes=[f"c{n}" for n in range(count)]), raster, map_options(tile=128, overlap=64))
            for count in (2, 102)
        )
        narrow = memory_needed(tiny(), raster, map_options(tile=64, overlap=32))
    assert many - few == 100 * 4 * (128 // 16) * (4000 // 16) and narrow < few


def test_empty_pixels_are_not_valid_and_do_not_bleed(tmp_path: Path, tiny_model: Segmenter) -> None:
    values = np.random.default_rng(1).integers(1, 255, size=(3, 64, 64), dtype=np.uint8)
    values[:, :20] = 0
    other = values.copy()
    one = by_rows(tiny_model, write_tif(tmp_path / "a.tif", values, nodata=0))
    other[:, :20] = 77
    with_mask = other.astype(np.float32)
    with_mask[:, :20] = np.nan
    two = by_rows(tiny_model, write_tif(tmp_path / "b.tif", with_mask))
    assert not one[2][:20].any() and one[2][20:].all()
    assert np.array_equal(one[0], two[0])


@pytest.mark.parametrize(
    "wrong",
    [{"tile": 100}, {"overlap": 100}, {"tile": 64, "overlap": 64}, {"batch": 0}, {"tile": -32}, {"overlap": -32}],
    ids=str,
)
def test_impossible_windows_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=r"\d"):
        Windows(**wrong)


def test_every_row_of_a_network_of_stride_1_is_there(tmp_path: Path) -> None:
    model = tiny("ocrnet_multiscale", key_width=8, attention_width=8)
    labels, _, valid = by_rows(model, scene_of(tmp_path, (150, 70)))
    assert model.stride == 1 and valid.shape == labels.shape == (150, 70) and valid.all()
