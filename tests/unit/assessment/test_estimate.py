"""Estimators against published examples, and against the papers' formulas in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from regard.assessment.estimate import Accuracies, LabelledSample, Z, clopper_pearson, design_effect, estimate

ENDLESS = 10**15  # pixels: no correction for a finite population

# Olofsson et al. 2014, table 8: mapped (rows) against reference, and the mapped pixels of 30 m.
TABLE_8 = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED = np.array([200_000, 150_000, 3_200_000, 6_450_000])


def by_class(matrix: np.ndarray, area: np.ndarray, pixels: np.ndarray) -> LabelledSample:
    """The sample of an error matrix whose strata are the map's classes."""
    rows, columns = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
    return LabelledSample(rows, rows, columns, np.ones(len(rows)), pixels, area.astype(float))


@pytest.fixture(scope="module")
def olofsson() -> Accuracies:
    """The example with areas in hectares."""
    return estimate(by_class(TABLE_8, MAPPED * 0.09, np.full(4, ENDLESS)), 4)


def test_accuracies_of_olofsson_2014(olofsson: Accuracies) -> None:
    assert olofsson.users.value == pytest.approx([0.88, 0.7333333, 0.9272727, 0.9630769], abs=1e-7)
    assert Z * olofsson.users.se == pytest.approx([0.07403962, 0.10075516, 0.03974464, 0.02053312], abs=1e-8)
    assert olofsson.producers.value == pytest.approx([0.7486614, 0.8471564, 0.9345089, 0.9616090], abs=1e-7)
    assert Z * olofsson.producers.se == pytest.approx([0.21330593, 0.25440369, 0.03432379, 0.01836120], abs=1e-8)
    assert olofsson.overall.value == pytest.approx([0.9465119], abs=1e-7)
    assert Z * olofsson.overall.se == pytest.approx([0.01848328], abs=1e-8)


def test_areas_of_olofsson_2014(olofsson: Accuracies) -> None:
    """Hectares as printed on page 54; the last margin, printed as 16,282, is 16,281.36 by the paper's equation."""
    assert [f"{value:,.0f}" for value in olofsson.area.value] == ["21,158", "11,686", "285,770", "581,386"]
    assert [f"{value:,.0f}" for value in Z * olofsson.area.se] == ["6,158", "3,756", "15,510", "16,281"]
    assert olofsson.area.high - olofsson.area.value == pytest.approx(Z * olofsson.area.se)
    assert olofsson.area.value - olofsson.area.low == pytest.approx(Z * olofsson.area.se)


def test_shares_of_olofsson_2014(olofsson: Accuracies) -> None:
    """Table 9."""
    table = [
        [0.0176, 0, 0.0013, 0.0011], [0, 0.0110, 0.0016, 0.0024],
        [0.0019, 0, 0.2967, 0.0213], [0.0040, 0.0020, 0.0179, 0.6212],
    ]  # fmt: skip
    assert olofsson.shares.round(4) == pytest.approx(np.array(table))
    assert (olofsson.counts == TABLE_8).all()


def test_area_of_olofsson_2013() -> None:
    """The first example of Olofsson et al., Making better use of accuracy data (2013): pixels, equations 10 to 16."""
    matrix, mapped = np.array([[97, 0, 3], [3, 279, 18], [2, 1, 97]]), np.array([22353, 1122543, 610228])
    found = estimate(by_class(matrix, mapped, np.full(3, ENDLESS)), 3)
    assert found.area.value[0] == pytest.approx(45112.4, abs=0.1)
    assert Z * found.area.se[0] == pytest.approx(21072.37, abs=0.01)
    assert found.producers.value == pytest.approx([0.4806308, 0.9941887, 0.8969259], abs=1e-7)
    assert Z * found.producers.se == pytest.approx([0.22453045, 0.01132522, 0.04120541], abs=1e-8)
    assert found.overall.value == pytest.approx([0.9444168], abs=1e-7)


def stehman(pixels: np.ndarray) -> Accuracies:
    """Stehman 2014, table 2: four strata of 10 points that are not the map's classes A to D."""
    mapped, reference = "AAAAAAABBBABBBBBBBBBBBCCCCCCBBDDDDDDDDDD", "AAAAACBABCABBBBBAABBCCCCCDDBBADDDDDDDCCB"
    labels = (np.array([*text], "S1").view(np.uint8).astype(int) - 65 for text in (mapped, reference))
    area = np.array([40_000.0, 30_000, 20_000, 10_000])
    return estimate(LabelledSample(np.repeat(np.arange(4), 10), *labels, np.ones(40), pixels, area), 4)


