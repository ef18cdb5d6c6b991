"""The check of a data set as text and as one HTML file that needs nothing else."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from regard.datasets.folder import NO_SPLIT, Finding
from regard.doctor.audit import GRADES, Audit
from regard.errors import counted
from regard.files import write_text
from regard.reports.gallery import Picture, labelled
from regard.reports.page import PAGES

PER_KIND = 8  # findings of one kind that are printed
MOST_SHOWN = 24  # pairs that have pictures on the page
PICTURED = ("leak", "doubtful labels", "highest loss", "blank", "no label", "size", "labels")


def as_text(audit: Audit) -> str:
    """Lines for a terminal: counts, class frequency, then every kind of finding."""
    images = ", ".join(f"{count} {_named(split)}" for split, count in audit.images.items()) or "no images"
    counts = ", ".join(counted(audit.count(grade), grade) for grade in GRADES if audit.count(grade))
    lines = [f"{audit.root}: {images}: {counts or 'no problems found'}"]
    for split, pixels in audit.pixels.items():
        names = audit.classes.names if audit.classes else ()
        shares = zip(names, 100 * pixels / max(1, pixels.sum()), strict=True)
        lines.append(f"{split}: " + ", ".join(f"{name} {share:.1f} %" for name, share in shares))
    for grade, kind, findings in _by_kind(audit):
        lines += [f"{grade} ({kind}): {finding.message}" for finding in findings[:PER_KIND]]
        left = len(findings) - PER_KIND
        lines += [f"{grade} ({kind}): and {left} more; --json lists them all."] if left > 0 else []
    return "\n".join(lines)


def write_page(audit: Audit, path: str | Path) -> Path:
    """Write the page about a data set check.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    images = [f"{counted(count, 'image')} in {_named(split)}" for split, count in audit.images.items()]
    html = PAGES.get_template("audit.html.j2").render(
        audit=audit,
        images=", ".join(images) or "No images",
        groups=_by_kind(audit),
        grades=GRADES,
        pictures=_pictures(audit),
    )
    return write_text(Path(path), html)


def _named(split: str) -> str:
    return "no split" if split == NO_SPLIT else split


def _by_kind(audit: Audit) -> list[tuple[str, str, list[Finding]]]:
    grouped = groupby(audit.findings, key=lambda finding: (finding.grade, finding.kind))
    return [(grade, kind, list(findings)) for (grade, kind), findings in grouped]


def _pictures(audit: Audit) -> dict[str, list[Picture]]:
    """Image and mask of the files that findings name, by the file's name."""
    pairs = {name: pair for pair in audit.pairs for name in (pair.mask.name, pair.image.name, pair.name)}
    named = [name for finding in audit.findings if finding.kind in PICTURED for name in finding.files[:2]]
    shown = [name for name in dict.fromkeys(named) if name in pairs][:MOST_SHOWN]
    return {name: labelled(pairs[name], audit.classes) for name in shown}
