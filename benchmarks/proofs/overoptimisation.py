"""Proof 3: a policy that is pressed against a reward model of few rankings gets better, then worse (2210.10760).

The proxy is a reward model trained on rankings by the simulated labelers of proof 2; the gold score is the hidden one
by which they judge. Best-of-n and PPO move a policy away from where it began; d = sqrt(KL) says how far. Claimed:

- PPO without a KL penalty: the proxy rises to the end while gold falls from its peak;
- with a KL penalty the policy ends nearer and its gold score higher;
- best of 128 by a proxy of more rankings has more gold.

What more rankings do to PPO without a penalty is shown, not claimed: it soon leaves where any proxy has seen answers.

Gao et al. fit R = d (alpha - beta d) for best-of-n and d (alpha - beta log d) for RL; so do we, on the gain in gold.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.proofs.claims import Claim, said, table
from benchmarks.proofs.stage import Models, train_ppo_watched, write_snapshot
from benchmarks.proofs.toy import asked, collect_rankings, hidden_score, sampled, split_questions, train_reward_model
from modelzoo.batches import Example, collate, micro_batches
from modelzoo.checkpoint import load_policy, load_reward_model
from modelzoo.logprobs import response_logprobs
from modelzoo.sampler import Sample, Sampler
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel, Transformer
from worker.loop.outcome import Interval
from worker.loop.scale import FULL

FEW, MANY = 32, 512
KL_COEFS = (0.0, 0.2)
BEST_OF = (1, 2, 4, 8, 16, 32, 64, 128)
QUESTIONS, POOL = 16, 256  # held-out questions, and answers to each that best-of-n chooses from
EVERY = 3  # PPO steps between two measurements
PPO: dict[str, Any] = FULL.ppo | {
    "episodes": 64 * 48,
    "learning_rate": 2e-3,
    "ema_decay": 0.0,
    "missing_eos_penalty": 1.0,
}


@dataclass(frozen=True)
class Point:
    """A policy, or best-of-n, at some distance from the policy it came from. Scores are gains over that one."""

    kl: float
    proxy: float  # in units of gold: the proxy's log-odds times the labelers' noise
    gold: float
    gold_again: float  # on other answers: where a maximum was chosen by `gold`, this is what it is worth

    @property
    def distance(self) -> float:
        return math.sqrt(max(self.kl, 0.0))


@dataclass(frozen=True)
class Arm:
    """One way to press against one proxy: PPO with a KL weight, or best-of-n where there is none."""

    rankings: int
    kl_coef: float | None
    points: list[Point]

    @property
    def name(self) -> str:
        return "best of n" if self.kl_coef is None else f"PPO, β = {self.kl_coef:g}"

    @property
    def peak(self) -> Point:
        """Where gold was best. One half of the answers chooses it; the other says what it was worth, unflattered."""
        return max(self.points, key=lambda point: point.gold)

    @property
    def end(self) -> Point:
        return self.points[-1]

    @property
    def lost(self) -> float:
        """Gold at its peak less gold in the end."""
        return self.peak.gold_again - self.end.gold_again


@dataclass(frozen=True)
class Outcome:
    seed: int
    arms: list[Arm]

    def arm(self, rankings: int, kl_coef: float | None) -> Arm:
        return next(arm for arm in self.arms if (arm.rankings, arm.kl_coef) == (rankings, kl_coef))


class Judge:
    """Held-out questions, a proxy, and the policy that all distances are from."""

    def __init__(self, policy: Path, proxy: Path, noise: float, questions: Sequence[str]) -> None:
        self.reference, self.tokenizer, _ = load_policy(policy)
        self.proxy, _, _ = load_reward_model(proxy)
        self.noise, self.questions = noise, list(questions)

    def proxy_scores(self, samples: list[list[Sample]]) -> Tensor:
        """(questions, K), in units of gold."""
        examples = _examples(self.tokenizer, self.questions, samples)
        return self.noise * _scored(self.proxy, examples, self.tokenizer.pad_id).view(len(samples), -1)

    def gold_scores(self, samples: list[list[Sample]]) -> Tensor:
        """(questions, K)."""
        asked_of = zip(self.questions, samples, strict=True)
        return torch.tensor([[hidden_score(question, sample.text) for sample in row] for question, row in asked_of])

    def measured(self, policy: nn.Module, seed: int, k: int = 8) -> Point:
        """Scores and KL of fresh answers, not yet less those of the reference."""
        assert isinstance(policy, Transformer)
        speaker = Sampler(copy.deepcopy(policy), self.tokenizer)  # a copy, as a sampler freezes what it is given
        samples = sampled(speaker, self.questions, k, seed)
        examples = _examples(self.tokenizer, self.questions, samples)
        now, before = (_logprobs(model, examples, self.tokenizer.pad_id) for model in (policy, self.reference))
        halves = self.gold_scores(samples).view(-1, 2).mean(0).tolist()
        return Point((now - before).mean().item(), self.proxy_scores(samples).mean().item(), *halves)


def _examples(tokenizer: Tokenizer, questions: list[str], samples: list[list[Sample]]) -> list[Example]:
    prompts = [tokenizer.encode_chat(asked(question)) for question in questions]
    return [Example(prompt, sample.token_ids) for prompt, row in zip(prompts, samples, strict=True) for sample in row]


@torch.no_grad()
def _scored(proxy: RewardModel, examples: list[Example], pad_id: int) -> Tensor:
    scores = torch.empty(len(examples))
    for rows in micro_batches(list(range(len(examples))), 256, lambda row: len(examples[row].tokens)):
        batch = collate([examples[row] for row in rows], pad_id)
        scores[rows] = proxy(batch.tokens, batch.mask)
    return scores


@torch.no_grad()
def _logprobs(policy: Transformer, examples: list[Example], pad_id: int) -> Tensor:
    found = torch.empty(len(examples))
    for rows in micro_batches(list(range(len(examples))), 256, lambda row: len(examples[row].tokens)):
        found[rows] = response_logprobs(policy, collate([examples[row] for row in rows], pad_id)).sum(1)
    return found


# Best of n --------------------------------------------------------------------------------------------------------


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n: nats between best-of-n and the policy it chooses from (2009.01325, appendix G.3)."""
    return math.log(n) - (n - 1) / n


