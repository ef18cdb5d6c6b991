"""Private words: phrases that a reader of this field does not know, each with the word to use.

python tests/house/words.py            every place where one of them is left, with the right word
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
READ = (
    *("src/**/*.py", "src/**/*.js", "src/**/*.html", "src/**/*.css"),
    *("docs/**/*.md", "experiments/**/*.md", "README.md", "CONTRIBUTING.md"),
    *("examples/*.py", "benchmarks/*.py"),
)
NO_WORDS = re.compile(r"bundled/")

# phrase (a regular expression; ~ stands for white space) -> the word to use. (?i) where case does not matter.
WORDS = {
    r"(?i)\blooked~at\b": "not tiled; inspected; shown",
    r"(?i)\b(several|all|many|the|of|number~of)~looks\b": "views; forward passes",
    r"(?i)ask~about~the~cent": "inspect pixel",
    r"(?i)\blisten(s|ed|ing)?~to\b": "attends to; attention weights",
    r"(?i)(?<!make )(?<!be )(?<!not )(?<![\"'.`])\bsure(ly|st)?\b(?!:)": "confidence; confident",
    r"(?i)\b(un)?settled?\b": "finalised",
    r"(?i)\b_?paint(s|ed|er|ing)?\b(?!\()": "upsample; draw",
    r"\bPatches\b|\bpatches~of\b": "polygons; connected components",
    r"(?i)\bhang~together\b": "4-connected",
    r"(?i)\bspecks?\b": "sieved",
    r"(?i)\bno~news\b": "no-op callback",
    r"(?i)\b(is|are|be|was|not|has~been)~told\b|\btold\b *[=.)]": "progress callback; says; message",
    r"\bTold\b|\bStopping\b|\bOnwards\b": "SignalReceived; GracefulStop; ResumableSampler",
    r"(?i)\baskew\b|_check_upright": "rotated geotransform",
    r"(?i)\banew\b": "re-initialised; again",
    r"(?i)\b(goes|going|go)~on\b": "resumes; continues",
    r"\b(its|some|what|one)~=~|\bfor~(its|some|what|one)~in\b": "pair; sample; chunk",
    r"(?<!\")--overhead\b|\boverhead *[:=]": "rot90",
    r"\bPowers\b|\baveraging *[:=]|--averaging\b|\bAveraging\b|\"exp\"": "TTA fusion",
    r"\.marks\b|\bdef~marks\b|\bmarks *[:=]": "provenance tags",
    r"(?i)\breceipts?\b": "results",
    r"(?i)\bstamps\b": "fingerprints",
    r"(?i)\bpixels~right\b": "pixel accuracy",
    r"(?i)\bthe~model~called\b": "predicted",
    r"(?i)\bmistakes?\b": "errors",
    r"(?i)\brunning~average\b|\baveraged~weights\b": "exponential moving average (EMA)",
    r"(?i)\bclass~shares?\b|\bshares?~of~(the~)?(pixels|classes)\b": "class frequency",
    r"(?i)\b(vector|drawn)~labels\b": "polygon labels",
    r"(?i)\bone(_|~)heap\b|\bheap~in~pieces\b": "malloc arena; fragmentation",
    r"(?i)\bin~turn\b|\bby~turns\b": "interleaved",
    r"(?i)\bdearer\b|\bdearest\b": "more expensive",
    r"(?i)\bcheaper~order\b": "fewer FLOPs",
    r"(?i)\bstrangers?\b": "(leave out)",
    r"\bHow\(|\bHow\b *[,|)=]|:~How\b(?! \w)|\bAS_TRAINED\b": "Compute; Compute()",
    r"\bthree_branch\b(?=\.py)|(?<!danet_)(?<!\")\bthree_branch\b": "danet_three_branch",
    r"(?i)\bwish(es|ed)?\b": "settings; optional",
    r"(?i)\bsay~`?--|\bis~there~already\b": "use `--...`; already exists",
    r"(?i)\bscores~would~lie\b": "scores would be inflated",
    r"(?i)\bamiss\b|\bexamination~of\b": "no problems found; data set check of",
    r"(?i)\bcarried~over\b": "reprojected",
    r"(?i)(?<!there )\bis~no~(folder|file|image|raster|photograph|model|number|scene|map|class)\b": "is not a",
    r"(?i)\bhas~all~of~it\b": "Progress saved. Run this to resume:",
    r"(?i)\bbetter~turned\b|\blook~at~both\b": "may be rotated; please check",
    r"(?i)\bleave~gsd~out\b": "omit `--gsd`",
    r"(?i)\bindecision\b": "uncertainty (entropy)",
    r"(?i)\bimages~from~above\b": "aerial images",
    r"(?i)\beven~share\b": "uniform attention",
    r"(?i)\bwhere~you~look\b": "on-the-fly inference",
    r"(?i)\bother~than~labelled\b": "misclassified",
    r"(?i)\bredrawn\b": "bootstrap resamples",
    r"(?i)\bin~unlisted\b": "in no split",
    r"(?i)\bhung~up~on\b": "disconnected",
    r"(?i)\bat~hand\b": "available",
    r"(?i)\bleave~out~what~is~then~below\b": "drop smaller polygons",
    r"(?i)\bbeside\b": "next to; besides",
}
FILES = {  # names of modules
    **{
        "ask": "pixel_query",
        "drawn": "polygon_labels",
        "formula": "attention_formula",
        "health": "audit",
        "how": "compute",
    },
    **{"infer": "views", "joined": "(torch.cat)", "known": "public", "land": "class_map", "live": "live_prediction"},
    **{"many": "batch", "paint": "upsample", "part": "region", "place": "source", "strips": "window_reader"},
}
PHRASES = {re.compile(phrase.replace("~", r"(?:[ \t]|\n[ \t]*#?[ \t]*)")): word for phrase, word in WORDS.items()}


class Use(NamedTuple):
    """One place where a phrase is left."""

    place: str
    phrase: str
    word: str


def uses() -> Iterator[Use]:
    """Every use in the sources and the pages."""
    for pattern in READ:
        for path in sorted(ROOT.glob(pattern)):
            file = path.relative_to(ROOT).as_posix()
            if path.suffix == ".py" and path.stem in FILES:
                yield Use(f"{file}:0", path.name, FILES[path.stem])
            if not NO_WORDS.search(file):
                yield from uses_in(file, path.read_text())


def uses_in(file: str, text: str) -> Iterator[Use]:
    """Every use in a text."""
    for phrase, word in PHRASES.items():
        for match in phrase.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Use(f"{file}:{line}", " ".join(match[0].split()), word)


def main() -> None:
    """Print them, by file."""
    found = sorted(uses())
    for use in found:
        print(f"{use.place:48} {use.phrase!r:32} -> {use.word}")
    print(f"{len(found)} left")


if __name__ == "__main__":
    main()
