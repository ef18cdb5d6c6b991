"""What an examination of a data folder found, as text and as one HTML file that needs nothing else."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from regard._version import __version__
from regard.doctor.audit import GRADES, Examination
from regard.doctor.inventory import Finding
from regard.files import check_writable, write_text
from regard.reports.gallery import Picture, labelled
from regard.reports.page import PAGES

PER_KIND = 8  # findings of one kind that are printed
MOST_SHOWN = 24  # pairs that have pictures on the page
PICTURED = ("leak", "misplaced mask", "doubtful labels", "highest loss", "blank", "no label", "size", "labels")


def as_text(examined: Examination) -> str:
    """Lines for a terminal: counts, class shares, then every kind of finding."""
    images = ", ".join(f"{count} {split}" for split, count in examined.images.items()) or "no images"
    counts = ", ".join(f"{examined.count(grade)} {grade}s" for grade in GRADES)
    lines = [f"{examined.root}: {images}: {counts}"]
    for split, pixels in examined.pixels.items():
        names = examined.classes.names if examined.classes else ()
        shares = zip(names, 100 * pixels / max(1, pixels.sum()), strict=True)
        lines.append(f"{split}: " + ", ".join(f"{name} {share:.1f} %" for name, share in shares))
    for grade, kind, findings in _by_kind(examined):
        lines += [f"{grade} ({kind}): {finding.message}" for finding in findings[:PER_KIND]]
        left = len(findings) - PER_KIND
        lines += [f"{grade} ({kind}): and {left} more; --json lists them all."] if left > 0 else []
    return "\n".join([*lines, *([] if examined.findings else ["nothing was found amiss."])])


def write_page(examined: Examination, path: str | Path) -> Path:
    """Write the page about an examination.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    target = Path(path)
    check_writable(target)
    html = PAGES.get_template("health.html.j2").render(
        examined=examined,
        groups=_by_kind(examined),
        grades=GRADES,
        pictures=_pictures(examined),
        version=__version__,
    )
    return write_text(target, html)


def _by_kind(examined: Examination) -> list[tuple[str, str, list[Finding]]]:
    grouped = groupby(examined.findings, key=lambda finding: (finding.grade, finding.kind))
    return [(grade, kind, list(findings)) for (grade, kind), findings in grouped]


def _pictures(examined: Examination) -> dict[str, list[Picture]]:
    """Image and mask of the files that findings name, by the file's name."""
    pairs = {name: pair for pair in examined.pairs for name in (pair.mask.name, pair.image.name, pair.name)}
    named = [name for finding in examined.findings if finding.kind in PICTURED for name in finding.files[:2]]
    shown = [name for name in dict.fromkeys(named) if name in pairs][:MOST_SHOWN]
    return {name: labelled(pairs[name], examined.classes) for name in shown}