def test_the_example_of_stehman_2014() -> None:
    """Its pages 4932 to 4936, with more digits from R's package mapaccuracy 0.1.2; this population is finite."""
    found = stehman(np.array([40_000, 30_000, 20_000, 10_000]))
    assert found.area.value / 1e5 == pytest.approx([0.35, 0.34, 0.20, 0.11])
    assert found.area.se[[0, 2]] / 1e5 == pytest.approx([0.0822478, 0.06427977], abs=1e-7)
    assert (*found.overall.value, *found.overall.se) == pytest.approx((0.63, 0.08464219), abs=1e-8)
    assert (found.users.value[1], found.users.se[1]) == pytest.approx((0.5744681, 0.1247822), abs=1e-7)
    assert (found.producers.value[1], found.producers.se[1]) == pytest.approx((0.7941176, 0.1165479), abs=1e-7)
    assert found.shares[1, 2] == pytest.approx(0.08)


def test_the_same_example_without_the_finite_population() -> None:
    """As R's package mapac computes it. Its errors of F1 leave out that user's and producer's accuracy covary."""
    found = stehman(np.full(4, ENDLESS))
    assert found.users.se == pytest.approx([0.1645627, 0.1248023, 0.2151657, 0.1527525], abs=1e-7)
    assert found.producers.se == pytest.approx([0.1477318, 0.1165671, 0.1504438, 0.1623242], abs=1e-7)
    assert found.f1.value == pytest.approx([0.6969697, 0.6666667, 0.3750000, 0.6666667], abs=1e-7)


def exact(sample: LabelledSample, tops: list[Fraction], bottoms: list[Fraction]) -> tuple[float, float]:
    """The ratio of two totals and its standard error in fractions, stratum by stratum, from the formulas."""
    size, strata = [Fraction(value) for value in sample.size], range(len(sample.area))
    members = [[i for i, stratum in enumerate(sample.stratum) if stratum == h] for h in strata]
    expand = [Fraction(sample.area[h]) / sum((size[i] for i in members[h]), Fraction()) for h in strata]
    total = [
        sum((expand[h] * size[i] * values[i] for h in strata for i in members[h]), Fraction())
        for values in (tops, bottoms)
    ]
    if not total[1]:
        return math.nan, math.nan
    ratio, variance = total[0] / total[1], Fraction()
    for h in strata:
        n, whole = len(members[h]), int(sample.pixels[h])
        residuals = {i: tops[i] - ratio * bottoms[i] for i in members[h]}
        mean = sum((size[i] * residuals[i] for i in members[h]), Fraction()) / sum(size[i] for i in members[h])
        squares = sum(((expand[h] * size[i] * (residuals[i] - mean)) ** 2 for i in members[h]), Fraction())
        variance += (1 - Fraction(n, whole)) * Fraction(n, n - 1) * squares
    return float(ratio), math.sqrt(variance) / float(total[1])


def random_sample(rng: np.random.Generator) -> tuple[LabelledSample, int]:
    """A design of up to 5 strata and 4 classes, each pixel with its own ground in every second."""
    strata, classes = int(rng.integers(1, 6)), int(rng.integers(2, 5))
    counts = rng.integers(2, 12, strata)
    stratum = rng.permutation(np.repeat(np.arange(strata), counts))
    mapped, reference = rng.integers(0, classes, (2, len(stratum)))
    size = rng.uniform(0.5, 2, len(stratum)) if rng.integers(2) else np.ones(len(stratum))
    area = rng.uniform(10, 1000, strata)
    return LabelledSample(stratum, mapped, reference, size, counts + rng.integers(1, 50, strata), area), classes


