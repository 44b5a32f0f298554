"""Every response there is: exact expectations of a policy over a vocabulary and a length small enough to list.

A response ends with the end token or is cut at `length` tokens. Over V tokens that makes (V - 1)^t responses that end
at token t + 1 and (V - 1)^length that are cut: 54,241 for V = 16 and length 4. The order is the same everywhere: ended
ones by their length, cut ones last; within a length as numbers in base V - 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from modelzoo.transformer import RewardModel, Transformer

ROWS = 8192  # sequences that go through a model at once


def words(vocab_size: int, end_id: int, length: int) -> Tensor:
    """Every sequence (N, length) of tokens that do not end a response, as numbers in base `vocab_size` - 1."""
    others = torch.tensor([token for token in range(vocab_size) if token != end_id])
    return torch.cartesian_prod(*[others] * length).view(-1, length) if length else torch.empty(1, 0, dtype=torch.long)


@torch.no_grad()
def log_probabilities(policy: Transformer, prompt: list[int], length: int, end_id: int) -> Tensor:
    """log pi(response | prompt) of every response, (N,), float64: down the tree of prefixes, by the chain rule."""
    others = [token for token in range(policy.config.vocab_size) if token != end_id]
    so_far = torch.zeros(1, dtype=torch.float64)  # of each prefix without an end
    found = []
    for t in range(length):
        prefixes = words(policy.config.vocab_size, end_id, t)
        following = torch.cat([_following(policy, prompt, part) for part in prefixes.split(ROWS)])  # (prefixes, V)
        found.append(so_far + following[:, end_id])
        so_far = (so_far[:, None] + following[:, others]).flatten()
    return torch.cat([*found, so_far])


def _following(policy: Transformer, prompt: list[int], prefixes: Tensor) -> Tensor:
    tokens = torch.cat([torch.tensor(prompt).expand(len(prefixes), -1), prefixes], dim=1)
    logits: Tensor = policy(tokens)[:, -1]
    return logits.double().log_softmax(-1)


@torch.no_grad()
def scores(reward_model: RewardModel, prompt: list[int], length: int, end_id: int) -> Tensor:
    """The score of every response, (N,), float64."""
    found = []
    for t in range(length):
        ended = words(reward_model.config.vocab_size, end_id, t)
        found.append(_scored(reward_model, prompt, torch.cat([ended, torch.full((len(ended), 1), end_id)], dim=1)))
    cut = words(reward_model.config.vocab_size, end_id, length)
    return torch.cat([*found, _scored(reward_model, prompt, cut)])


def is_cut(vocab_size: int, length: int) -> Tensor:
    """Which responses do not end, (N,)."""
    counts = torch.tensor([(vocab_size - 1) ** t for t in range(length + 1)])
    return (torch.arange(length + 1) == length).repeat_interleave(counts)


def _scored(reward_model: RewardModel, prompt: list[int], responses: Tensor) -> Tensor:
    tokens = torch.cat([torch.tensor(prompt).expand(len(responses), -1), responses], dim=1)
    return torch.cat([reward_model(part, torch.ones_like(part).bool()) for part in tokens.split(ROWS)]).double()


class Exact(NamedTuple):
    """Expectations over all responses to one prompt."""

    reward: float
    reward_variance: float
    kl: float
    kl_variance: float  # of log pi - log ref, the k1 estimate, over single responses of pi
    objective: float  # J = E[r] - beta KL

    @classmethod
    def of(cls, logprobs: Tensor, ref_logprobs: Tensor, rewards: Tensor, kl_coef: float) -> "Exact":
        probabilities, ratio = logprobs.exp(), logprobs - ref_logprobs
        reward, kl = float(probabilities @ rewards), float(probabilities @ ratio)
        variances = [float(probabilities @ (values - mean) ** 2) for values, mean in ((rewards, reward), (ratio, kl))]
        return cls(reward, variances[0], kl, variances[1], reward - kl_coef * kl)


def optimum(ref_logprobs: Tensor, rewards: Tensor, kl_coef: float) -> tuple[Tensor, float]:
    """log pi* = log ref + r / beta - log Z, and J* = beta log Z (e.g. 2305.18290, equation 4)."""
    tilted = ref_logprobs + rewards / kl_coef
    log_partition = tilted.logsumexp(0)
    return tilted - log_partition, float(kl_coef * log_partition)
