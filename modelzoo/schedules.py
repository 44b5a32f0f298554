"""The learning rate of each step."""

import math


def cosine_rate(step: int, total: int, *, peak: float, warmup_ratio: float, final_ratio: float) -> float:
    """Rate of step `step` (from 0) of `total`: up in a line, then half a cosine down to `final_ratio` of the peak."""
    warmup = round(total * warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - 1 - warmup)
    return peak * (final_ratio + (1 - final_ratio) * (1 + math.cos(math.pi * done)) / 2)


def wsd_rate(
    step: int, total: int, *, peak: float, warmup_ratio: float, decay_ratio: float, final_ratio: float
) -> float:
    """Warm-up, stable, decay (MiniCPM, 2404.06395), falling as 1 - sqrt does (2405.18392, section 4.1).

    A run that is to be longer shares all of it with a shorter one but the last `decay_ratio` of the steps.
    """
    warmup, decay = round(total * warmup_ratio), max(1, round(total * decay_ratio))
    if step < warmup:
        return peak * (step + 1) / warmup
    fallen = max(0, step + 1 - (total - decay)) / decay
    return peak * (final_ratio + (1 - final_ratio) * (1 - math.sqrt(fallen)))
