"""Make the fixture of test_survey.py: 100 random samples, and their accuracies by R's package survey.

    python tests/parity/make_survey.py Rscript

needs R with the packages survey and jsonlite (Debian: r-base-core, r-cran-survey, r-cran-jsonlite).
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
FIXTURE = HERE / "data" / "survey.json.gz"


def design(rng: np.random.Generator, uneven: bool) -> dict[str, Any]:
    """A labelled sample of 1 to 5 strata and 2 to 4 classes; ``uneven``: each pixel has its own ground."""
    strata, classes = int(rng.integers(1, 6)), int(rng.integers(2, 5))
    counts = rng.integers(2, 12, strata)
    stratum = rng.permutation(np.repeat(np.arange(strata), counts))
    points = len(stratum)
    mapped, other = rng.integers(0, classes, (2, points))
    pixels = counts + rng.integers(1, 50, strata)
    size = rng.uniform(0.5, 2, points).round(3) if uneven else np.ones(points)
    area = (rng.uniform(0.8, 1.2, strata) * pixels).round(3) if uneven else pixels.astype(float)
    columns = {"stratum": stratum, "mapped": mapped, "reference": np.where(rng.random(points) < 0.5, mapped, other)}
    columns |= {"size": size, "pixels": pixels, "area": area, "within": (rng.random(points) < 0.5).astype(int)}
    return {"classes": classes, **{name: values.tolist() for name, values in columns.items()}}


def main(*command: str) -> None:
    rng = np.random.default_rng(20)
    designs = [design(rng, uneven=number % 2 == 1) for number in range(100)]
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "designs.json"), Path(folder, "results.json")
        given.write_text(json.dumps(designs))
        subprocess.run([*command, str(HERE / "survey.R"), str(given), str(found)], check=True)
        text = json.dumps({"designs": designs, **json.loads(found.read_text())})
    FIXTURE.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
