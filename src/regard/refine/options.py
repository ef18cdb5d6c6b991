"""The options of a refinement, each declared once. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from regard.errors import ConfigError

Choice = Literal["auto", "linear", "context", "kernel"]
Inputs = Literal["deep", "bands", "both"]
DEEP = ("linear", "context")  # heads that look at the deep features, if nothing else is said


@dataclass(frozen=True)
class RefineOptions:
    """What is learned from the labels, and how.

    Args:
        column: The column of the labels that gives the class, by its name or its value in the model's maps.
        add_class: Classes that the model does not have: greenhouse, or shed=building for one that begins as a copy of
            another. A class is split by adding its parts.
        classes: In place of that all classes of the result. Those that the model does not have begin from nothing, and
            those that are not listed are dropped.
        head: What is fitted:

            - ``linear``: the linear classifier behind the network;
            - ``context``: the same on features that are augmented with the object regions of the corrected classes;
            - ``kernel``: a kernel machine on the bands of each pixel and the means around it;
            - ``auto``: the first or the last, whichever is better on blocks of ground that were held out.
        inputs: What it looks at: the network's deep features, the bands at full resolution, or both. By default deep
            features for linear and context, else bands.
        squares: Sides in pixels of the squares around a pixel whose mean values the head gets besides its own.
        keep: How much the model's present answers weigh where nothing was labelled; 0: not at all.
        seed: Another seed takes other pixels of large polygons and other folds.
        cache: A folder that keeps the deep features for the next refinement on the scene; by default a temporary one.
        budget: Megabytes of disk for them.

    Raises:
        ConfigError: an impossible value.
    """

    column: str = "class"
    add_class: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    head: Choice = "auto"
    inputs: Inputs | None = None
    squares: tuple[int, ...] = (3, 5)
    keep: float = 1.0
    seed: int = 0
    cache: Path | None = None
    budget: float = 4000.0

    def __post_init__(self) -> None:
        for name, kinds in (("head", get_args(Choice)), ("inputs", (None, *get_args(Inputs)))):
            if getattr(self, name) not in kinds:
                known = ", ".join(map(str, filter(None, kinds)))
                raise ConfigError(f"got {name} {getattr(self, name)!r}; need one of {known}.")
        if self.add_class and self.classes:
            raise ConfigError("got add_class and classes; classes are all that there will be. Omit one of the two.")
        if self.head == "context" and self.inputs == "bands":
            raise ConfigError("the head context looks at deep features; got inputs bands. Take kernel for bands.")
        if any(side < 3 or side % 2 == 0 or side > 99 for side in self.squares):
            raise ConfigError(f"got squares {list(self.squares)}; need odd sides from 3 to 99.")
        if not (0 <= self.keep < 1e6 and self.budget > 0 and self.seed >= 0):
            got = f"keep {self.keep:g}, budget {self.budget:g}, seed {self.seed}"
            raise ConfigError(f"got {got}; need 0 or above, for the budget above 0.")

    @property
    def looks_at(self) -> Inputs:
        """What a head looks at."""
        return self.inputs or ("deep" if self.head in DEEP else "bands")
