"""From prompts to responses, as tokens: K rows for each prompt, many prompts at a time.

Rows that have finished leave at once and waiting ones join, so that a step is always of as many rows as there can be.
Each row draws from a random stream of its own: what a prompt gets does not depend on its company.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelzoo.choose import choose
from modelzoo.config import SamplingConfig
from modelzoo.replay import decoding_of
from modelzoo.transformer import Transformer

MAX_ROWS = 64  # rows of one step; more gain little once the matrix products are limited by arithmetic
MAX_CACHE_BYTES = 1 << 30

Progress = Callable[[int, int], None]


class PromptError(ValueError):
    """This prompt cannot be sampled from, whatever the others are; the text says why."""


class PromptTooLongError(PromptError):
    """The prompt leaves no room for a single new token."""


class SamplingStoppedError(Exception):
    """`should_stop` said so."""


@dataclass(frozen=True)
class Response:
    """What the model said in one row, as tokens.

    `token_ids` ends with the stop token if `finish_reason` is "stop"; "length" means that it was cut. `logprobs` are of
    the chosen tokens under softmax(logits / temperature) over the whole vocabulary, also where top-k or top-p had
    narrowed the choice: this is what a trainer computes from the same tokens. Temperature 0 is taken as 1 there.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str


def check_prompt(model: Transformer, tokens: Sequence[int]) -> None:
    """Raise PromptError unless the model can read this prompt and add a token."""
    limit = model.config.max_position_embeddings
    if not tokens:
        raise PromptError("the prompt has no tokens")
    if len(tokens) >= limit:
        raise PromptTooLongError(
            f"the prompt has {len(tokens)} tokens; this model takes at most {limit - 1}: shorten it"
        )


def row_generators(seed: int, k: int) -> list[torch.Generator]:
    """K independent random streams; stream i depends on the seed and i alone."""
    digests = [hashlib.sha256(f"{seed}:{row}".encode()).digest() for row in range(k)]
    return [torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1) for digest in digests]


@torch.inference_mode()
def generate(
    model: Transformer,
    prompt_ids: Sequence[Sequence[int]],
    k: int | Sequence[int],
    sampling: SamplingConfig,
    stop_ids: Sequence[int],
    generators: Sequence[torch.Generator],
    *,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Progress | None = None,
    on_responses: Callable[[int, list[Response]], None] | None = None,
) -> list[list[Response]]:
    """K responses for each prompt of token ids; `generators` has one stream a row, prompt by prompt.

    `on_responses` is told each prompt's index and responses when its last row ends, before the others are done.

    Raises PromptError on a prompt without tokens or without room, FloatingPointError when the model's logits are not
    finite, SamplingStoppedError when told to stop.
    """
    counts = [k] * len(prompt_ids) if isinstance(k, int) else list(k)
    if len(generators) != sum(counts):
        raise ValueError(f"{sum(counts)} rows need as many generators, not {len(generators)}")
    for prompt in prompt_ids:
        check_prompt(model, prompt)
    limit = model.config.max_position_embeddings
    rows: list[_Row] = []
    of_prompt: list[list[_Row]] = []
    for prompt, count in zip(prompt_ids, counts, strict=True):
        new_tokens = min(sampling.max_new_tokens, limit - len(prompt))
        streams = generators[len(rows) : len(rows) + count]
        of_prompt.append([_Row(prompt, new_tokens, stream) for stream in streams])
        rows.extend(of_prompt[-1])
    total = sum(row.limit for row in rows)
    unfinished = dict(enumerate(of_prompt))

    def after_step() -> None:
        for index in [index for index, group in unfinished.items() if all(row.finish_reason for row in group)]:
            group = unfinished.pop(index)
            if on_responses is not None:
                on_responses(index, _responses(group))
        if on_progress is not None:
            on_progress(sum(row.limit if row.finish_reason else len(row.token_ids) for row in rows), total)
        if should_stop is not None and should_stop():
            raise SamplingStoppedError("sampling was stopped")

    _decode(model, of_prompt, sampling, frozenset(stop_ids), after_step)
    return [_responses(group) for group in of_prompt]


def _decode(
    model: Transformer,
    of_prompt: list[list["_Row"]],
    sampling: SamplingConfig,
    stops: frozenset[int],
    after_step: Callable[[], None],
) -> None:
    """Token by token until every row has ended; `after_step` may raise."""
    decoding = decoding_of(model)
    waiting = deque(sorted(of_prompt, key=lambda group: -len(group[0].prompt)))
    alive: list[_Row] = []  # in the order of the rows of `decoding`
    logits: Tensor | None = None  # (alive, V)
    while waiting or alive:
        if joining := _joining(model, waiting, alive):
            first = decoding.join([group[0].prompt for group in joining], [len(group) for group in joining])
            logits = first if logits is None else torch.cat([logits, first])
            alive += [row for group in joining for row in group]
        assert logits is not None
        uniforms = torch.tensor([row.uniform for row in alive], dtype=torch.float64, device=logits.device)
        tokens, logprobs = choose(logits, uniforms, sampling)
        if not bool(torch.isfinite(logprobs).all()):
            raise FloatingPointError("the model's logits are not finite: its weights or its last update are broken")
        pairs = zip(alive, tokens.tolist(), logprobs.tolist(), strict=True)
        finished = [n for n, (row, token, logprob) in enumerate(pairs) if row.add(token, logprob, stops)]
        after_step()
        if finished:
            order = decoding.leave(finished)
            alive, tokens = [alive[n] for n in order], tokens[order]
        logits = decoding.step(tokens) if alive else None


class _Row:
    """One response in the making."""

    def __init__(self, prompt: Sequence[int], limit: int, generator: torch.Generator) -> None:
        self.prompt, self.limit = prompt, limit
        # All draws at once: one number a token, whenever the row leaves and whoever shares its batch.
        self._uniforms: list[float] = torch.rand(limit, generator=generator, dtype=torch.float64).tolist()
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason = ""

    @property
    def uniform(self) -> float:
        """What decides the next token."""
        return self._uniforms[len(self.token_ids)]

    def add(self, token: int, logprob: float, stop_ids: frozenset[int]) -> bool:
        """Take the next token; true when it was the last."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        if token in stop_ids:
            self.finish_reason = "stop"
        elif len(self.token_ids) == self.limit:
            self.finish_reason = "length"
        return bool(self.finish_reason)


def _responses(group: list[_Row]) -> list[Response]:
    return [Response(row.token_ids, row.logprobs, row.finish_reason) for row in group]


def _joining(model: Transformer, waiting: deque[list[_Row]], alive: list[_Row]) -> list[list[_Row]]:
    """Take from `waiting` the rows, prompt by prompt, for which there is room now; of more than there ever is, some."""
    joining: list[list[_Row]] = []
    rows = list(alive)
    while waiting:
        group = waiting[0] if rows else waiting[0][: _room(model, waiting[0])]
        if len(rows) + len(group) > min(MAX_ROWS, _room(model, [*rows, *group])):
            break
        rest = waiting.popleft()[len(group) :]
        if rest:
            waiting.appendleft(rest)
        joining.append(group)
        rows += group
    return joining


def _room(model: Transformer, rows: list[_Row]) -> int:
    """How many such rows may be in the making at once: at least one."""
    config = model.config
    itemsize = model.model.embed_tokens.weight.element_size()
    column = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * itemsize
    longest = max(len(row.prompt) + row.limit for row in rows)  # as if every row had a prompt of its own
    return max(1, min(MAX_ROWS, MAX_CACHE_BYTES // (longest * column)))
