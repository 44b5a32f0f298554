"""The equations of PPO as pure functions; those of rankings stand in rankings.py.

Per-token tensors share one layout: (B, T), aligned with the tokens, so `logprobs[b, t]` is the log-probability of
`tokens[b, t]` given what stands before it. `mask` is true at response tokens, which are contiguous in a row; whatever
stands outside the mask is ignored.
"""

import torch
from torch import Tensor


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Values scaled to variance 1 over the mask, and to mean 0 unless `shift_mean` is false; 0 outside the mask."""
    inside = values[mask]
    mean, variance = inside.mean(), inside.var(correction=0)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask


# KL ---------------------------------------------------------------------------------------------------------------


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Unbiased estimate of KL(pi || ref) from samples of pi; single tokens may be negative (Schulman, 2020)."""
    return logprobs - ref_logprobs


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Unbiased and never negative: (e^d - 1) - d with d = log ref - log pi (Schulman, 2020)."""
    d = ref_logprobs - logprobs
    return torch.expm1(d) - d


def adapted_kl_coef(kl_coef: float, kl: float, *, target: float, episodes: int, horizon: int) -> float:
    """The proportional controller of Ziegler et al. (1909.08593, section 2.2): towards `target` nats per response."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * episodes / horizon)


# PPO --------------------------------------------------------------------------------------------------------------


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """-kl_coef * kl at each response token, plus the score (B,) at the last one (InstructGPT, equation 2)."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, positions, -1).max(dim=1).values  # (B,)
    rewards = -kl_coef * kl * mask
    return rewards.index_put((torch.arange(len(scores), device=mask.device), last), scores, accumulate=True)


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (1506.02438, equation 16), each (B, T): nothing flows in from behind the end."""
    advantages = torch.zeros_like(values)
    advantage, next_value = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = (delta + gamma * gae_lambda * advantage) * mask[:, t]
        next_value = values[:, t] * mask[:, t]
        advantages[:, t] = advantage
    return advantages, (advantages + values) * mask


def policy_losses(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate (1707.06347, equation 7), negated, and the ratio, for each token alike."""
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages * ratio, -advantages * clipped), ratio


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """1/2 max of the squared error and of the error of a value held within `clip_range` of the old one."""
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
