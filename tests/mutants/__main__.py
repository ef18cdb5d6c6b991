"""Would the tests notice? Change the source in small ways, one at a time, and run the tests that must fail.

python -m tests.mutants                    every room; the score by room
python -m tests.mutants ops blocks         these rooms
python -m tests.mutants ops --only OHEM    the mutants whose name this regular expression finds, with pytest's output
python -m tests.mutants --slow             what survives the fast tests meets the slow ones too
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

from tests.mutants.lists import Mutant, read, rooms  # noqa: E402
from tests.mutants.trials import FAST, SLOW, Outcome, Trial, load_libraries, try_all  # noqa: E402


def main() -> int:
    """Print each outcome and the score; 1 if a mutant survives or nothing can be said of it."""
    options = _options()
    mutants = [mutant for room in options.rooms for mutant in read(room) if re.search(options.only, mutant.name)]
    stale = {mutant: fault for mutant in mutants if (fault := mutant.fault())}
    for mutant, fault in stale.items():
        print(f"not applicable  {mutant.room}/{mutant.name}: {fault}")
    fit = [mutant for mutant in mutants if mutant not in stale]
    load_libraries()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not options.unchecked and not _pass_unchanged(fit, folder / "unchanged", slow=options.slow):
            return 1
        fast = _outcomes(fit, FAST, folder / "fast", options)
        left = [mutant for mutant in fit if not fast[mutant].is_killed and not fast[mutant].is_broken]
        slow = _outcomes(left, SLOW, folder / "slow", options) if options.slow else {}
    _print_scores(options.rooms, fast, slow)
    return int(bool(stale) or not all(outcome.is_killed for outcome in (fast | slow).values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(rooms())}; all if none is named")
    parser.add_argument("--only", default="", metavar="PATTERN", help="mutants whose name it finds")
    parser.add_argument("--jobs", type=int, default=1, help="mutants tried at the same time")
    parser.add_argument("--slow", action="store_true", help="try the slow tests on what survives the fast ones")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests on the unchanged source first")
    options = parser.parse_args()
    if unknown := set(options.rooms) - set(rooms()):
        parser.error(f"no list for {', '.join(sorted(unknown))}; there are {', '.join(rooms())}")
    options.rooms = options.rooms or rooms()
    return options


def _pass_unchanged(mutants: Iterable[Mutant], folder: Path, *, slow: bool) -> bool:
    """Whether the tests pass on the source as it is: else nothing that they say of a mutant counts."""
    tests = tuple(sorted({test for mutant in mutants for test in mutant.tests}))
    marker = "not gpu" if slow else FAST
    for outcome in try_all([Trial(None, tests, marker)], folder):
        if outcome.code:
            print(f"{outcome.output}\nThe tests do not pass on the unchanged source.")
        else:
            print(f"The tests pass on the unchanged source ({outcome.seconds:.0f} s of CPU).", flush=True)
        return outcome.code == 0
    return False


def _outcomes(
    mutants: Sequence[Mutant], marker: str, folder: Path, options: argparse.Namespace
) -> dict[Mutant, Outcome]:
    trials, found = [Trial(mutant, mutant.tests, marker) for mutant in mutants], {}
    for outcome in try_all(trials, folder, jobs=options.jobs):
        assert outcome.mutant is not None
        found[outcome.mutant] = outcome
        verdict = "killed" if outcome.is_killed else "BROKEN" if outcome.is_broken else "SURVIVED"
        print(
            f"{verdict:9}{outcome.mutant.room}/{outcome.mutant.name}  {outcome.noticed_by} ({outcome.seconds:.1f} s)",
            flush=True,
        )
        if options.only or outcome.is_broken:
            print(outcome.output)
    return found


def _print_scores(names: Sequence[str], fast: dict[Mutant, Outcome], slow: dict[Mutant, Outcome]) -> None:
    """By room: mutants, killed by fast tests, killed by any, per cent of both."""
    print(f"\n{'room':16}{'mutants':>8}{'fast':>6}{'%':>7}" + (f"{'all':>6}{'%':>7}" if slow else ""))
    for room in [*names, *(["total"] if len(names) > 1 else [])]:
        ours = [mutant for mutant in fast if room in (mutant.room, "total")]
        if not ours:
            continue
        by_fast = sum(fast[mutant].is_killed for mutant in ours)
        by_any = by_fast + sum(mutant in slow and slow[mutant].is_killed for mutant in ours)
        line = f"{room:16}{len(ours):8}{by_fast:6}{100 * by_fast / len(ours):7.1f}"
        print(line + (f"{by_any:6}{100 * by_any / len(ours):7.1f}" if slow else ""))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # some of the libraries complain at an orderly end about what they leave behind
