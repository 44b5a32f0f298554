"""Rollouts: what the policy said, what it was worth, and what PPO compares itself to."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from modelzoo.batches import Batch, Example, collate, micro_batches, seeded
from modelzoo.config import PPOConfig, SamplingConfig
from modelzoo.logprobs import response_logprobs, response_logprobs_and_entropy, response_values
from modelzoo.losses import advantages_and_returns, kl_k1, token_rewards, whiten
from modelzoo.sampler import generate
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel, Transformer


class Rollout(NamedTuple):
    """B responses; tensors (B, T) are aligned with the tokens and 0 outside the response."""

    batch: Batch  # tokens, mask, response, each (B, T)
    finished: Tensor  # (B,) bool: the policy ended its turn
    scores: Tensor  # (B,) the reward model's, less the penalty for not ending
    logprobs: Tensor  # (B, T) of the policy that spoke
    ref_logprobs: Tensor  # (B, T)
    entropy: Tensor  # (B, T) nats
    values: Tensor  # (B, T) expected before each token
    advantages: Tensor  # (B, T) whitened
    returns: Tensor  # (B, T)

    @property
    def kl(self) -> Tensor:
        """(B, T): each token's share of the KL to the reference."""
        return kl_k1(self.logprobs, self.ref_logprobs)

    def select(self, rows: Sequence[int]) -> "Rollout":
        """Some rows, without columns that are padding in all of them."""
        index = torch.tensor(rows, device=self.finished.device)
        batch = Batch(*(tensor[index] for tensor in self.batch)).trimmed()
        length = batch.tokens.shape[1]
        rest = (tensor[index, :length] if tensor.dim() == 2 else tensor[index] for tensor in self[1:])
        return Rollout(batch, *rest)


class Models(NamedTuple):
    """The four models of PPO and the tokenizer they share. Reference and reward model never change."""

    policy: Transformer
    reference: Transformer
    reward: RewardModel
    value: RewardModel
    tokenizer: Tokenizer


def sample(
    models: Models, prompts: list[list[int]], config: PPOConfig, step: int, should_stop: Callable[[], bool]
) -> tuple[list[Example], list[bool]]:
    """One response to each prompt, and whether it ended. A function of the weights, the seed and the step.

    Whichever stop token ended a response, it is recorded as it was drawn: PPO's log-probabilities are of what was said.
    """
    tokenizer = models.tokenizer
    responses = generate(
        models.policy,
        prompts,
        1,
        SamplingConfig(temperature=config.temperature, max_new_tokens=config.max_new_tokens),
        tokenizer.stop_ids,
        tokenizer.pad_id,
        [seeded(config.seed, "rollout", step, row) for row in range(len(prompts))],
        should_stop=should_stop,
    )
    examples = [Example(prompt, rows[0].token_ids) for prompt, rows in zip(prompts, responses, strict=True)]
    return examples, [rows[0].finish_reason == "stop" for rows in responses]


def collect(
    models: Models,
    examples: list[Example],
    finished: list[bool],
    config: PPOConfig,
    kl_coef: float,
    pause: Callable[[], None] = lambda: None,
) -> Rollout:
    """Score responses and weigh their tokens (InstructGPT, equation 2; 1506.02438). No gradients; `pause` may raise."""
    device = next(models.policy.parameters()).device
    batch = collate(examples, models.tokenizer.pad_id, device)
    temperature = config.temperature
    ended = torch.tensor(finished, device=device)
    columns = {
        name: torch.zeros(batch.tokens.shape, device=device) for name in ("policy", "reference", "entropy", "value")
    }
    scores = torch.zeros(len(examples), device=device)
    with torch.no_grad():
        for minibatch in minibatches(list(range(len(examples))), config.minibatch_size):
            for rows in rows_alike(batch, minibatch, config.micro_batch_size):  # as `update` will cut them
                pause()
                part = Batch(*(tensor[rows] for tensor in batch)).trimmed()
                width = slice(part.tokens.shape[1])
                logprobs, entropy = response_logprobs_and_entropy(models.policy, part, temperature=temperature)
                columns["policy"][rows, width], columns["entropy"][rows, width] = logprobs, entropy
                columns["reference"][rows, width] = response_logprobs(models.reference, part, temperature=temperature)
                columns["value"][rows, width] = response_values(models.value, part)
                scores[rows] = models.reward(_as_ranked(part, ended[rows], models.tokenizer), part.mask)
    scores = scores - config.missing_eos_penalty * ~ended
    rewards = token_rewards(scores, kl_k1(columns["policy"], columns["reference"]), batch.response, kl_coef)
    if config.whiten_rewards:
        rewards = whiten(rewards, batch.response, shift_mean=False)
    advantages, returns = advantages_and_returns(
        rewards, columns["value"], batch.response, gamma=config.gamma, gae_lambda=config.gae_lambda
    )
    advantages = whiten(advantages, batch.response)  # over the whole rollout, not a minibatch of it
    return Rollout(
        batch,
        ended,
        scores,
        columns["policy"],
        columns["reference"],
        columns["entropy"],
        columns["value"],
        advantages,
        returns,
    )


def _as_ranked(batch: Batch, ended: Tensor, tokenizer: Tokenizer) -> Tensor:
    """The tokens (B, T) as the reward model learned them: one and the same token ends a response."""
    last = batch.mask.sum(dim=1, keepdim=True) - 1
    return batch.tokens.scatter(
        1, last, torch.where(ended[:, None], tokenizer.end_of_turn_id, batch.tokens.gather(1, last))
    )


def minibatches(rows: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def rows_alike(batch: Batch, rows: list[int], size: int) -> Iterator[list[int]]:
    """The rows in groups that go through a model at once, alike in length."""
    lengths = batch.mask.sum(dim=1).tolist()
    return micro_batches(rows, size, lambda row: lengths[row])
