"""How the rate's strength, or the target it is held to, goes over a run's steps."""

from __future__ import annotations


def ramp(step: int, steps: int, share: float) -> float:
    """The strength at a step (from 0), 0 to 1: rising over the first `share` of the steps, then 1."""
    rising = share * steps
    return 1.0 if rising < 1 else min(1.0, (step + 1) / rising)


def ramp_sum(steps: int, share: float) -> float:
    """The sum of `ramp` over all steps."""
    return sum(ramp(step, steps, share) for step in range(steps))


def approach(step: int, steps: int, start: float, target: float) -> float:
    """Where a target is to be after a step (from 0): fast at first, and there at the end.

    The cubic of gradual magnitude pruning (Zhu and Gupta 2017, equation 1).
    """
    left = 1 - (step + 1) / steps
    return target + (start - target) * left**3
