"""What one seed of the loop found out, and what all seeds say together."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


class LoopError(Exception):
    """A part of the loop did not succeed; the text is what that part itself says."""


@dataclass(frozen=True)
class Labels:
    """The rankings of one seed."""

    rankings: int
    noise: float
    agreement: float
    """How often two labelers order a pair alike that neither ties."""
    tied: float
    """The share of pairs that a labeler tied."""
    ceiling: float
    """Accuracy of the hidden score itself on held-out pairs: what noise leaves to be known."""
    heldout_pairs: int


@dataclass(frozen=True)
class Measured:
    """A policy's fresh answers to held-out prompts."""

    gold: float
    """Mean hidden score."""
    length: float
    """Mean number of tokens."""
    answers: dict[str, str]
    """One of them for each prompt."""


@dataclass(frozen=True)
class Arm:
    """What came of one snapshot of rankings."""

    reward_accuracy: float
    """Of the reward model on held-out pairs, whatever the rankings it was trained on."""
    after: Measured
    kl: float
    """Nats per response from the policy that PPO began with, in the last rollout."""
    rewards: list[float]
    """Mean of each rollout, by the arm's own reward model."""
    policy: str


@dataclass(frozen=True)
class Outcome:
    seed: int
    labels: Labels
    before: Measured
    main: Arm
    control: Arm
    seconds: float

    @property
    def gain(self) -> float:
        return self.main.after.gold - self.before.gold

    @property
    def control_gain(self) -> float:
        return self.control.after.gold - self.before.gold

    @property
    def effect(self) -> float:
        """What the rankings were worth: the gain beyond that with shuffled ones."""
        return self.gain - self.control_gain


# Student's t at 97.5%, for 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook, 1.3.6.7.2).
T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95% t-interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """Raises ValueError for fewer than two values: one alone says nothing of its spread."""
        if len(values) < 2:
            raise ValueError("an interval needs at least two values")
        t = T[min(len(values) - 1, len(T)) - 1]
        mean, half = statistics.mean(values), t * statistics.stdev(values) / math.sqrt(len(values))
        return cls(mean, mean - half, mean + half)
