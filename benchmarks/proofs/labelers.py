"""Proof 2: a reward model learns from noisy rankings nearly all that there is to know.

Simulated labelers rank 4 to 9 answers with as much noise as makes two of them agree on 72.6% of the pairs, as
InstructGPT's did. A reward model learns from the rankings of some and is judged on other prompts by other labelers. The
ceiling is the accuracy of the hidden score itself on the same pairs. Claimed:

- with the most rankings the reward model is within 2 points of the ceiling;
- trained on shuffled rankings it is within 3 points of chance, on average over seeds.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.proofs.claims import Claim, table
from benchmarks.proofs.stage import write_snapshot
from benchmarks.proofs.toy import collect_rankings, shuffled, train_reward_model
from worker.loop.labelers import AGREEMENT
from worker.loop.outcome import Interval

SIZES = (64, 256, 1024, 4096)
SHUFFLED, CONTROLS = 1024, 3  # rankings of a control, and controls of a seed: what noise teaches varies widely
HELDOUT = 256
WITHIN = 0.02
CHANCE, NEAR = 0.5, 0.03


@dataclass(frozen=True)
class Outcome:
    """One seed; accuracies are on the same held-out pairs."""

    seed: int
    agreement: float
    ceiling: float
    pairs: int
    accuracy: dict[int, float]  # by how many rankings there were to learn from
    shuffled: float  # mean of the controls

    @property
    def gap(self) -> float:
        """How far the reward model with most rankings stays below the ceiling."""
        return self.ceiling - self.accuracy[max(self.accuracy)]


def prove(seed: int, folder: Path, policy: Path, sizes: tuple[int, ...] = SIZES, heldout: int = HELDOUT) -> Outcome:
    torch.set_num_threads(1)
    rankings = collect_rankings(policy, seed, train=max(sizes), heldout=heldout)
    accuracy = {}
    for size in sizes:
        snapshot = write_snapshot(folder / f"snapshot-{size}", rankings=rankings.train[:size] + rankings.heldout)
        metrics = train_reward_model(folder / f"reward-{size}", policy, snapshot, size, seed)
        accuracy[size] = metrics["heldout_accuracy"]
    by_chance = []
    for number in range(CONTROLS):
        control = shuffled(rankings.train[:SHUFFLED], f"{seed}/{number}")
        snapshot = write_snapshot(folder / f"snapshot-shuffled-{number}", rankings=control + rankings.heldout)
        out = folder / f"reward-shuffled-{number}"
        metrics = train_reward_model(out, policy, snapshot, len(control), 1000 * number + seed)
        by_chance.append(metrics["heldout_accuracy"])
    ceiling, pairs = rankings.ceiling
    return Outcome(seed, rankings.agreement, ceiling, pairs, accuracy, statistics.mean(by_chance))


def table_of(outcomes: Sequence[Outcome]) -> str:
    sizes = sorted(outcomes[0].accuracy)
    heads = ["seed", "agreement", "pairs", *(f"{size} rankings" for size in sizes), "ceiling", "gap", "shuffled"]
    rows = [
        [
            str(o.seed),
            f"{o.agreement:.1%}",
            str(o.pairs),
            *(f"{o.accuracy[size]:.1%}" for size in sizes),
            f"{o.ceiling:.1%}",
            f"{o.gap:.1%}",
            f"{o.shuffled:.1%}",
        ]
        for o in outcomes
    ]
    return table(heads, rows)


def claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    agreement = statistics.mean(o.agreement for o in outcomes)
    gap = statistics.mean(o.gap for o in outcomes)
    control = Interval.of([o.shuffled for o in outcomes])
    sizes = sorted(outcomes[0].accuracy)
    curve = [statistics.mean(o.accuracy[size] for o in outcomes) for size in sizes]
    return [
        Claim(
            f"two labelers agree on {AGREEMENT:.1%} of the pairs to 1.5 points ({agreement:.1%})",
            abs(agreement - AGREEMENT) < 0.015,
        ),
        Claim(
            f"with {max(sizes)} rankings it is within {WITHIN:.0%} of the ceiling (mean gap {gap:.1%})", gap <= WITHIN
        ),
        Claim(f"more rankings make it better ({', '.join(f'{a:.1%}' for a in curve)})", curve == sorted(curve)),
        Claim(
            f"with shuffled rankings it is at chance to {NEAR:.0%} "
            f"({control.mean:.1%}, 95% interval {control.low:.1%} to {control.high:.1%})",
            abs(control.mean - CHANCE) <= NEAR,
        ),
    ]
