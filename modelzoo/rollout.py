"""Rollouts: what the policy said, what it was worth, and what PPO compares itself to."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from modelzoo.batches import Batch, Example, collate, micro_batches
from modelzoo.config import PPOConfig
from modelzoo.logprobs import response_logprobs, response_logprobs_and_entropy, response_values
from modelzoo.losses import advantages_and_returns, kl_k1, token_rewards, whiten
from modelzoo.progress import ALONE, Team
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


class Kept(NamedTuple):
    """The forward of the first minibatch with its graph: what the first update would compute again, bit for bit."""

    logprobs: Tensor  # (b, t) as `Rollout.select` cuts it
    values: Tensor  # (b, t)


class Vocabulary(Protocol):
    """What PPO knows of a tokenizer."""

    pad_id: int
    end_of_turn_id: int
    stop_ids: tuple[int, ...]  # whatever ends a response, the end of turn among them

    def decode(self, ids: Sequence[int]) -> str: ...


class Models(NamedTuple):
    """The four models of PPO and the tokenizer they share. Reference and reward model never change."""

    policy: Transformer
    reference: Transformer
    reward: RewardModel
    value: RewardModel
    tokenizer: Vocabulary
    team: Team = ALONE

    @property
    def device(self) -> torch.device:
        return next(self.policy.parameters()).device


def collect(
    models: Models,
    examples: list[Example],
    finished: list[bool],
    config: PPOConfig,
    kl_coef: float,
    pause: Callable[[], None] = lambda: None,
) -> tuple[Rollout, Kept | None]:
    """Score responses and weigh their tokens (InstructGPT, equation 2; 1506.02438). `pause` may raise.

    Nothing has gradients but, where a minibatch goes through the models as a whole, what is kept for the first update.
    """
    batch = collate(examples, models.tokenizer.pad_id, models.device)
    ended = torch.tensor(finished, device=models.device)
    logprobs, ref_logprobs, entropy, values = torch.zeros(4, *batch.tokens.shape, device=models.device)
    scores = torch.zeros(len(examples), device=models.device)
    kept: Kept | None = None
    for place, minibatch in enumerate(minibatches(list(range(len(examples))), config.minibatch_size)):
        keep = place == 0 and len(minibatch) <= config.micro_batch_size
        for rows in rows_alike(models.team, batch, minibatch, config.micro_batch_size):  # as the update will cut them
            pause()
            part = Batch(*(tensor[rows] for tensor in batch)).trimmed()
            with torch.set_grad_enabled(keep):
                said = response_logprobs_and_entropy(models.policy, part, temperature=config.temperature)
                expected = response_values(models.value, part)
            kept = Kept(said[0], expected) if keep else kept
            with torch.no_grad():
                width = slice(part.tokens.shape[1])
                logprobs[rows, width], entropy[rows, width], values[rows, width] = *said, expected
                ref_logprobs[rows, width] = response_logprobs(models.reference, part, temperature=config.temperature)
                scores[rows] = models.reward(_as_ranked(part, ended[rows], models.tokenizer), part.mask)
    for filled in (logprobs, ref_logprobs, entropy, values, scores):  # each process its own rows, zeros elsewhere
        models.team.sum_tensor(filled)
    scores = scores - config.missing_eos_penalty * ~ended
    rewards = token_rewards(scores, kl_k1(logprobs, ref_logprobs), batch.response, kl_coef)
    if config.whiten_rewards:
        rewards = whiten(rewards, batch.response, shift_mean=False)
    advantages, returns = advantages_and_returns(
        rewards, values, batch.response, gamma=config.gamma, gae_lambda=config.gae_lambda
    )
    advantages = whiten(advantages, batch.response)  # over the whole rollout, not a minibatch of it
    return Rollout(batch, ended, scores, logprobs, ref_logprobs, entropy, values, advantages, returns), kept


def _as_ranked(batch: Batch, ended: Tensor, tokenizer: Vocabulary) -> Tensor:
    """The tokens (B, T) as the reward model learned them: one and the same token ends a response."""
    last = batch.mask.sum(dim=1, keepdim=True) - 1
    return batch.tokens.scatter(
        1, last, torch.where(ended[:, None], tokenizer.end_of_turn_id, batch.tokens.gather(1, last))
    )


def minibatches(rows: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def rows_alike(team: Team, batch: Batch, rows: list[int], size: int) -> Iterator[list[int]]:
    """This process's share of the rows in groups that go through a model at once, alike in length."""
    lengths: list[int] = batch.mask.sum(dim=1).tolist()
    return micro_batches(team.share(rows, lengths.__getitem__), size, lengths.__getitem__)
