"""The tables and curves of finished runs, as Markdown, from the records.

python -m experiments.bundled.table > experiments/bundled/README.md
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from experiments.records import Records, read
from regard.classes import ClassMap
from regard.evaluation.evaluate import Scores

HERE = Path(__file__).parent
HEAD = """# The two bundled models

`train.sh DATA OUT` trains them; `publish.py OUT/NAME NAME` writes them into the package as float16 with their cards;
`python -m experiments.records collect OUT experiments/bundled/records.csv.gz` keeps the records of the runs; and
`python -m experiments.bundled.table > experiments/bundled/README.md` writes this page from them.

Both are `danet_ocr` (reading R2, channel attention, three branches) of width 128 on EfficientNet-Lite0 with ImageNet
weights, on 2 CPU cores, float32, batches of 4. Scores are of the exponential moving average (EMA) of the weights on the
split val, whole images at their own size, one scale, no flip. The best of the evaluations shown is the model that is
shipped, so the split was also used to choose it; the data sets' own test parts were not used.
"""
RUNS = {
    "dubai-16": "Dubai, stride 16",
    "dubai-8": "Dubai, stride 8, from the run above",
    "dubai-s": "Dubai, stride 8, from the run above: this is `dubai-s`",
    "globe-320": "Land cover of the globe, first part",
    "globe-240": "Land cover of the globe, second part, stopped at step 240 of 480",
    "globe-s": "Land cover of the globe, third part, half of the windows by class: this is `globe-s`",
}


def page(records: Records, name: str, title: str) -> str:
    run, lines = records[f"{name}/run.json"][0], records[f"{name}/metrics.jsonl"]
    scored = [line for line in lines if "miou" in line]
    losses = [line["main"] for line in lines if "main" in line]
    best = max(scored, key=lambda line: (line["miou"], line["step"]))
    scores = Scores(ClassMap(**run["classes"]), np.array(best["confusion"], dtype=np.int64))
    part = max(1, len(losses) // 10)
    means = ", ".join(
        f"{np.mean(losses[start : start + part]):.2f}" for start in range(0, len(losses) - part + 1, part)
    )
    progress = ", ".join(f"{100 * line['miou']:.1f} at {line['step']}" for line in scored)
    took = f"{run['started']} to {run['finished']}" if run.get("finished") else f"started {run['started']}"
    return "\n".join(
        [
            f"## {title}",
            "",
            f"Settings: `{json.dumps({k: v for k, v in run['settings'].items()})}`",
            "",
            f"Machine: {run['machine']['cpus']} CPUs, torch {run['machine']['torch']}; {took}.",
            "",
            f"Cross entropy of the result, mean over tenths of the run: {means}.",
            "",
            f"Val mIoU: {progress}.",
            "",
            scores.table(),
            "",
        ]
    )


def readme() -> str:
    """This folder's README.md."""
    records = read(HERE / "records.csv.gz")
    return "\n".join([HEAD, *(page(records, name, title) for name, title in RUNS.items())]) + "\n"


def main() -> None:
    print(readme(), end="")


if __name__ == "__main__":
    main()
