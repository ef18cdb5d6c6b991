"""The public page: names are fixed, sorted, and there."""

from __future__ import annotations

import pytest

import regard


def test_public_names_are_sorted_and_exist() -> None:
    assert sorted(regard.__all__) == regard.__all__
    for name in regard.__all__:
        assert getattr(regard, name) is not None
    assert set(dir(regard)) >= set(regard.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = regard.nothing_here