def best_of_n(proxy: Tensor, value: Tensor, n: int) -> float:
    """Expected `value` of the best by `proxy` of n of N answers drawn without putting back, both (questions, N).

    The i-th worst of N is the best of n with probability C(i - 1, n - 1) / C(N, n): every subset counts, none is drawn.
    """
    count = proxy.shape[1]
    below = torch.arange(count, dtype=torch.float64)  # how many are worse
    log_ways = torch.lgamma(below + 1) - torch.lgamma(below - n + 2) - math.lgamma(n)
    log_all = math.lgamma(count + 1) - math.lgamma(n + 1) - math.lgamma(count - n + 1)
    weights = torch.where(below >= n - 1, (log_ways - log_all).exp(), 0.0)
    return float((value.double().gather(1, proxy.argsort(1)) * weights).sum(1).mean())


def best_of_n_curve(proxy: Tensor, value: Tensor) -> list[Point]:
    start = proxy.mean().item(), value.mean().item()
    points = []
    for n in BEST_OF:
        gained = best_of_n(proxy, value, n) - start[1]
        points.append(Point(best_of_n_kl(n), best_of_n(proxy, proxy, n) - start[0], gained, gained))
    return points


# PPO --------------------------------------------------------------------------------------------------------------


def ppo_curve(judge: Judge, out: Path, kl_coef: float, seed: int, **inputs: Path) -> list[Point]:
    """Train against the proxy; the policy as it was at the start, and after every few steps."""
    points = [judge.measured(judge.reference, seed)]

    def watch(step: int, models: Models) -> dict[str, float]:
        if step % EVERY == 0:
            points.append(judge.measured(models["policy"], seed + step))
        return {}

    train_ppo_watched(out, PPO | {"kl_coef": kl_coef, "seed": seed}, watch, **inputs)
    start = points[0]
    first_gold = (start.gold + start.gold_again) / 2
    return [Point(p.kl, p.proxy - start.proxy, p.gold - first_gold, p.gold_again - first_gold) for p in points]


