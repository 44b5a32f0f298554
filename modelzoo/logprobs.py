"""Log-probabilities and values of responses, the same function wherever they are compared.

Old, reference and new log-probabilities of PPO come from here with the same padded rows, so equal weights give equal
bits: KL is exactly 0 and the ratio exactly 1 before the first update. The head runs over response tokens alone, in
chunks: a (B, T, V) tensor never exists.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from modelzoo.batches import Batch, Packed
from modelzoo.transformer import RewardModel, Transformer

CHUNK = 1024  # tokens whose logits are held at once: 200 MB at a vocabulary of 49,152


def response_logprobs(policy: Transformer, batch: Batch | Packed, *, temperature: float = 1.0) -> Tensor:
    """log pi(token | what precedes it) at response tokens, (B, T), 0 elsewhere; logits are divided by `temperature`."""
    return _at_responses(policy, batch, temperature, entropy=False)[0]


def response_logprobs_and_entropy(policy: Transformer, batch: Batch, *, temperature: float) -> tuple[Tensor, Tensor]:
    """`response_logprobs`, to the bit, and the entropy in nats of what each response token was drawn from.

    The entropy has no gradient.
    """
    logprobs, entropy = _at_responses(policy, batch, temperature, entropy=True)
    return logprobs, entropy


@torch.no_grad()
def summed_loss(policy: Transformer, batches: Iterable[Batch | Packed], pause: Callable[[], None]) -> float:
    """The negative log-probability of all response tokens; `pause` comes before each batch and may raise."""
    total = 0.0
    for batch in batches:
        pause()
        total -= response_logprobs(policy, batch).sum().item()
    return total


def response_values(value_model: RewardModel, batch: Batch) -> Tensor:
    """What was expected before each response token was said, (B, T), 0 elsewhere."""
    values = value_model.values(batch.tokens, batch.mask)
    return F.pad(values[:, :-1], (1, 0)) * batch.response


def _before_responses(policy: Transformer, batch: Batch | Packed) -> tuple[Tensor, Tensor]:
    """The states (N, D) that predict the N response tokens of a batch, and those tokens (N,).

    Padding stands on the right, where no real token looks, so no mask is needed. The first token of a sequence is never
    said in response, so in a packed row nothing is predicted across sequences.
    """
    predicting = batch.response[:, 1:]
    states = policy.hidden(batch.tokens, positions=batch.positions, attend=batch.attend)
    return states[:, :-1][predicting], batch.tokens[:, 1:][predicting]


def _at_responses(policy: Transformer, batch: Batch | Packed, temperature: float, *, entropy: bool) -> list[Tensor]:
    """The log-probability of each response token and, if wanted, the entropy before it, each (B, T)."""
    hidden, targets = _before_responses(policy, batch)
    chunks = []
    for states, tokens in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
        if len(hidden) > CHUNK and torch.is_grad_enabled():  # forget the logits and compute them again going back
            chunks.append(checkpoint(_measured, policy, states, tokens, temperature, entropy, use_reentrant=False))
        else:
            chunks.append(_measured(policy, states, tokens, temperature, entropy))
    return [_spread(torch.cat(parts), batch) for parts in zip(*chunks, strict=True)]


def _measured(
    policy: Transformer, hidden: Tensor, tokens: Tensor, temperature: float, entropy: bool
) -> tuple[Tensor, ...]:
    logits = policy.logits(hidden).float()
    if temperature != 1:
        logits = logits / temperature
    logprobs = -F.cross_entropy(logits, tokens, reduction="none")
    if not entropy:
        return (logprobs,)
    distribution = logits.detach().log_softmax(-1)
    return logprobs, -(distribution.exp() * distribution).sum(-1)


def _spread(values: Tensor, batch: Batch | Packed) -> Tensor:
    return torch.zeros_like(batch.tokens, dtype=values.dtype).masked_scatter(batch.response, values)
