"""The public page: names are fixed, sorted, and there."""

from __future__ import annotations

import subprocess
import sys

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


@pytest.mark.slow
@pytest.mark.parametrize("imported", ["regard", "regard, regard.explain.explain, regard.export.export"])
def test_a_name_is_a_function_each_time_also_where_a_package_has_it(imported: str) -> None:
    program = f"import {imported}; print([callable(verb) for verb in (regard.explain, regard.explain, regard.export)])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[True, True, True]"
