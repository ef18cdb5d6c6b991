"""Measure parity and write it down: ``python -m tests.parity.measure > docs/parity.md``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks import complexity
from regard.checkpoints.create import catalogue
from regard.checkpoints.file import load
from regard.checkpoints.foreign.convert import convert
from tests.parity import fixtures

HEAD = """# Parity

The networks give the logits of the authors' programs, up to rounding. Measure it again (float32, one CPU thread):

```
python -m tests.parity.measure > docs/parity.md
```

How a fixture is compared:

1. It holds a state dict with random batch norms and open attention gates, an image of odd size, and the outputs of the
   authors' program.
2. The state is saved as that program saves it, then read by `regard.convert` and `regard.load`.
3. Every output, the auxiliary ones too, is compared at the image's size.

The tolerance is ten times the rounding of the authors' program itself (float32 against float64); where that was not
measured, 1e-4 of the largest logit. `make test` fails if a difference exceeds its tolerance.
"""
PARTS = """
## Further tests

- Training: losses, total gradient norm and stored gradients of the four narrow mmseg networks, in training mode
  (`tests/parity/test_fixtures.py`).
- The authors' attention modules with gradients, DANet's head, and OCR's gather, relation and fusion alone
  (`tests/parity/test_parts.py`).
- openseg (with batch norm and with InPlaceABN) and NVIDIA (plain, both pyramids, two and three scales): against their
  forward written out in plain functions in float64, within 2e-6 of the largest logit (`tests/parity/test_formulas.py`).
- Every key and shape of 15 published listings, one to one (`tests/parity/test_keys.py`).
"""
COSTS = """
## Cost

19 classes, one image of 512 x 1024; 10^9 multiplications of convolutions and matrix products, in inference
(without auxiliary outputs). `tests/parity/test_costs.py` compares the table with the networks.
"""
COMPLEXITY = """
## Complexity of the heads

`python -m benchmarks complexity`: input 1 x 2048 x 128 x 128 as in the OCR paper, whose figures are on the right.
Memory is the peak of all live tensors in a forward pass. The paper stores the n x n attention matrix; our
position attention computes it block by block.
"""


def parity() -> list[str]:
    """The table of all available fixtures: the worst case of each output."""
    lines = [
        "| fixture | made by | output | largest difference | tolerance | share of tolerance |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in (*fixtures.FULL, *fixtures.SSSEG, *fixtures.NARROW):
        if fixtures.available(name) is None:
            lines.append(f"| {name} | | not in this clone | | | |")
            continue
        fixture = fixtures.load(name)
        with tempfile.TemporaryDirectory() as folder:
            path = fixtures.save(fixture, Path(folder))
            model = load(convert(path, Path(folder) / "ours.safetensors").path)
        rows = [row for case in fixture.cases for row in fixtures.compare(model, fixture, case)]
        for output in dict.fromkeys(row.output for row in rows):
            worst = max((row for row in rows if row.output == output), key=lambda row: row.difference / row.tolerance)
            share = f"{worst.difference / worst.tolerance:.1%}"
            source = fixture.meta["source"].split(" (")[0].split(" encoding")[0].split(" lib")[0]
            lines.append(f"| {name} | {source} | {output} | {worst.difference:.1e} | {worst.tolerance:.1e} | {share} |")
    return lines


def costs() -> list[str]:
    lines = ["| network | parameters (M) | GMAC | stride | converts from |", "| --- | --- | --- | --- | --- |"]
    return lines + [
        f"| {row.name} | {row.parameters:.3f} | {row.gmac:.2f} | {row.stride} | {', '.join(row.converts) or '-'} |"
        for row in catalogue()
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    text = [HEAD, *parity(), PARTS, COSTS, *costs(), COMPLEXITY, complexity.table()]
    print("\n".join(text))
