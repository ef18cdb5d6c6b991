"""Two copies of the points, labelled by two people: kappa, and where they disagree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import regard
from regard.assessment.agreement import Agreement
from regard.cli import main
from regard.errors import ClassMismatch, ConfigError, DatasetError, OutputError
from support_assessment import NAMES, columns_of, label, pattern, write_map

# Agresti 2013, table 11.12 (husbands and wives), as R's vcd prints it: kappa 0.1293, ASE 0.06860
SEXUAL_FUN = np.array([[7, 7, 2, 3], [2, 8, 3, 7], [1, 5, 4, 9], [2, 8, 9, 14]])


def kappa_of(shares: np.ndarray) -> float:
    chance = shares.sum(axis=1) @ shares.sum(axis=0)
    return float((np.trace(shares) - chance) / (1 - chance))


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A map, and two copies of its points; the second person confuses two classes in the west, and skips the east."""
    made = write_map(tmp_path / "map.tif", pattern())
    first, second = tmp_path / "points.gpkg", tmp_path / "second" / "points.gpkg"
    regard.sample(made, first, points=60)
    second.parent.mkdir()
    shutil.copy(first, second)
    other = pattern()
    other[2:, :30] = 1 - np.minimum(other[2:, :30], 1)
    label(second, other, "map_column < 80")
    return made, label(first, pattern()), second


def test_kappa_of_a_published_table() -> None:
    value, error = Agreement(SEXUAL_FUN).kappa
    assert (f"{value:.4f}", f"{error:.5f}") == ("0.1293", "0.06860")


def test_kappa_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    for _ in range(20):
        first, noise = rng.integers(0, 4, (2, 80))
        second = np.where(rng.random(80) < 0.6, first, noise)
        counts = np.zeros((4, 4), int)
        np.add.at(counts, (first, second), 1)
        assert Agreement(counts).kappa[0] == pytest.approx(metrics.cohen_kappa_score(first, second), abs=1e-12)


def test_the_error_of_kappa_is_its_slope_times_that_of_the_counts() -> None:
    """The delta method with a numerical slope, and the covariance of a multinomial distribution."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        counts = rng.integers(0, 30, (3, 3)) + 20 * np.eye(3, dtype=int)
        shares, step = counts / counts.sum(), 1e-6
        slopes = np.zeros(9)
        for cell in range(9):
            up, down = shares.copy(), shares.copy()
            up.flat[cell], down.flat[cell] = up.flat[cell] + step, down.flat[cell] - step
            slopes[cell] = (kappa_of(up) - kappa_of(down)) / (2 * step)
        p = shares.ravel()
        variance = slopes @ (np.diag(p) - np.outer(p, p)) @ slopes / counts.sum()
        assert Agreement(counts).kappa[1] == pytest.approx(np.sqrt(variance), rel=1e-5)


def test_one_class_alone_has_no_kappa() -> None:
    facts = Agreement(np.diag([9, 0])).as_dict()
    assert (facts["agreement"], facts["kappa"], facts["kappa_interval"]) == (1.0, None, None)


def test_two_copies_give_the_matrix_of_both(copies: tuple[Path, Path, Path]) -> None:
    made, first, second = copies
    one, other = columns_of(first), columns_of(second)
    both = [(int(a), int(b)) for a, b in zip(one["reference"], other["reference"], strict=True) if b is not None]
    expected = np.zeros((3, 3), int)
    np.add.at(expected, tuple(np.array(both).T), 1)
    found = regard.accuracy(made, first, second=second).as_dict()["agreement"]
    assert found["matrix"] == expected.tolist()
    assert found["points"] == len(both)
    assert found["disagreements"] == len(both) - np.trace(expected) > 0


def test_disagreements_are_open_and_the_rest_labelled(
    copies: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, first, second = copies
    disagreements = tmp_path / "disagreements.gpkg"
    with pytest.raises(SystemExit, match="0"):
        main(
            [
                "accuracy",
                str(made),
                str(first),
                "--second",
                str(second),
                "--disagreements",
                str(disagreements),
                "--json",
            ]
        )
    facts = json.loads(capsys.readouterr().out)
    assert facts["files"] == [str(disagreements)]
    columns, one, other = columns_of(disagreements), columns_of(first), columns_of(second)
    names = [[value and NAMES[int(value)] for value in part["reference"]] for part in (one, other)]
    assert [columns["first"].tolist(), columns["second"].tolist()] == names
    assert columns["reference"].tolist() == [a if a == b else None for a, b in zip(*names, strict=True)]
    whole = regard.accuracy(made, label(disagreements, pattern(), "reference IS NULL"))
    assert whole.points == 60
    assert whole.as_dict()["overall_accuracy"] == 1


def test_what_are_no_two_copies_is_refused(copies: tuple[Path, Path, Path], tmp_path: Path) -> None:
    made, first, second = copies
    regard.sample(made, tmp_path / "others.gpkg", points=60, seed=2)
    with pytest.raises(DatasetError, match=r"others\.gpkg does not have the points"):
        regard.accuracy(made, first, second=tmp_path / "others.gpkg")
    with pytest.raises(ConfigError, match="disagreements without second"):
        regard.accuracy(made, first, disagreements=tmp_path / "disagreements.gpkg")
    with pytest.raises(OutputError, match="labels would be lost"):
        regard.accuracy(made, first, second=second, disagreements=tmp_path / "others.gpkg")
    with pytest.raises(OutputError, match="the input itself"):
        regard.accuracy(made, first, second=second, disagreements=second, overwrite=True)


def test_labels_outside_the_classes_are_refused_in_the_second_too(copies: tuple[Path, Path, Path]) -> None:
    made, first, second = copies
    label(second, np.full((60, 90), 7), "fid = 3")
    with pytest.raises(ClassMismatch, match=r"points\.gpkg has the label '7'"):
        regard.accuracy(made, first, second=second)
