"""Proof 1: PPO reaches the optimum, where the optimum is known in closed form.

16 tokens, at most 4 of them a response: every response can be listed. With a KL penalty the best policy is
pi* = pi_ref e^(r / beta) / Z, worth J* = beta log E_ref[e^(r / beta)]. Policy and reward model are transformers with
random weights, so the reward is an arbitrary function of the whole response; the trainer is the real one. Claimed:

- the trained policy has at least 95% of what can be gained, (J - J_ref) / (J* - J_ref), for each seed;
- the KL and the reward that the trainer logged are those of the enumeration, up to the error of its samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tokenizers
import torch
from torch import Tensor, nn

from benchmarks.proofs.claims import Claim, table
from benchmarks.proofs.enumerated import Exact, is_cut, log_probabilities, optimum, scores
from benchmarks.proofs.stage import Models, train_ppo_watched, write_snapshot
from modelzoo.batches import seeded
from modelzoo.checkpoint import load_policy, save_checkpoint
from modelzoo.config import ModelConfig
from modelzoo.tokenizer import HuggingFaceTokenizer, SpecialTokens
from modelzoo.transformer import RewardModel, Transformer

Model = TypeVar("Model", bound=nn.Module)

WORDS = ["<pad>", "<end>", *"abcdefghijklmn"]
LENGTH = 4
PROMPTS = ["a", "b c", "d e f", "g h"]  # unequal lengths, so that rollouts are padded
KL_COEF, MISSING_EOS_PENALTY = 0.5, 0.5
REQUIRED = 0.95
SPREAD = {"policy": 0.1, "reward": 0.07}  # of the random weights; an initialisation for training has 0.02
EVERY = 5  # steps between two enumerations
PPO = {
    "learning_rate": 1e-3,
    "value_learning_rate": 3e-3,
    "value_coef": 1.0,
    "warmup_steps": 5,
    "episodes": 512 * 400,
    "batch_size": 512,
    "minibatch_size": 256,
    "micro_batch_size": 256,
    "max_length": 8,
    "max_new_tokens": LENGTH,
    "kl_coef": KL_COEF,
    "missing_eos_penalty": MISSING_EOS_PENALTY,
    "ema_decay": 0.99,
    "checkpoint_every": 1_000_000,
}


@dataclass(frozen=True)
class Outcome:
    """One seed. `kl_error`, `reward_error`: the mean over steps of logged less enumerated, with its standard error."""

    seed: int
    responses: int
    reference: float  # J of the reference, which is its mean reward
    best: float  # J*
    best_kl: float
    trained: Exact
    kl_error: tuple[float, float]
    reward_error: tuple[float, float]
    within: float  # share of steps whose logged KL is within 1.96 standard errors
    steps: list[dict[str, Any]]

    @property
    def gained(self) -> float:
        return (self.trained.objective - self.reference) / (self.best - self.reference)


class Task:
    """Prompts, the reference and the reward of every response to each of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.tokenizer = word_tokenizer()
        self.end_id = self.tokenizer.eos_id
        self.prompts = [self.tokenizer.encode_chat([{"role": "user", "content": text}]) for text in PROMPTS]
        reference = uneven(Transformer(shape()), seed, "policy")
        self.reference = [log_probabilities(reference, prompt, LENGTH, self.end_id) for prompt in self.prompts]
        reward = uneven(RewardModel(shape()), seed, "reward")
        self.rewards = self.standardised(reward)
        save_checkpoint(folder / "policy", reference, self.tokenizer, kind="sft", languages=["en"])
        save_checkpoint(folder / "reward", reward, self.tokenizer, kind="reward", languages=["en"])
        rows = [
            {"id": text, "split": "train", "language": "en", "messages": [{"role": "user", "content": text}]}
            for text in PROMPTS
        ]
        write_snapshot(folder / "snapshot", prompts=rows)

    def standardised(self, reward: RewardModel) -> list[Tensor]:
        """Scale and shift the head so that scores of the reference have mean 0 and deviation 1; returns the rewards."""
        found = [scores(reward, prompt, LENGTH, self.end_id) for prompt in self.prompts]
        weights = [reference.exp() / len(self.prompts) for reference in self.reference]
        mean = sum(float(w @ r) for w, r in zip(weights, found, strict=True))
        deviation = math.sqrt(sum(float(w @ (r - mean) ** 2) for w, r in zip(weights, found, strict=True)))
        reward.score.weight.data /= deviation
        reward.score_offset = mean / deviation
        cut = MISSING_EOS_PENALTY * is_cut(len(WORDS), LENGTH)
        return [(values - mean) / deviation - cut for values in found]

    def exact(self, policy: nn.Module) -> Exact:
        """Expectations under a policy, the mean over the prompts."""
        assert isinstance(policy, Transformer)
        found = [
            Exact.of(log_probabilities(policy, prompt, LENGTH, self.end_id), reference, rewards, KL_COEF)
            for prompt, reference, rewards in zip(self.prompts, self.reference, self.rewards, strict=True)
        ]
        return Exact(*(sum(values) / len(found) for values in zip(*found, strict=True)))


