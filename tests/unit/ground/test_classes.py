"""Class maps: what is accepted, what is refused and how it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from regard.classes import ClassMap, default_palette, first_reason, known_classes
from regard.errors import ClassMismatch, DatasetError


def test_names_alone_get_distinct_colours():
    classes = ClassMap.of(["road", "water", "forest"])
    assert len(classes) == 3 and classes.ignore_index == 255
    assert ClassMap.of(classes) is classes


@pytest.mark.parametrize("count", [2, 8, 19, 150])
def test_default_colours_are_distinct_and_neither_black_nor_white(count: int):
    palette = default_palette(count)
    assert len(set(palette)) == count
    assert all(max(colour) > 40 and min(colour) < 240 for colour in palette)
    assert palette[:2] == default_palette(2)  # a longer list keeps the first colours


@pytest.mark.parametrize("names", [[], ["one"], ["a", "b", "a"]])
def test_of_refuses_too_few_names_and_names_twice(names: list[str]):
    with pytest.raises(ClassMismatch, match="list of classes"):
        ClassMap.of(names)


BLACK = (0, 0, 0)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"names": ("a", "b"), "palette": (BLACK,)}, "2 class names but 1 colours"),
        ({"names": ("a", "b"), "palette": (BLACK, (0, 0, 256))}, r"colour \(0, 0, 256\) is outside 0..255"),
        (
            {"names": ("a", "b"), "palette": (BLACK, (0, 0, 1)), "ignore_index": 1},
            "1 is the label of .*'b'",
        ),
        ({"names": ("a", "a"), "palette": (BLACK, (0, 0, 1))}, "'a' stands twice"),
    ],
)
def test_contradictions_are_refused(facts: dict, reason: str):
    with pytest.raises(ValidationError, match=reason) as caught:
        ClassMap(**facts)
    assert "\n" not in first_reason(caught.value)


def test_reads_classes_json_with_and_without_palette(tmp_path: Path):
    path = tmp_path / "classes.json"
    facts = {
        "names": ["a", "b"],
        "palette": [[1, 2, 3], [4, 5, 6]],
        "ignore_index": 0 - 1,
        "note": "other keys are let be",
    }
    path.write_text(json.dumps(facts))
    assert ClassMap.read(path) == ClassMap(names=("a", "b"), palette=((1, 2, 3), (4, 5, 6)), ignore_index=-1)
    path.write_text('{"names": ["a", "ä"]}', encoding="utf-8")
    assert ClassMap.read(path).palette == default_palette(2)


def test_reads_a_file_that_begins_with_a_byte_order_mark(tmp_path: Path):
    path = tmp_path / "classes.json"
    path.write_text('{"names": ["a", "b"]}', encoding="utf-8-sig")
    assert ClassMap.read(path).names == ("a", "b")


def test_a_folder_in_its_place_is_refused(tmp_path: Path):
    (tmp_path / "classes.json").mkdir()
    with pytest.raises(DatasetError, match=r"classes\.json"):
        ClassMap.read(tmp_path / "classes.json")


def test_survives_its_own_json():
    classes = ClassMap.of(["a", "b", "c"])
    assert ClassMap.model_validate_json(classes.model_dump_json()) == classes


def test_one_colour_for_two_classes_is_refused_but_in_a_public_list(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text('{"names": ["a", "b", "c"], "palette": [[1, 2, 3], [9, 9, 9], [9, 9, 9]]}')
    with pytest.raises(DatasetError, match=r"classes\.json: colour \[9, 9, 9\] stands twice \('b', 'c'\)"):
        ClassMap.read(path)
    published = known_classes("ade20k")
    assert published.colour_twice()
    path.write_text(published.model_dump_json())
    assert ClassMap.read(path) == published
