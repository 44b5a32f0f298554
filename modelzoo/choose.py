"""Which token comes next."""

import torch
import torch.nn.functional as F
from torch import Tensor

from modelzoo.config import SamplingConfig

BLOCK = 256  # tokens whose weights are summed up at once
FIRST_CANDIDATES = 256


def choose(logits: Tensor, uniforms: Tensor, sampling: SamplingConfig) -> tuple[Tensor, Tensor]:
    """A token for each row of logits (B, V), by inverting the distribution at uniforms (B,), and its log-probability.

    Tokens as likely as the last one that top-k or top-p keeps are kept too. The log-probability is as in `Response`.
    """
    temperature = sampling.temperature or 1.0
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)  # (B, V)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        weights = _narrowed(logprobs.exp(), sampling)
        tokens = _inverted(weights, uniforms)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]


def _inverted(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The token (B,) at which the running sum of weights (B, V) passes the share `uniforms` (B,) of the whole.

    Sums of blocks find the block, a running sum within it the token: one of all the vocabulary costs ten times as much.
    """
    vocabulary = weights.shape[-1]
    blocks = F.pad(weights, (0, -vocabulary % BLOCK)).unflatten(-1, (-1, BLOCK))  # (B, V / BLOCK, BLOCK)
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)  # (B, V / BLOCK)
    targets = (uniforms * ends[:, -1])[:, None]
    block = torch.searchsorted(ends, targets, right=True).clamp_(max=ends.shape[-1] - 1)  # (B, 1)
    before = F.pad(ends, (1, 0)).gather(1, block)
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, BLOCK))[:, 0]
    passed = torch.searchsorted(inside.cumsum(-1, dtype=torch.float64) + before, targets, right=True)
    # Sums in another order differ in their last bits: never pass beyond the last token that has weight.
    last = (inside > 0).mul(torch.arange(BLOCK, device=weights.device)).amax(-1, keepdim=True)
    return (block * BLOCK + passed.minimum(last))[:, 0]


def _narrowed(probabilities: Tensor, sampling: SamplingConfig) -> Tensor:
    """Probabilities (B, V) with zeros outside the top k, then outside the nucleus of what remains."""
    vocabulary = probabilities.shape[-1]
    if 0 < sampling.top_k < vocabulary:
        least = probabilities.topk(sampling.top_k).values[:, -1:]
        probabilities = probabilities.where(probabilities >= least, 0.0)
    if sampling.top_p < 1:
        least = _nucleus_edge(probabilities, sampling.top_p)
        probabilities = probabilities.where(probabilities >= least, 0.0)
    return probabilities


def _nucleus_edge(probabilities: Tensor, top_p: float) -> Tensor:
    """Probability (B, 1) of the least likely token in each row's nucleus (Holtzman et al. 2020)."""
    vocabulary = probabilities.shape[-1]
    total = probabilities.sum(-1, keepdim=True, dtype=torch.float64)
    # Tokens below (1 - p) / V together weigh less than 1 - p, so the nucleus needs none of them: far fewer to sort.
    candidates = (probabilities >= (1 - top_p) * total / vocabulary).sum(-1)
    needed = int(candidates.max().clamp(min=1))
    for count in (min(needed, FIRST_CANDIDATES), needed):  # a few hundred nearly always do
        likeliest = probabilities.topk(count).values  # (B, count), falling
        inside = (likeliest.cumsum(-1, dtype=torch.float64) < top_p * total).sum(-1, keepdim=True)
        if int(inside.max()) < count:
            break
    return likeliest.gather(1, inside.clamp(max=count - 1))
