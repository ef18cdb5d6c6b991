"""Pixels to scores: normalised by the card, scored on the model's device, whole or window by window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regard.errors import BandMismatch
from regard.inference.scores import class_scores, grid_scores, prepare, scores_of
from regard.io.image import Pixels
from regard.options import Views
from support import tiny


def pixels(height: int = 40, width: int = 56, *, empty: int = 0) -> Pixels:
    rng = np.random.default_rng(height * width)
    valid = np.ones((height, width), dtype=bool)
    valid[:, :empty] = False
    return Pixels(rng.integers(0, 256, (3, height, width), dtype=np.uint8), valid)


def test_the_network_sees_the_pixels_as_its_card_says_and_zero_where_there_is_no_data():
    model, found = tiny(), pixels(empty=5)
    image = prepare(*found, model.scaling).numpy()
    mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (model.card.mean, model.card.std))
    expected = (found.values / np.float32(model.card.divisor) - mean) / std
    np.testing.assert_allclose(image[..., 5:], expected[..., 5:], atol=1e-5)
    assert not image[..., :5].any()


@pytest.mark.parametrize("views", [Views(), Views(flip=True, scales=(0.5, 1.0)), Views(d4=True)])
def test_scores_have_the_images_size_and_are_those_of_the_normalised_image(views: Views):
    model, found = tiny(), pixels()
    scores = scores_of(model, found, views)
    assert scores.shape == (3, 40, 56)
    assert torch.equal(scores, class_scores(model, prepare(*found, model.scaling)[None], views)[0])


def test_scores_are_computed_where_the_model_is():
    assert scores_of(tiny().to("meta"), pixels()).device.type == "meta"


def test_windows_scored_together_have_the_scores_of_each():
    model = tiny()
    windows = [pixels(64, 64), pixels(64, 64, empty=20)]
    for views in (Views(), Views(flip=True)):
        together = grid_scores(model, windows, views)
        assert together.shape == (2, 3, 64 // model.stride, 64 // model.stride)
        for window, scores in zip(windows, together, strict=True):
            torch.testing.assert_close(grid_scores(model, [window], views)[0], scores, rtol=1e-4, atol=1e-4)


def test_the_grid_of_a_single_view_is_the_networks_own():
    model, found = tiny(), pixels(64, 64)
    with torch.no_grad():
        logits = model.logits(prepare(*found, model.scaling)[None])["main"]
    assert torch.equal(grid_scores(model, [found]), logits)


def test_values_beyond_8_bits_are_refused():
    found = pixels()
    with pytest.raises(BandMismatch, match=r"holds values from .* to 3000"):
        scores_of(tiny(), found._replace(values=found.values.astype(np.uint16) + 3000 - found.values.max()))