def word_tokenizer(words: Sequence[str] = WORDS) -> HuggingFaceTokenizer:
    """A token for each word; the first two pad and end. Words that are none of them are left out."""
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<pad>", "<end>"])
    template = (
        "{% for message in messages %}{{ message['content'] + ' ' }}"
        "{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    )
    return HuggingFaceTokenizer(made.to_str(), SpecialTokens(eos="<end>", pad="<pad>"), template)


def shape() -> ModelConfig:
    return ModelConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=8,
    )


def uneven(model: Model, seed: int, what: str) -> Model:
    """Random weights large enough that every token of a response matters to what is said of it."""
    generator = seeded(seed, what)
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data = SPREAD[what] * torch.randn(weight.shape, generator=generator)
    return model


def prove(seed: int, folder: Path) -> Outcome:
    """Train one policy and measure it, and each of its predecessors, by enumeration."""
    torch.set_num_threads(1)
    task = Task(folder, seed)
    best = [optimum(ref, r, KL_COEF) for ref, r in zip(task.reference, task.rewards, strict=True)]
    divergences = [float(b.exp() @ (b - ref)) for (b, _), ref in zip(best, task.reference, strict=True)]

    def watch(step: int, models: Models) -> dict[str, float]:
        if step % EVERY:
            return {}
        exact = task.exact(models["policy"])
        return {f"exact_{name}": value for name, value in exact._asdict().items()}

    inputs = {"snapshot": folder / "snapshot", "policy": folder / "policy", "reward_model": folder / "reward"}
    steps = train_ppo_watched(folder / "ppo", PPO | {"seed": seed}, watch, **inputs)
    trained = task.exact(load_policy(folder / "ppo" / "model")[0])
    return Outcome(
        seed=seed,
        responses=len(task.reference[0]),
        reference=task.exact(load_policy(folder / "policy")[0]).objective,
        best=sum(value for _, value in best) / len(best),
        best_kl=sum(divergences) / len(best),
        trained=trained,
        steps=steps,
        **compared(steps),
    )


def compared(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Logged figures of each rollout beside exact ones of the policy that spoke in it, the one of the step before."""
    found: dict[str, Any] = {}
    inside = 0
    pairs = [(before, after) for before, after in zip(steps, steps[1:], strict=False) if "exact_kl" in before]
    for name in ("kl", "reward"):
        errors = [after[name] - before[f"exact_{name}"] for before, after in pairs]
        variances = [before[f"exact_{name}_variance"] / PPO["batch_size"] for before, _ in pairs]
        if name == "kl":
            inside = sum(abs(e) <= 1.96 * math.sqrt(v) for e, v in zip(errors, variances, strict=True))
        found[f"{name}_error"] = (sum(errors) / len(errors), math.sqrt(sum(variances)) / len(errors))
    return found | {"within": inside / len(pairs)}


def table_of(outcomes: Sequence[Outcome]) -> str:
    heads = ["seed", "J ref", "J", "J*", "gained", "KL", "KL*", "KL: logged - exact", "reward", "KL within 1.96 se"]
    rows = [
        [
            str(o.seed),
            f"{o.reference:.3f}",
            f"{o.trained.objective:.3f}",
            f"{o.best:.3f}",
            f"{o.gained:.1%}",
            f"{o.trained.kl:.2f}",
            f"{o.best_kl:.2f}",
            "{:+.4f} ± {:.4f}".format(*o.kl_error),
            "{:+.4f} ± {:.4f}".format(*o.reward_error),
            f"{o.within:.1%}",
        ]
        for o in outcomes
    ]
    return table(heads, rows)


def claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    least = min(o.gained for o in outcomes)
    kl, reward = (
        max(abs(mean / spread) for mean, spread in errors)
        for errors in ([o.kl_error for o in outcomes], [o.reward_error for o in outcomes])
    )
    within = sum(o.within for o in outcomes) / len(outcomes)
    return [
        Claim(f"every seed has at least {REQUIRED:.0%} of what can be gained (least: {least:.1%})", least >= REQUIRED),
        Claim(f"the logged KL has no bias (at most {kl:.1f} standard errors)", kl < 3),
        Claim(f"the logged reward has no bias (at most {reward:.1f} standard errors)", reward < 3),
        Claim(f"95% of logged KLs are within 1.96 standard errors ({within:.1%})", 0.92 <= within <= 0.98),
    ]
