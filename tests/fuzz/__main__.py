"""Give regard odd and hostile files, and say what it does with them.

    python -m tests.fuzz [FORMAT ...] --count 10000 --seed 0 [--save TABLE.md]
    python -m tests.fuzz FORMAT --only NUMBER       one input again, with what became of it

Good files of each format are damaged at random, by their structure and as bytes, and read as a user reads them: each is
accepted, or refused in one line by an error of ``regard.errors``. A violation is anything else: another exception, more
than 10 s of CPU or 2 GiB of memory, a crash, code run, a file changed outside the target's folder. Its files are kept
in ``runs/fuzz``, with the command that repeats it; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from tests.fuzz.formats import FORMATS
from tests.fuzz.worker import Task, Verdict, verdicts

HEAD = ("format", "inputs", "accepted", "refused in words", "violations", "seconds")
KEPT = Path("runs/fuzz")


def main() -> int:
    """Run the command line; 1 if there are violations."""
    options = _options()
    torch.set_num_threads(1)
    rows, violations = [HEAD, ("---",) * len(HEAD)], 0
    for name in options.formats:
        form, began, counts, known = FORMATS[name], time.perf_counter(), Counter[str](), set[str]()
        task = Task(name, form, form.seeds(), options.seed)
        first, stop = (0, options.count) if options.only is None else (options.only, options.only + 1)
        for verdict in verdicts(task, range(first, stop)):
            counts["violation" if verdict.is_violation else verdict.kind] += 1
            if verdict.is_violation:
                keep(task, verdict, quiet=verdict.place in known)
                known.add(verdict.place)
            elif options.only is not None:
                print(f"{verdict.kind}: {verdict.reason}")
        seconds, found = time.perf_counter() - began, counts["violation"]
        violations += found
        rows.append(tuple(map(str, (name, stop - first, counts["accepted"], counts["refused"], found, round(seconds)))))
        print("| " + " | ".join(rows[-1]) + " |", flush=True)
    if options.save is not None:
        options.save.write_text("".join("| " + " | ".join(row) + " |\n" for row in rows))
    return int(violations > 0)


def keep(task: Task, verdict: Verdict, *, quiet: bool) -> None:
    """Write the files of a violation, and print what it was and how to repeat it."""
    folder = KEPT / f"{task.name.replace(' ', '-')}-{task.seed}-{verdict.number}"
    for name, content in task.files(verdict.number).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if not quiet:
        print(f"{verdict.kind} {folder}: {verdict.reason}")
        print(f"    python -m tests.fuzz '{task.name}' --seed {task.seed} --only {verdict.number}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--count", type=int, default=10_000, help="inputs of each format")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    parser.add_argument("--only", type=int, help="this input alone")
    parser.add_argument("--save", type=Path, help="a Markdown table of the result")
    options = parser.parse_args()
    options.formats = options.formats or [*FORMATS]
    unknown = [name for name in options.formats if name not in FORMATS]
    if unknown:
        parser.error(f"no format {unknown[0]!r}; known: {', '.join(FORMATS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
