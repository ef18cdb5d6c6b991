"""Views of an image: scales, flips and windows, with networks whose answer is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.card import Card
from regard.classes import ClassMap
from regard.errors import ConfigError
from regard.inference.scores import _scaled, class_scores
from regard.models import Segmenter
from regard.ops.windows import starts
from regard.options import Views
from support import NAMES, tiny


class PerPixel(Segmenter):
    """Three fixed logits per pixel, whatever stands around it; ``mean`` adds the mean of the image it is shown."""

    def __init__(self, *, mean: float = 0.0) -> None:
        super().__init__(Card(architecture="per pixel", config={}, classes=ClassMap.of(NAMES)))
        self.mix = nn.Parameter(torch.tensor([[1.0, -1, 0], [0, 2, 1], [1, 1, -2]]))
        self.mean = mean

    def logits(self, image: Tensor, *, auxiliary: bool = False) -> dict[str, Tensor]:
        own = torch.einsum("kc,bchw->bkhw", self.mix, image)
        return {"main": own + self.mean * image.mean(dim=(2, 3), keepdim=True)}


IMAGE = torch.randn(2, 3, 30, 47)


def test_one_view_is_the_models_own_logits():
    model = tiny()
    with torch.no_grad():
        assert torch.equal(class_scores(model, IMAGE), model(IMAGE))


@pytest.mark.parametrize("window", [1000, 47, 16, 7, 2])
def test_windows_of_a_network_without_context_change_nothing(window: int):
    model = PerPixel()
    torch.testing.assert_close(class_scores(model, IMAGE, Views(window=window)), model(IMAGE).detach())


def test_windows_see_no_more_than_themselves():
    assert not torch.allclose(class_scores(PerPixel(mean=5), IMAGE, Views(window=16)), PerPixel(mean=5)(IMAGE).detach())


@pytest.mark.parametrize("window", [None, 16])
def test_a_flipped_image_gives_the_flipped_scores(window: int | None):
    model = tiny()
    scores = class_scores(model, IMAGE, Views(flip=True, scales=(1.0, 0.7), window=window))
    mirrored = class_scores(model, IMAGE.flip(-1), Views(flip=True, scales=(1.0, 0.7), window=window))
    torch.testing.assert_close(mirrored.flip(-1), scores, rtol=1e-3, atol=5e-3)
    plain = class_scores(model, IMAGE, Views(window=window))
    assert not torch.allclose(class_scores(model, IMAGE.flip(-1), Views(window=window)).flip(-1), plain, atol=1e-3)


def test_several_views_are_the_log_of_their_mean_probability():
    model = tiny()
    with torch.no_grad():
        views = [model(IMAGE), model(IMAGE.flip(-1)).flip(-1)]
        expected = torch.stack([view.softmax(dim=1) for view in views]).mean(dim=0)
    scores = class_scores(model, IMAGE, Views(flip=True))
    torch.testing.assert_close(scores.exp(), expected)
    torch.testing.assert_close(scores.softmax(dim=1), expected)


@pytest.mark.parametrize(
    "settings", [{}, {"flip": True}, {"scales": (0.5, 1.0, 1.75)}, {"window": 16, "scales": (0.5, 2.0)}]
)
def test_a_constant_image_gives_one_answer_everywhere(settings: dict):
    flat = torch.tensor([0.3, -0.2, 0.5])[:, None, None].expand(1, 3, 40, 52)
    model = PerPixel(mean=1.0)
    expected = model(flat).detach().softmax(dim=1)
    torch.testing.assert_close(class_scores(model, flat, Views(**settings)).softmax(dim=1), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 3)])
def test_the_smallest_images_have_scores_at_their_size(size: tuple[int, int]):
    scores = class_scores(tiny(), torch.randn(1, 3, *size), Views(scales=(0.5, 1.0), flip=True))
    assert scores.shape == (1, 3, *size) and torch.isfinite(scores).all()


def test_all_views_stay_on_the_images_device():
    """A tensor made on the CPU beside those of a GPU would stop multi-view scoring there; 'meta' stands in for it."""
    scores = class_scores(PerPixel().to("meta"), IMAGE.to("meta"), Views(scales=(0.5, 1.0), flip=True))
    assert scores.device.type == "meta" and scores.shape == (2, 3, 30, 47)


@pytest.mark.parametrize(
    "settings", [{"scales": ()}, {"scales": (1.0, 0.0)}, {"scales": (-1.0,)}, {"window": 1}, {"window": -1}]
)
def test_views_that_cannot_be_are_refused(settings: dict):
    with pytest.raises(ConfigError, match="scales above 0 and a window of 2 pixels or more"):
        Views(**settings)


@pytest.mark.parametrize(("fusion", "share"), [("logits", 0.5), ("exp_logits", 1.0)])
@pytest.mark.parametrize("window", [None, 16])
def test_the_authors_fusion(fusion: str, share: float, window: int | None):
    """By hand, window by window, as their loops have it."""
    model, scales = PerPixel(mean=3), (1.0, 0.5)
    total = torch.zeros(2, 3, 30, 47, dtype=torch.float64)
    for scale in scales:
        view = _scaled(IMAGE, scale)
        height, width = view.shape[-2:]
        side = max(height, width) if window is None else window
        found, count = torch.zeros(2, 3, height, width, dtype=torch.float64), torch.zeros(height, width)
        for top in starts(height, side, side * 2 // 3):
            for left in starts(width, side, side * 2 // 3):
                part = (..., slice(top, top + side), slice(left, left + side))
                logits = model(view[part]) + model(view[part].flip(-1)).flip(-1)
                found[part] += (share * logits.detach().double()).exp()
                count[part] += 1
        total += F.interpolate(found / count, (30, 47), mode="bilinear")
    scores = class_scores(model, IMAGE, Views(scales=scales, flip=True, window=window, fusion=fusion))
    torch.testing.assert_close(scores, total.log().float(), rtol=1e-4, atol=1e-4)


def test_logits_that_no_float_could_raise_stay_finite():
    scores = class_scores(PerPixel(), IMAGE * 400, Views(flip=True, fusion="exp_logits"))
    assert torch.isfinite(scores).all()


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_fusion_is_refused():
    with pytest.raises(ConfigError, match="fusion 'mean'; need probabilities, logits, exp_logits"):
        Views(flip=True, fusion="mean")  # type: ignore[arg-type]


def test_d4_is_fused_as_probabilities_only():
    with pytest.raises(ConfigError, match="d4 views are fused as probabilities; got fusion 'logits'"):
        Views(d4=True, fusion="logits")


def test_one_scale_without_mirror_image_is_a_single_view():
    assert Views().single and Views(scales=(1.0,)).single and Views(window=7).single
    assert not any(views.single for views in (Views(scales=(0.5,)), Views(flip=True), Views(d4=True)))