def test_every_estimate_equals_its_formula_in_fractions() -> None:
    rng = np.random.default_rng(14)
    for _ in range(100):
        sample, classes = random_sample(rng)
        found = estimate(sample, classes)
        one = [Fraction(1)] * len(sample.mapped)
        both = [Fraction(int(m == r)) for m, r in zip(sample.mapped, sample.reference, strict=True)]
        assert (*found.overall.value, *found.overall.se) == pytest.approx(exact(sample, both, one), abs=1e-9)
        k = int(rng.integers(classes))
        mapped, reference = ([Fraction(int(v == k)) for v in labels] for labels in (sample.mapped, sample.reference))
        hit = [a * b for a, b in zip(mapped, reference, strict=True)]
        twice, summed = [2 * a for a in hit], [a + b for a, b in zip(mapped, reference, strict=True)]
        either = [max(a, b) for a, b in zip(mapped, reference, strict=True)]
        pairs = [(found.users, hit, mapped), (found.producers, hit, reference), (found.f1, twice, summed)]
        for got, top, bottom in [*pairs, (found.iou, hit, either)]:
            assert (got.value[k], got.se[k]) == pytest.approx(exact(sample, top, bottom), abs=1e-9, nan_ok=True)
        total = sample.area.sum()
        assert np.array([found.area.value[k], found.area.se[k]]) / total == pytest.approx(
            exact(sample, reference, one), abs=1e-9
        )


def test_a_census_has_no_error() -> None:
    sample, classes = random_sample(np.random.default_rng(3))
    whole = LabelledSample(**{**vars(sample), "pixels": sample.counts})
    assert (estimate(whole, classes).area.se == 0).all()


def test_the_share_of_a_rare_class_has_an_interval_above_0() -> None:
    """3 of 100 points in one stratum: Wilson's interval as Brown, Cai and DasGupta (2001) write it, equation 4."""
    sample = by_class(np.array([[0, 0], [3, 97]])[1:], np.array([1]), np.array([ENDLESS]))
    found, n, p = estimate(sample, 2), 99, 0.03
    centre, half = (p * n + Z**2 / 2) / (n + Z**2), Z * n**0.5 / (n + Z**2) * (p * (1 - p) + Z**2 / 4 / n) ** 0.5
    assert (found.share.low[0], found.share.high[0]) == pytest.approx((centre - half, centre + half))
    assert found.area.low[0] == 0 and found.area.high[1] == 1  # the symmetric interval would leave 0 to 1


def test_no_error_found_is_not_certainty() -> None:
    """40 points without an error: Wilson's interval ends at n / (n + z²)."""
    found = estimate(by_class(np.diag([40, 40]), np.array([1, 1]), np.full(2, ENDLESS)), 2)
    assert found.users.low == pytest.approx([40 / (40 + Z**2)] * 2)
    assert found.users.high == pytest.approx([1, 1])


def test_a_class_that_no_label_names_has_no_producers_accuracy() -> None:
    found = estimate(by_class(np.array([[5, 0], [5, 0]]), np.array([1, 1]), np.full(2, ENDLESS)), 2)
    assert np.isnan(found.producers.value[1])
    assert found.area.value[1] == 0


# Clopper and Pearson's limits for 95 %, as R's binom.test prints them.
@pytest.mark.parametrize(
    ("right", "points", "printed"),
    [
        (9, 10, (0.5549839, 0.9974714)),
        (0, 10, (0, 0.3084971)),
        (20, 20, (0.8315665, 1)),
        (8, 10, (0.4439045, 0.9747893)),
    ],
)
def test_exact_limits_are_those_of_binom_test(right: int, points: int, printed: tuple[float, float]) -> None:
    assert clopper_pearson(right, points) == pytest.approx(printed, abs=1e-6)


def test_few_points_have_an_exact_interval_and_others_have_not() -> None:
    matrix = np.array([[9, 1], [3, 57]])
    found = estimate(by_class(matrix, np.array([100.0, 900.0]), np.array([10_000, 90_000])), 2)
    assert (found.users.low[0], found.users.high[0]) == pytest.approx((0.5549839, 0.9974714), abs=1e-6)
    assert found.users.low[1] == pytest.approx(0.8630, abs=1e-3)  # Wilson's, of 57 in 60


def test_the_design_effect_is_one_for_a_simple_random_sample() -> None:
    """One stratum: p (1 - p) / (n - 1) against p (1 - p) / n."""
    zeros, reference = np.zeros(50, int), np.arange(50) % 5 // 4
    sample = LabelledSample(zeros, zeros, reference, np.ones(50), np.array([ENDLESS]), np.array([1.0]))
    assert design_effect(estimate(sample, 2).overall, 50) == pytest.approx(50 / 49)