def prove(
    seed: int,
    folder: Path,
    policy: Path,
    sizes: Sequence[int] = (FEW, MANY),
    kl_coefs: Sequence[float] = KL_COEFS,
) -> Outcome:
    """All arms of one seed. The proxy of many rankings is pressed without a penalty only."""
    torch.set_num_threads(1)
    rankings = collect_rankings(policy, seed, train=max(sizes), heldout=32)
    questions, heldout_questions = split_questions(seed)
    pool = sampled(Sampler.load(policy), heldout_questions[:QUESTIONS], POOL, seed)
    prompts = [{"id": q, "split": "train", "language": "en", "messages": asked(q)} for q in questions]
    arms: list[Arm] = []
    for size in sizes:
        rows = rankings.train[:size] + rankings.heldout
        snapshot = write_snapshot(folder / f"snapshot-{size}", rankings=rows, prompts=prompts)
        proxy = folder / f"reward-{size}" / "model"
        train_reward_model(proxy.parent, policy, snapshot, size, seed)
        judge = Judge(policy, proxy, rankings.noise, heldout_questions[:QUESTIONS])
        arms.append(Arm(size, None, best_of_n_curve(judge.proxy_scores(pool), judge.gold_scores(pool))))
        inputs = {"snapshot": snapshot, "policy": policy, "reward_model": proxy}
        for kl_coef in kl_coefs if size == min(sizes) else [min(kl_coefs)]:
            out = folder / f"ppo-{size}-{kl_coef:g}"
            arms.append(Arm(size, kl_coef, ppo_curve(judge, out, kl_coef, seed, **inputs)))
    return Outcome(seed, arms)


# Fits -------------------------------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """R = d (alpha - beta d) for best-of-n, d (alpha - beta log d) for RL."""

    alpha: float
    beta: float
    explained: float  # R squared

    @classmethod
    def of(cls, arms: Sequence[Arm]) -> "Fit":
        """Least squares on the gain in gold of all seeds; points at distance 0 say nothing."""
        points = [point for arm in arms for point in arm.points if point.distance > 0]
        d = torch.tensor([point.distance for point in points], dtype=torch.float64)
        gain = torch.tensor([(point.gold + point.gold_again) / 2 for point in points], dtype=torch.float64)
        features = torch.stack([d, -d * (d if arms[0].kl_coef is None else d.log())], dim=1)
        solution: Tensor = torch.linalg.lstsq(features, gain).solution
        missed = (gain - features @ solution).square().sum() / (gain - gain.mean()).square().sum()
        return cls(solution[0].item(), solution[1].item(), 1 - missed.item())


# The verdict ------------------------------------------------------------------------------------------------------


def table_of(outcomes: Sequence[Outcome]) -> str:
    """A line for each arm of each seed and, below them, one for each arm with its fit over all seeds."""
    heads = ["seed", "rankings", "against the proxy", "end: √KL", "proxy", "gold", "peak: √KL", "gold", "lost", "fit"]
    rows = []
    for number, arm in enumerate(outcomes[0].arms):
        same = [outcome.arms[number] for outcome in outcomes]
        figures = [
            (a.end.distance, a.end.proxy, a.end.gold_again, a.peak.distance, a.peak.gold_again, a.lost) for a in same
        ]
        means = [sum(column) / len(same) for column in zip(*figures, strict=True)]
        fit = Fit.of(same)
        fitted = f"α {fit.alpha:.2f}, β {fit.beta:.2f}, R² {fit.explained:.2f}"
        for seed, values, end in [
            *((str(o.seed), values, "") for o, values in zip(outcomes, figures, strict=True)),
            ("mean", means, fitted),
        ]:
            rows.append([seed, str(arm.rankings), arm.name, *(f"{value:+.2f}" for value in values), end])
    return table(heads, rows)


def claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    free, held = ([o.arm(FEW, kl_coef) for o in outcomes] for kl_coef in (min(KL_COEFS), max(KL_COEFS)))
    risen = Interval.of([arm.end.proxy - arm.peak.proxy for arm in free])
    fallen = Interval.of([arm.lost for arm in free])
    saved = Interval.of([h.end.gold_again - f.end.gold_again for h, f in zip(held, free, strict=True)])
    better = Interval.of([o.arm(MANY, None).end.gold - o.arm(FEW, None).end.gold for o in outcomes])
    nearer = all(h.end.kl < f.end.kl for h, f in zip(held, free, strict=True))
    return [
        Claim(f"PPO without penalty: beyond gold's peak the proxy rises, {said(risen)}", risen.low > 0),
        Claim(f"while gold falls, {said(fallen)}", fallen.low > 0),
        Claim(f"a KL penalty of {max(KL_COEFS):g} ends nearer, in every seed", nearer),
        Claim(f"and with more gold, {said(saved)}", saved.low > 0),
        Claim(f"best of {max(BEST_OF)} has more gold by {MANY} rankings than by {FEW}, {said(better)}", better.low > 0),
    ]
