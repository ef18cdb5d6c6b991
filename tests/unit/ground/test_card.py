"""The card: what it checks, and that it survives being written."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from regard.card import Card
from regard.classes import ClassMap


def card(**facts: Any) -> Card:
    return Card(**({"architecture": "danet", "config": {}, "classes": ClassMap.of(["a", "b"])} | facts))


def test_rgb_with_imagenets_scaling_is_the_default():
    assert card().bands == ("red", "green", "blue") and card().divisor == 255


def test_survives_its_own_json():
    one = card(
        bands=("a", "b"), mean=(0.1, 0.2), std=(1, 2), scores={"miou": 0.5}, config={"width": 8, "output_stride": None}
    )
    assert Card.model_validate_json(one.model_dump_json()) == one


def test_cannot_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        card().divisor = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"bands": ("a", "b")}, "2 bands, 3 means, 3 stds"),
        ({"mean": (0.5,)}, "3 bands, 1 means, 3 stds"),
        ({"std": (1.0, 0.0, 1.0)}, r"std \(1.0, 0.0, 1.0\) must be above 0"),
        ({"std": (1.0, float("nan"), 1.0)}, "must be above 0"),
        ({"std": (1.0, -1.0, 1.0)}, "must be above 0"),
    ],
)
def test_scaling_that_cannot_be_is_refused(facts: dict[str, Any], reason: str):
    with pytest.raises(ValidationError, match=reason):
        card(**facts)
