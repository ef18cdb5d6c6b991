"""The curves as drawings that stand in a page of any colour."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from regard.ops.metrics import ONE
from regard.reports.charts import POINTS, _curve, _smooth, calibration, curves, histogram


def lines(steps: int, every: int = 0) -> list[dict]:
    """Metrics as a run writes them: losses of two outputs, the rate, now and then a score."""
    rng = np.random.default_rng(2)
    found: list[dict] = []
    for step in range(1, steps + 1):
        main = 2 / step + 0.1 * rng.random()
        found.append({"step": step, "loss": 1.4 * main, "main": main, "regions": main + 0.5, "rate": 1e-3 / step})
        if every and step % every == 0:
            found.append({"step": step, "miou": 0.5 + 0.1 * np.sin(step), "confusion": []})
    return found


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg).replace("<svg ", '<svg xmlns:xlink="x" ', 1))


def test_loss_rate_and_score_are_drawn_and_described():
    charts = curves(lines(60, every=20))
    assert len(charts) == 3
    for svg, caption in charts:
        root = parsed(svg)
        assert root.tag == "svg" and root.get("role") == "img" and len(root.get("aria-label")) > 20 and caption
        texts = ["".join(text.itertext()) for text in root.iter("text")]
        assert "step" in texts
    labels = ["".join(text.itertext()) for text in parsed(charts[0][0]).iter("text")]
    assert {"loss", "main", "regions"} <= set(labels)
    assert "highest 59.1 at step 20" in charts[2][1]  # sin(20) is the largest of sin(20), sin(40), sin(60)


def test_a_drawing_has_the_pages_ink_no_address_and_no_own_background():
    for svg, _ in curves(lines(30, every=10)):
        assert "var(--ink)" in svg and "var(--line)" in svg
        assert not re.search(r"https?:|#000000|#ffffff|font-family|<style|<metadata|<\?xml|DOCTYPE", svg)


def test_names_in_a_drawing_are_escaped_and_are_no_formula():
    svg, _ = curves([{"step": 1, "loss": 1.0, "<b>$x^2$ & co": 1.0, "rate": 0.1}])[0]
    assert "<b>" not in svg and "&lt;b&gt;$x^2$ &amp; co" in svg
    parsed(svg)


def test_ids_differ_between_drawings():
    found = [name for svg, _ in curves(lines(40, every=10)) for name in re.findall(r'\bid="([^"]*)"', svg)]
    assert found and len(found) == len(set(found))


def test_the_same_numbers_give_the_same_bytes():
    assert curves(lines(30, every=10)) == curves(lines(30, every=10))


@pytest.mark.parametrize(("metrics", "count"), [([], 0), (lines(1), 2), (lines(20), 2), (lines(20, every=20), 3)])
def test_a_run_shows_the_curves_that_it_has_numbers_for(metrics: list[dict], count: int):
    assert len(curves(metrics)) == count


def test_a_run_without_training_lines_shows_its_scores():
    assert len(curves([line for line in lines(20, every=5) if "miou" in line])) == 1


def test_long_curves_are_thinned_to_means_over_all_steps():
    steps, values = _curve([{"step": step, "rate": float(step % 2)} for step in range(1, 20_001)], "rate")
    assert len(steps) == len(values) == POINTS
    np.testing.assert_allclose(values, 0.5)
    assert steps.mean() == pytest.approx(10_000.5)
    assert sum(len(svg) for svg, _ in curves(lines(20_000, every=500))) < 200_000


def test_of_equal_scores_the_last_is_marked():
    """The one whose weights are kept."""
    (_, caption), *_ = curves([{"step": step, "miou": miou} for step, miou in ((5, 0.6), (10, 0.6), (15, 0.2))])
    assert caption == "Validation mIoU, highest 60 at step 10."


@pytest.mark.parametrize(("confident", "verdict"), [((30, 240), "underconfident"), ((70, 300), "overconfident")])
def test_calibration_in_words(confident: tuple[int, int], verdict: str):
    """Half of 100 pixels and nine tenths of 300 are right, which is 80 %."""
    bins = np.array([[100, 50, confident[0] * ONE], [300, 270, confident[1] * ONE]])
    mean, error = sum(confident) / 4, (abs(confident[0] - 50) + abs(confident[1] - 270)) / 4
    _, caption = calibration(bins)
    assert f"confidence {mean:.1f} %, pixel accuracy 80.0 %: {abs(mean - 80):.1f} points {verdict}." in caption
    assert f"calibration error {error:.1f} %" in caption


def test_a_histogram_leaves_out_what_has_no_data():
    levels = np.zeros(256, int)
    levels[[0, 127, 128, 249]] = 1000, 30, 10, 60  # of 255: 49.8, 50.2 and 97.6 %
    assert histogram(levels)[1] == "Median confidence 98 %; 30.0 % of the pixels are below 50 %."


def test_smoothing_keeps_a_slope():
    np.testing.assert_allclose(_smooth(np.arange(200.0))[10:-10], np.arange(200.0)[10:-10])


@pytest.mark.parametrize("count", [1, 2, 39, 400])
def test_smoothing_keeps_a_constant_and_calms_noise(count: int):
    np.testing.assert_allclose(_smooth(np.full(count, 3.0)), 3.0)
    noise = np.random.default_rng(3).normal(size=count)
    assert _smooth(noise).std() <= noise.std()
    assert count < 400 or _smooth(noise).std() < 0.4 * noise.std()
