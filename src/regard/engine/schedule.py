"""Learning rates as functions of the step."""

from __future__ import annotations


def poly(step: int, *, steps: int, warmup: int = 0, power: float = 0.9) -> float:
    """The factor ``(1 - step/steps)^power``, after a linear rise over ``warmup`` steps. Source: DeepLab, section 4."""
    rise = min(1.0, (step + 1) / (warmup + 1))
    return rise * max(0.0, 1 - step / steps) ** power
