"""Intervals, shares and sentences against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from regard.classes import ClassMap
from regard.evaluation.evaluate import Scores
from regard.ops.metrics import intervals
from regard.reports import tables


def scores(counts: list[list[int]] | np.ndarray, names: list[str] | None = None) -> Scores:
    table = np.asarray(counts, dtype=np.int64)
    return Scores(ClassMap.of(names or [f"class {index}" for index in range(len(table))]), table)


def test_intervals_agree_with_redrawing_image_by_image():
    rng = np.random.default_rng(1)
    images = rng.integers(1, 50, size=(9, 3, 3)) + 40 * np.eye(3, dtype=int) * rng.integers(0, 4, size=(9, 1, 1))
    draws = []
    for _ in range(4000):
        total = sum(images[index] for index in rng.integers(9, size=9))
        iou = [total[k, k] / (total[k].sum() + total[:, k].sum() - total[k, k]) for k in range(3)]
        draws.append([*iou, np.mean(iou)])
    expected = np.percentile(draws, (2.5, 97.5), axis=0).T
    np.testing.assert_allclose(intervals(images), expected, atol=0.02)


def test_intervals_of_equal_images_are_the_score_itself_and_an_absent_class_has_none():
    one = np.array([[30, 10, 0], [5, 55, 0], [0, 0, 0]])
    first, second, absent, mean = intervals(np.repeat(one[None], 5, axis=0))
    assert first == pytest.approx((30 / 45, 30 / 45))
    assert second == pytest.approx((55 / 70, 55 / 70))
    assert absent is None
    assert mean == pytest.approx(((30 / 45 + 55 / 70) / 2,) * 2)


def test_a_class_of_one_image_is_not_pulled_down_by_the_draws_without_it():
    images = np.zeros((6, 2, 2), dtype=int)
    images[:, 0, 0] = 100
    images[0, 1, 1] = 7
    assert intervals(images)[1] == (1.0, 1.0)


def test_matrix_rows_are_shares_of_the_reference_class_and_an_absent_class_is_empty():
    columns, rows = tables.matrix(scores([[6, 2, 2], [0, 0, 0], [1, 0, 3]], ["road", "rail", "roof"]))
    assert columns == ["road", "rail", "roof"]
    assert rows == [("road", 0, [0.6, 0.2, 0.2]), ("rail", 1, [None] * 3), ("roof", 2, [0.25, 0.0, 0.75])]


def test_beyond_the_limit_the_classes_with_most_errors_stay_and_rows_still_add_up_to_one():
    counts = 100 * np.eye(6, dtype=int)
    counts[4, 1], counts[1, 4], counts[5, 0] = 30, 20, 10
    columns, rows = tables.matrix(scores(counts), limit=3)
    assert columns == ["class 0", "class 1", "class 4", "all others"]
    assert [(name, own) for name, own, _ in rows] == [("class 0", 0), ("class 1", 1), ("class 4", 2)]
    for _, _, shares in rows:
        assert sum(shares) == pytest.approx(1)
    columns, rows = tables.matrix(scores(counts), limit=1)
    assert columns == ["class 1", "all others"]
    assert rows[0][2] == pytest.approx([100 / 120, 20 / 120])


def test_errors_of_omission_count_as_those_of_commission():
    counts = np.array([[9, 5, 5], [1, 9, 0], [1, 0, 9]])  # the first has 10 and 2, the others 1 and 5
    assert tables.matrix(Scores(ClassMap.of(["a", "b", "c"]), counts), 1)[0] == ["a", "all others"]


def test_pairs_come_by_pixels_with_their_share_of_the_class_and_of_all_errors():
    found = tables.pairs(scores([[90, 30, 0], [20, 20, 0], [0, 10, 10]], ["a", "b", "c"]))
    assert found == [
        ("a", "b", 0.25, 0.5),
        ("b", "a", 0.5, pytest.approx(1 / 3)),
        ("c", "b", 0.5, pytest.approx(1 / 6)),
    ]
    assert len(tables.pairs(scores(np.ones((9, 9))), count=4)) == 4


def test_the_sentence_reads_the_largest_share_not_the_most_pixels():
    assert tables.reading(scores([[900, 100, 0], [0, 50, 0], [31, 0, 69]], ["land", "water", "road"])) == (
        "For example, 31 % of the reference pixels of road are predicted as land."
    )


def test_the_sentence_reads_a_cell_that_is_shown():
    counts = 1000 * np.eye(22, dtype=int)
    counts[:20, :20] += 30
    counts[20, 21] = 500  # a large share of class 20; classes 20 and 21 have fewer errors than the others
    assert counts[:20, :20].sum() // 20 > 1500
    assert "pixels of class 20 " not in tables.reading(scores(counts)) and "class 21" not in tables.reading(
        scores(counts)
    )


def test_without_errors_the_sentence_says_so():
    assert "correctly" in tables.reading(scores([[5, 0], [0, 3]]))
    assert tables.reading(scores([[0, 0], [0, 0]])) == "No pixel is labelled."
    assert tables.pairs(scores([[5, 0], [0, 3]])) == []
