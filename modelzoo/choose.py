"""Which token comes next."""

import torch
import torch.nn.functional as F
from torch import Tensor

from modelzoo.config import SamplingConfig

BLOCK = 256  # tokens whose weights are summed up at once
DROPPED_BITS = 15  # what remains of a float32 has 8 bits of its fraction
FIRST_BITS_OF_1 = 0x3F800000 >> DROPPED_BITS


def choose(logits: Tensor, uniforms: Tensor, sampling: SamplingConfig) -> tuple[Tensor, Tensor]:
    """A token for each row of logits (B, V), by inverting the distribution at uniforms (B,), and its log-probability.

    Tokens as likely as the last one that top-k or top-p keeps are kept too. The log-probability is as in `Response`.
    """
    scores = logits.float()
    if sampling.temperature not in (0, 1):
        scores = scores / sampling.temperature
    best, likeliest = scores.max(-1, keepdim=True)
    weights = (scores - best).exp_()  # (B, V)
    blocks = _blocks(weights)
    ends = blocks.sum(-1).cumsum(-1, dtype=torch.float64)  # (B, V / BLOCK)
    whole = ends[:, -1].clone()
    if sampling.temperature == 0:
        tokens = likeliest[:, 0]
    else:
        if sampling.top_k or sampling.top_p < 1:
            blocks = _blocks(_narrowed(weights, whole, sampling))
            ends = blocks.sum(-1).cumsum(-1, dtype=torch.float64)
        tokens = _inverted(blocks, ends, uniforms)
    return tokens, ((scores.gather(1, tokens[:, None]) - best)[:, 0] - whole.log()).float()


def _blocks(weights: Tensor) -> Tensor:
    """(B, V) -> (B, V / BLOCK, BLOCK), the last filled with zeros."""
    missing = -weights.shape[-1] % BLOCK
    blocks: Tensor = (F.pad(weights, (0, missing)) if missing else weights).unflatten(-1, (-1, BLOCK))
    return blocks


def _inverted(blocks: Tensor, ends: Tensor, uniforms: Tensor) -> Tensor:
    """The token (B,) at which the running sum of all weights passes the share `uniforms` (B,) of the whole.

    Sums of blocks (B, V / BLOCK), themselves summed up, find the block, a running sum within it the token: one of all
    the vocabulary costs ten times as much.
    """
    targets = (uniforms * ends[:, -1])[:, None]
    block = torch.searchsorted(ends, targets, right=True).clamp_(max=ends.shape[-1] - 1)  # (B, 1)
    before = F.pad(ends, (1, 0)).gather(1, block)
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, BLOCK))[:, 0]
    passed = torch.searchsorted(inside.cumsum(-1, dtype=torch.float64) + before, targets, right=True)
    # Sums in another order differ in their last bits: never pass beyond the last token that has weight.
    last = (inside > 0).mul(torch.arange(BLOCK, device=inside.device)).amax(-1, keepdim=True)
    return (block * BLOCK + passed.minimum(last))[:, 0]


def _narrowed(weights: Tensor, whole: Tensor, sampling: SamplingConfig) -> Tensor:
    """Weights (B, V), whose sums are `whole` (B,), with zeros outside the top k, then outside the rest's nucleus."""
    vocabulary = weights.shape[-1]
    if 0 < sampling.top_k < vocabulary:
        least = weights.topk(sampling.top_k).values[:, -1:]
        weights = weights.where(weights >= least, 0.0)
        whole = weights.sum(-1, dtype=torch.float64)
    if sampling.top_p < 1:
        least = _nucleus_edge(weights, whole[:, None], sampling.top_p)
        weights = weights.where(weights >= least, 0.0)
    return weights


def _nucleus_edge(weights: Tensor, whole: Tensor, top_p: float) -> Tensor:
    """Weight (B, 1) of the least likely token in each row's nucleus (Holtzman et al. 2020), at most 1 each.

    Sorting a vocabulary takes longer than a step of the model. Numbers that are not negative are ordered as their bits
    are, so the sums of all weights that begin with the same bits say with which bits the edge begins; only those few
    that begin so are sorted.
    """
    starts = weights.view(torch.int32) >> DROPPED_BITS
    sums = weights.new_zeros(len(weights), FIRST_BITS_OF_1 + 1).scatter_add_(1, starts.long(), weights).flip(-1)
    ends = sums.cumsum(-1, dtype=torch.float64)
    last = (sums > 0).mul(torch.arange(sums.shape[-1], device=sums.device)).amax(-1, keepdim=True)
    place = (ends < top_p * whole).sum(-1, keepdim=True).minimum(last)  # rounding must not lead beyond all tokens
    alike = starts == FIRST_BITS_OF_1 - place
    sorted_ = weights.where(alike, 0.0).topk(int(alike.sum(-1).max())).values
    above = F.pad(ends, (1, 0)).gather(1, place)
    inside = (above + sorted_.cumsum(-1, dtype=torch.float64) < top_p * whole).sum(-1, keepdim=True)
    return sorted_.gather(1, inside.minimum((sorted_ > 0).sum(-1, keepdim=True) - 1))
