"""The protocol: which run is next, from the runs that are finished. No run of ``choose`` sees an image of val.

1. ``rung 1``: every design and the baselines, few steps, seed 0, two data sets, trained on a part of train and scored
   on the rest of it;
2. ``rung 2``: the better four designs with twice the steps; two of them are left;
3. ``rates``: these two and the baselines at the other learning rates; each arm takes its best;
4. ``full``: all of train, scored on val, three data sets; then serial and R1 on one data set, and two more seeds of
   the parents and of the better design.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from experiments.fusion.arms import BASELINES, DESIGNS, PARENTS, RATES

ON_VAL = ("full", "short")  # stages that train on all of train and are scored on val


@dataclass(frozen=True)
class Run:
    """One training; ``stage`` says on which part of the data."""

    stage: str
    arm: str
    data: str
    seed: int
    rate: float
    steps: int

    @property
    def name(self) -> str:
        return f"{self.stage.replace(' ', '-')}/{self.data}/{self.arm}-{self.rate:g}-{self.seed}"


@dataclass(frozen=True)
class Size:
    """How long the runs are, and what they run on."""

    choosing_steps: int = 300
    full_steps: int = 1500
    choosing_data: tuple[str, ...] = ("dubai", "camvid")
    full_data: tuple[str, ...] = ("dubai", "camvid", "buildings")
    seeds: tuple[int, ...] = (0, 1, 2)
    more_seeds: tuple[int, ...] = (3, 4)


Results = Mapping[Run, float]  # mIoU of the last step


def schedule(results: Results, size: Size = Size()) -> Iterator[Run]:
    """Every run in order. Each is in ``results`` by the time that the next one is asked for."""
    first = [*BASELINES, *DESIGNS, "ocrnet-scale"]
    yield from (rung := rungs("rung 1", size, first, RATES[:1], size.choosing_steps))
    four = best(results, rung, list(DESIGNS), 4)
    yield from (rung := rungs("rung 2", size, four, RATES[:1], 2 * size.choosing_steps))
    two = best(results, rung, four, 2)
    yield from rungs("rates", size, [*BASELINES, *two], RATES[1:], size.choosing_steps)
    finalists = {arm: best_rate(results, arm, size) for arm in [*BASELINES, *two]}
    yield from full(finalists, size.full_data, size.seeds, size)
    extra = {"serial": finalists["danet"], "r1": finalists["r2"]}
    yield from full(extra, size.full_data[:1], size.seeds, size)
    winner = max(two, key=lambda arm: mean(x for run, x in results.items() if is_final(run, arm, size)))
    last = {arm: finalists[arm] for arm in (*PARENTS, winner)}
    yield from full(last, size.full_data, size.more_seeds, size)


def short(data: str, design: str, steps: int) -> list[Run]:
    """The key comparison in short form: one seed, one data set."""
    return [Run("short", arm, data, 0, RATES[0], steps) for arm in (*BASELINES, design)]


def next_run(results: Results, size: Size = Size()) -> Run | None:
    """The first run of the schedule that is not finished; None after the last."""
    return next((run for run in schedule(results, size) if run not in results), None)


def rungs(stage: str, size: Size, arms: Sequence[str], rates: Sequence[float], steps: int) -> list[Run]:
    """Data set after data set, so that an early stop leaves whole comparisons."""
    return [Run(stage, arm, data, 0, rate, steps) for rate in rates for data in size.choosing_data for arm in arms]


def full(rates: Mapping[str, float], data: Sequence[str], seeds: Sequence[int], size: Size) -> Iterator[Run]:
    """Seed after seed, likewise."""
    for seed in seeds:
        for name in data:
            yield from (Run("full", arm, name, seed, rate, size.full_steps) for arm, rate in rates.items())


def best(results: Results, rung: Sequence[Run], arms: Sequence[str], count: int) -> list[str]:
    """The arms with the highest mean over the rung's data sets, best first."""
    scores = {arm: mean(results[run] for run in rung if run.arm == arm) for arm in arms}
    return sorted(arms, key=lambda arm: -scores[arm])[:count]


def is_final(run: Run, arm: str, size: Size) -> bool:
    """Whether a run is of the seeds that every finalist has."""
    return (run.stage, run.arm) == ("full", arm) and run.seed in size.seeds


def best_rate(results: Results, arm: str, size: Size) -> float:
    """The rate with the highest mean over the data sets, all at the steps of the first rung."""
    stages, steps = ("rung 1", "rates"), size.choosing_steps
    found = {
        rate: [
            miou
            for run, miou in results.items()
            if (run.arm, run.rate, run.steps) == (arm, rate, steps) and run.stage in stages
        ]
        for rate in RATES
    }
    return max(found, key=lambda rate: mean(found[rate]))
