"""Learning rates as functions of the step."""

from __future__ import annotations


def poly(step: int, *, steps: int, warmup: int = 0, power: float = 0.9, lowest: float = 0.0) -> float:
    """The factor ``(1 - step/steps)^power``, after a linear rise over ``warmup`` steps; it falls to ``lowest``.

    Source: DeepLab, section 4; ``lowest`` as mmengine's PolyLR has it: ``(1 - lowest) × poly + lowest``.
    """
    rise = min(1.0, (step + 1) / (warmup + 1))
    return rise * ((1 - lowest) * max(0.0, 1 - step / steps) ** power + lowest)
