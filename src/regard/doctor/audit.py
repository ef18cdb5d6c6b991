"""A whole data folder examined in one run: every fault that can be seen without training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from regard.classes import ClassMap
from regard.datasets.labelled_data import Pair
from regard.doctor.footprints import find_overlaps
from regard.doctor.inspection import SHRINK, Inspection, Kind, inspect
from regard.doctor.inventory import Finding, Grade, take_inventory
from regard.doctor.landmarks import candidates, match
from regard.doctor.registration import better_place, learn_colours
from regard.doctor.vector_faults import look_at_polygons

GRADES: tuple[Grade, ...] = ("error", "warning", "note")
RARE = 0.001  # share of the labelled pixels
LEAST_CELLS = 2000  # to learn colours from


@dataclass(frozen=True)
class Examination:
    """The findings about a data folder, gravest first, and the labelled pixels of each class by split."""

    root: Path
    classes: ClassMap | None
    images: dict[str, int]
    pixels: dict[str, Int[np.ndarray, " k"]]
    findings: tuple[Finding, ...]
    pairs: tuple[Pair, ...] = ()

    def count(self, grade: Grade) -> int:
        """How many findings have this grade."""
        return sum(finding.grade == grade for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        names = self.classes.names if self.classes else ()
        return {
            "root": str(self.root),
            "images": self.images,
            "pixels": {split: dict(zip(names, pixels.tolist(), strict=True)) for split, pixels in self.pixels.items()},
            **{f"{grade}s": self.count(grade) for grade in GRADES},
            "findings": [finding._asdict() for finding in self.findings],
        }


def examine(root: str | Path, *, progress: Callable[[str], None] | None = None) -> Examination:
    """Look at every image and mask under ``root`` once, then compare them; faults are reported, not raised.

    Raises:
        DatasetError: ``root`` is no folder, or in none of the layouts of ``folder``.
    """
    stock = take_inventory(root)
    inspections = []
    for split, pair in ((split, pair) for split, pairs in stock.splits.items() for pair in pairs):
        inspections.append(inspect(pair, split, stock.classes))
        if progress is not None:
            progress(pair.name)
    findings = [*stock.findings, *(finding for one in inspections for finding in one.findings)]
    findings += _compare_kinds(inspections)
    findings += _find_same(inspections)
    findings += find_overlaps(inspections)
    if stock.root.is_file():
        findings += look_at_polygons(stock.root)
    pixels: dict[str, Int[np.ndarray, " k"]] = {}
    if stock.classes is not None:
        findings += _look_at_values(inspections, stock.classes)
        findings += _find_displaced(inspections, stock.classes)
        used = {split: pairs for split, pairs in stock.splits.items() if split != "unlisted"}
        pixels = {split: _sum(inspections, split, len(stock.classes)) for split in used}
        findings += _look_at_shares(pixels, stock.classes)
    images = {split: len(pairs) for split, pairs in stock.splits.items()}
    pairs = tuple(one.pair for one in inspections)
    return Examination(stock.root, stock.classes, images, pixels, sort_findings(findings), pairs)


def sort_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Gravest first, then by kind; each once."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda one: (GRADES.index(one.grade), one.kind)))


def _sum(inspections: Sequence[Inspection], split: str, classes: int) -> Int[np.ndarray, " k"]:
    counts = [one.counts for one in inspections if one.split == split and one.counts is not None]
    return np.sum(counts, axis=0) if counts else np.zeros(classes, dtype=np.int64)


def _compare_kinds(inspections: Sequence[Inspection]) -> Iterator[Finding]:
    """Images that differ from most in bands or in the type of their values."""
    by_kind: dict[Kind, list[str]] = defaultdict(list)
    for one in inspections:
        if one.kind is not None:
            by_kind[one.kind].append(one.name)
    if len(by_kind) < 2:
        return
    usual = max(by_kind, key=lambda kind: len(by_kind[kind]))
    for kind, names in by_kind.items():
        if kind.dtype != usual.dtype:
            what = f"{_some(names)}: {kind.dtype} values, most images have {usual.dtype}. Convert them to one type."
            yield Finding("error", "bit depth", what, tuple(names))
        if kind.bands != usual.bands:
            what = f"{_some(names)}: {kind.bands} bands, most images have {usual.bands}. Bring them to the same bands."
            yield Finding("warning" if kind.photograph and usual.photograph else "error", "bands", what, tuple(names))


def _find_same(inspections: Sequence[Inspection]) -> Iterator[Finding]:
    """The same bytes twice; the same place in two splits."""
    same: dict[str, list[Inspection]] = defaultdict(list)
    for one in inspections:
        if one.digest is not None and all(one.pair.image != other.pair.image for other in same[one.digest]):
            same[one.digest].append(one)
    for group in (group for group in same.values() if len(group) > 1):
        splits = sorted({one.split for one in group} - {"unlisted"})
        names = [one.name for one in group]
        leak = len(splits) > 1
        what = f"{' and '.join(names)} are the same file"
        what += f", in {' and '.join(splits)}: scores would lie. Keep one." if leak else ". Keep one."
        yield Finding("error" if leak else "warning", "leak" if leak else "same image", what, tuple(names))
    yield from _find_same_places([one for one in inspections if one.marks is not None and one.split != "unlisted"])


def _find_same_places(inspections: Sequence[Inspection]) -> Iterator[Finding]:
    by_split: dict[str, list[Inspection]] = defaultdict(list)
    for one in inspections:
        by_split[one.split].append(one)
    for left, right in combinations(by_split.values(), 2):
        marks = [[one.marks for one in side if one.marks is not None] for side in (left, right)]
        for index, its in candidates(*marks):
            one, other, found = left[index], right[its], match(marks[0][index], marks[1][its])
            if found is None or (one.digest is not None and one.digest == other.digest):
                continue
            names = one.name, other.name
            rows, columns = (SHRINK * step for step in found.offset)
            how = "mirrored or turned" if found.turned else f"{rows} rows and {columns} columns apart"
            what = (
                f"{names[0]} ({one.split}) and {names[1]} ({other.split}) show the same place, {how} ({found.agreeing} "
            )
            yield Finding("error", "leak", what + "landmarks agree). Keep both in one split.", names)


def _look_at_values(inspections: Sequence[Inspection], classes: ClassMap) -> Iterator[Finding]:
    """Masks of 0 and 255 where 255 means no class; labels that begin at 1 all over the set."""
    masks = [one for one in inspections if one.values and one.counts is not None]
    ignored = [one.values.get(classes.ignore_index, 0) / sum(one.values.values()) for one in masks]
    none = {0, classes.ignore_index}
    two = [set(one.values) == none for one in masks]
    limit = 0 if all(set(one.values) <= none for one in masks) else 0.005 + 2 * float(np.median(ignored))
    odd = [
        one.pair.mask.name for one, is_two, share in zip(masks, two, ignored, strict=True) if is_two and share > limit
    ]
    if odd:
        what = f"{_some(odd)}: only 0 and {classes.ignore_index} (no class). A 0/255 mask needs 255 rewritten as 1."
        yield Finding("error", "labels", what, tuple(odd))
    shifted = [one for one in inspections if one.values and len(classes) in one.values and 0 not in one.values]
    if len(shifted) > 1 and not any(0 in one.values for one in inspections):
        what = f"no mask holds 0 and {len(shifted)} hold {len(classes)}: the labels begin at 1. Subtract 1 everywhere."
        yield Finding("error", "labels", what, tuple(one.pair.mask.name for one in shifted))


def _find_displaced(inspections: Sequence[Inspection], classes: ClassMap) -> Iterator[Finding]:
    """Masks that fit their image better at another place."""
    usual = Counter(one.small.features.shape[2] for one in inspections if one.small is not None).most_common(1)
    measured = [(one, one.small) for one in inspections if one.small is not None]
    measured = [(one, small) for one, small in measured if small.features.shape[2] == usual[0][0]]
    cells = sum(np.count_nonzero(small.labels >= 0) for _, small in measured)
    if cells < LEAST_CELLS:
        return
    colours = learn_colours([small for _, small in measured], len(classes))
    for one, small in measured:
        place = better_place(small, colours)
        if place is None:
            continue
        side = max(one.size)
        how = place.turn or f"moved by {round(place.down * side)} rows and {round(place.right * side)} columns"
        what = f"the mask of {one.name} would fit it better {how}. Look at both."
        yield Finding("warning", "misplaced mask", what, (one.name,))


def _look_at_shares(pixels: Mapping[str, Int[np.ndarray, " k"]], classes: ClassMap) -> Iterator[Finding]:
    """Classes that are nowhere, not learned, not scored, or rare."""
    if not any(counts.any() for counts in pixels.values()):
        return
    total = np.sum(list(pixels.values()), axis=0)
    for label, name in enumerate(classes.names):
        without = [split for split, counts in pixels.items() if counts.any() and not counts[label]]
        share = total[label] / total.sum()
        if not total[label]:
            what = f"nothing is labelled {name!r} ({label}). Take it out of the classes."
            yield Finding("warning", "absent class", what)
        elif "train" in without:
            what = f"{name!r} ({label}) is scored but never in train, so it cannot be learned. Split anew."
            yield Finding("error", "absent class", what)
        elif without:
            what = f"{name!r} ({label}) is not in {' and '.join(without)}: its score is unknown there. Split anew."
            yield Finding("warning", "absent class", what)
        elif share < RARE:
            what = f"{name!r} ({label}) has {100 * share:.3f} % of the labelled pixels. Use --balance or class weights."
            yield Finding("note", "rare class", what)


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first names of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
