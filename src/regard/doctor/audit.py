"""The check of a whole data set: every fault that can be seen without training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from regard.classes import ClassMap
from regard.datasets.folder import NO_SPLIT, Finding, Grade, scan
from regard.datasets.labelled_data import Pair
from regard.doctor.geospatial import find_overlaps, polygon_faults
from regard.doctor.inspection import Inspection, PixelFormat, inspect
from regard.errors import counted, listed
from regard.progress import Progress

GRADES: tuple[Grade, ...] = ("error", "warning", "note")
RARE = 0.001  # share of the labelled pixels
NEAR = 0.2  # share of the bits in which the hashes of two copies differ at most; other images differ in 0.3 or more
ROWS = 1024  # hashes that are compared at once


@dataclass(frozen=True)
class Audit:
    """The findings about a data set, most severe first, and the labelled pixels of each class by split."""

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


def audit(root: str | Path, *, progress: bool = True) -> Audit:
    """Read every image and mask under ``root`` once, then compare them; faults are findings, not exceptions.

    Raises:
        DatasetError: ``root`` is not a folder.
    """
    found = scan(root)
    listed = [(split, pair) for split, pairs in found.splits.items() for pair in pairs]
    inspections = []
    with Progress("check", len(listed), unit=" images", enabled=progress) as bar:
        for split, pair in listed:
            inspections.append(inspect(pair, split, found.classes))
            bar.advance()
    used = [item for item in inspections if item.split != NO_SPLIT]
    findings = [*found.findings, *(finding for item in inspections for finding in item.findings)]
    findings += [*_compare_formats(inspections), *_same_files(inspections), *_near_duplicates(used)]
    findings += find_overlaps(used)
    if Path(root).is_file():
        findings += polygon_faults(Path(root))
    pixels: dict[str, Int[np.ndarray, " k"]] = {}
    if found.classes is not None:
        findings += _check_values(inspections, found.classes)
        pixels = {split: _sum(used, split, len(found.classes)) for split in found.splits if split != NO_SPLIT}
        findings += [*_check_frequencies(pixels, found.classes), *_check_splits(used, pixels)]
    images = {split: len(pairs) for split, pairs in found.splits.items()}
    pairs = tuple(pair for _, pair in listed)
    return Audit(Path(root), found.classes, images, pixels, sort_findings(findings), pairs)


def sort_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Most severe first, then by kind; each once."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: (GRADES.index(finding.grade), finding.kind)))


def _sum(inspections: Sequence[Inspection], split: str, classes: int) -> Int[np.ndarray, " k"]:
    counts = [item.counts for item in inspections if item.split == split and item.counts is not None]
    return np.sum(counts, axis=0) if counts else np.zeros(classes, dtype=np.int64)


def _compare_formats(inspections: Sequence[Inspection]) -> Iterator[Finding]:
    """Images that differ from most in bands or in the type of their values."""
    names_by_format: dict[PixelFormat, list[str]] = defaultdict(list)
    for item in inspections:
        if item.format is not None:
            names_by_format[item.format].append(item.name)
    if len(names_by_format) < 2:
        return
    usual = max(names_by_format, key=lambda form: len(names_by_format[form]))
    for form, names in names_by_format.items():
        if form.dtype != usual.dtype:
            message = f"{form.dtype} values, most images have {usual.dtype}. Convert them to one type."
            yield Finding("error", "bit depth", f"{listed(names)}: {message}", tuple(names))
        if form.bands != usual.bands:
            grade: Grade = "warning" if form.photograph and usual.photograph else "error"
            message = f"{counted(form.bands, 'band')}, most images have {usual.bands}. Use the same bands in all."
            yield Finding(grade, "bands", f"{listed(names)}: {message}", tuple(names))


def _same_files(inspections: Sequence[Inspection]) -> Iterator[Finding]:
    """Files with the same bytes."""
    same: dict[str, list[Inspection]] = defaultdict(list)
    for item in inspections:
        if item.digest is not None and all(item.pair.image != other.pair.image for other in same[item.digest]):
            same[item.digest].append(item)
    for group in (group for group in same.values() if len(group) > 1):
        splits = sorted({item.split for item in group} - {NO_SPLIT})
        names = [item.name for item in group]
        leak = len(splits) > 1
        message = f"{' and '.join(names)} are the same file"
        message += f", in {' and '.join(splits)}: scores would be inflated. Keep one." if leak else ". Keep one."
        yield Finding("error" if leak else "warning", "leak" if leak else "same image", message, tuple(names))


def _near_duplicates(inspections: Sequence[Inspection]) -> Iterator[Finding]:
    """Images of two splits that are copies: compressed or scaled again, mirrored, or rotated by quarters."""
    by_split: dict[str, list[Inspection]] = defaultdict(list)
    for item in inspections:
        if item.picture is not None:
            by_split[item.split].append(item)
    for left, right in combinations(by_split.values(), 2):
        ours, theirs = (np.stack([item.picture for item in side if item.picture is not None]) for side in (left, right))
        for start in range(0, len(left), ROWS):
            views = _agreement(ours[start : start + ROWS], theirs)
            for row, column in np.argwhere(views.max(axis=0) >= 1 - 2 * NEAR).tolist():
                first, second = left[start + row], right[column]
                if first.digest == second.digest:
                    continue
                how = ", mirrored or rotated" if views[:, row, column].argmax() else ""
                if how and (_is_uniform(first) or _is_uniform(second)):
                    continue  # open sea: a gradient alone, which some orientation fits
                both = f"{first.name} ({first.split}) and {second.name} ({second.split})"
                message = f"{both} are copies of one image{how}: scores would be inflated. Keep both in one split."
                yield Finding("error", "leak", message, (first.name, second.name))


def _is_uniform(item: Inspection) -> bool:
    """Whether all that is labelled of an image is one class."""
    return item.counts is not None and int(np.count_nonzero(item.counts)) < 2


def _agreement(ours: Float[np.ndarray, "m 16 16"], theirs: Float[np.ndarray, "n 16 16"]) -> Float[np.ndarray, "2 m n"]:
    """1 for equal hashes, 0 for unrelated ones: of the pictures as they are, and of their 7 other orientations."""
    views = [np.rot90(side, turns, (1, 2)) for side in (theirs, theirs[:, :, ::-1]) for turns in range(4)]
    hashes = _hashes(ours)
    upright, *others = [hashes @ _hashes(view).T / hashes.shape[1] for view in views]
    return np.stack([upright, np.max(others, axis=0)])


def _hashes(pictures: Float[np.ndarray, "n 16 16"]) -> Float[np.ndarray, "n bits"]:
    """Perceptual hashes (dHash): the signs of the grey gradients across and down, 0 where there is none."""
    gradients = [np.diff(pictures, axis=axis).reshape(len(pictures), -1) for axis in (1, 2)]
    return np.sign(np.concatenate(gradients, axis=1))


def _check_values(inspections: Sequence[Inspection], classes: ClassMap) -> Iterator[Finding]:
    """Masks of 0 and 255 where 255 means no class; labels that begin at 1 all over the set."""
    masks = [item for item in inspections if item.values and item.counts is not None]
    ignored = [item.values.get(classes.ignore_index, 0) / sum(item.values.values()) for item in masks]
    none = {0, classes.ignore_index}
    limit = 0 if all(set(item.values) <= none for item in masks) else 0.005 + 2 * float(np.median(ignored))
    two = [item for item, share in zip(masks, ignored, strict=True) if set(item.values) == none and share > limit]
    names = [item.pair.mask.name for item in two]
    if names:
        message = f"only 0 and {classes.ignore_index} (no class). A 0/255 mask needs 255 rewritten as 1."
        yield Finding("error", "labels", f"{listed(names)}: {message}", tuple(names))
    shifted = [item for item in inspections if len(classes) in item.values and 0 not in item.values]
    if len(shifted) > 1 and not any(0 in item.values for item in inspections):
        count = f"{len(shifted)} hold {len(classes)}"
        message = f"no mask holds 0 and {count}: the labels begin at 1. Subtract 1 everywhere."
        yield Finding("error", "labels", message, tuple(item.pair.mask.name for item in shifted))


def _check_splits(inspections: Sequence[Inspection], pixels: Mapping[str, Int[np.ndarray, " k"]]) -> Iterator[Finding]:
    """Splits without a label, where that of a test split may be kept secret; a training without validation."""
    if "train" in pixels and "val" not in pixels:
        message = "there is no split val: a training would have no score. Name images in val.txt; make blocks smaller."
        yield Finding("warning", "no val", message)
    for split, counts in pixels.items():
        read = [item.counts is not None for item in inspections if item.split == split]
        if split != "test" and read and all(read) and not counts.any():
            message = f"the split {split} has no labelled pixel: nothing can be learned or scored. Label its images."
            yield Finding("error", "no label", message)


def _check_frequencies(pixels: Mapping[str, Int[np.ndarray, " k"]], classes: ClassMap) -> Iterator[Finding]:
    """Classes that are absent, not learned, not scored, or rare."""
    if not any(counts.any() for counts in pixels.values()):
        return
    total = np.sum(list(pixels.values()), axis=0)
    for label, name in enumerate(classes.names):
        without = [split for split, counts in pixels.items() if counts.any() and not counts[label]]
        share, subject = total[label] / total.sum(), f"{name!r} ({label})"
        if not total[label]:
            yield Finding("warning", "absent class", f"nothing is labelled {subject}. Remove it from the classes.")
        elif "train" in without:
            message = f"{subject} is scored but never in train, so it cannot be learned. Make another split."
            yield Finding("error", "absent class", message)
        elif without:
            message = f"{subject} is not in {' and '.join(without)}: it has no score there. Make another split."
            yield Finding("warning", "absent class", message)
        elif share < RARE:
            message = f"{subject} has {100 * share:.3f} % of the labelled pixels. Use --balance or class weights."
            yield Finding("note", "rare class", message)
