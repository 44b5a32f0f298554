"""Completions from a policy: K for each prompt, many prompts at a time.

A prompt goes through the model once; its keys and values are then copied to K rows. Prompts of different lengths share
a batch by padding on the left, rows that have finished leave it. Each row draws from a random stream of its own, so
what a prompt gets does not depend on its company.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modelzoo.chat_template import ChatTemplateError, Message
from modelzoo.checkpoint import load_policy
from modelzoo.config import SamplingConfig
from modelzoo.kv_cache import KVCache
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import Transformer

MAX_ROWS = 64  # rows of one batch; more gain little once the matrix products are limited by arithmetic
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


@dataclass(frozen=True)
class Sample(Response):
    """A response with its text: without the stop token, and without half a character at the cut."""

    text: str

    @property
    def logprob_sum(self) -> float:
        return sum(self.logprobs)


class Sampler:
    """A policy and its tokenizer, ready to complete conversations."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, device: str | torch.device = "cpu") -> None:
        self.model = model.to(device).requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, directory: Path | str, device: str | torch.device = "cpu") -> "Sampler":
        """From a checkpoint; raises CheckpointError."""
        model, tokenizer, _ = load_policy(directory)
        return cls(model, tokenizer, device)

    def sample(
        self,
        prompts: Sequence[Sequence[Message]],
        k: int | Sequence[int],
        sampling: SamplingConfig,
        *,
        seeds: Sequence[int] | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Progress | None = None,
        on_result: Callable[[int, list[Sample] | PromptError], None] | None = None,
    ) -> list[list[Sample] | PromptError]:
        """K samples for each prompt; in place of them, a PromptError for a prompt that cannot be used.

        `seeds` has one number for each prompt; without it every prompt uses `sampling.seed`. `on_progress` is told how
        many tokens are done and how many there can be at most, `on_result` each prompt's number and result as soon as
        it is there. Raises SamplingStoppedError once `should_stop` is true.
        """
        counts = [k] * len(prompts) if isinstance(k, int) else list(k)
        seeds = [sampling.seed] * len(prompts) if seeds is None else seeds
        if not len(prompts) == len(counts) == len(seeds):
            raise ValueError(f"{len(prompts)} prompts, {len(counts)} values of k and {len(seeds)} seeds do not match")
        results: list[list[Sample] | PromptError] = []
        usable: dict[int, list[int]] = {}
        for number, messages in enumerate(prompts):
            results.append([])
            try:
                usable[number] = self.prompt_tokens(messages)
            except PromptError as error:
                results[number] = error
                if on_result is not None:
                    on_result(number, error)
        numbers = list(usable)

        def on_responses(index: int, rows: list[Response]) -> None:
            results[numbers[index]] = samples = [self._with_text(row) for row in rows]
            if on_result is not None:
                on_result(numbers[index], samples)

        generate(
            self.model,
            list(usable.values()),
            [counts[number] for number in usable],
            sampling,
            self.tokenizer.stop_ids,
            self.tokenizer.pad_id,
            [generator for number in usable for generator in row_generators(seeds[number], counts[number])],
            should_stop=should_stop,
            on_progress=on_progress,
            on_responses=on_responses,
        )
        return results

    def prompt_tokens(self, messages: Sequence[Message]) -> list[int]:
        """The conversation up to where the assistant speaks. Raises PromptError."""
        try:
            tokens = self.tokenizer.encode_chat(messages)
        except ChatTemplateError as error:
            raise PromptError(str(error)) from error
        check_prompt(self.model, tokens)
        return tokens

    def _with_text(self, row: Response) -> Sample:
        text = self.tokenizer.decode(row.token_ids)
        if row.finish_reason == "length":
            text = text.rstrip("\ufffd")  # the cut fell inside a character of several byte tokens
        return Sample(row.token_ids, row.logprobs, row.finish_reason, text)


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
    pad_id: int,
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
    for tokens in prompt_ids:
        check_prompt(model, tokens)
    limit = model.config.max_position_embeddings
    rows: list[_Row] = []
    of_prompt: list[list[_Row]] = []
    for tokens, count in zip(prompt_ids, counts, strict=True):
        new_tokens = min(sampling.max_new_tokens, limit - len(tokens))
        streams = generators[len(rows) : len(rows) + count]
        of_prompt.append([_Row(tokens, new_tokens, stream) for stream in streams])
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

    for batch in _batches(model, rows):
        _generate_batch(model, batch, sampling, frozenset(stop_ids), pad_id, after_step)
    return [_responses(group) for group in of_prompt]


class _Row:
    """One response in the making."""

    def __init__(self, prompt: Sequence[int], limit: int, generator: torch.Generator) -> None:
        self.prompt, self.limit = prompt, limit
        # All draws at once: one number a token, whenever the row leaves and whoever shares its batch.
        self.uniforms = torch.rand(limit, generator=generator, dtype=torch.float64)
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason = ""

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


def _batches(model: Transformer, rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows alike in the length of their prompts, as many as a batch may hold; those of one prompt stay neighbours."""
    config = model.config
    itemsize = model.model.embed_tokens.weight.element_size()
    column_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * itemsize
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda row: -len(row.prompt)):
        widest = len((batch or [row])[0].prompt) + max(row.limit for row in (*batch, row))
        if batch and (len(batch) == MAX_ROWS or (len(batch) + 1) * widest * column_bytes > MAX_CACHE_BYTES):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _generate_batch(
    model: Transformer,
    rows: list[_Row],
    sampling: SamplingConfig,
    stop_ids: frozenset[int],
    pad_id: int,
    after_step: Callable[[], None],
) -> None:
    device = model.model.embed_tokens.weight.device
    cache, logits = _prefill(model, rows, pad_id)
    alive = list(rows)  # in the order of the cache's rows
    for step in range(max(row.limit for row in rows)):
        uniforms = torch.stack([row.uniforms[step] for row in alive]).to(device)
        tokens, logprobs = choose(logits, uniforms, sampling)
        if not bool(torch.isfinite(logprobs).all()):
            raise FloatingPointError("the model's logits are not finite: its weights or its last update are broken")
        pairs = zip(alive, tokens.tolist(), logprobs.tolist(), strict=True)
        finished = [n for n, (row, token, logprob) in enumerate(pairs) if row.add(token, logprob, stop_ids)]
        after_step()
        if finished:
            order = cache.drop(finished)
            alive, tokens = [alive[n] for n in order], tokens[order]
        if not alive:
            return
        logits = model.logits(model.hidden(tokens[:, None], cache=cache)[:, -1])


def _prefill(model: Transformer, rows: list[_Row], pad_id: int) -> tuple[KVCache, Tensor]:
    """Each different prompt through the model once; a cache with every row, and the first logits (rows, V)."""
    weight = model.model.embed_tokens.weight
    prompts: list[Sequence[int]] = []
    source: list[int] = []
    for row in rows:
        if not prompts or prompts[-1] is not row.prompt:
            prompts.append(row.prompt)
        source.append(len(prompts) - 1)
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=weight.device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=weight.device)
    mask = torch.arange(width, device=weight.device) >= width - lengths[:, None]
    cache = KVCache(model.config, len(prompts), width, dtype=weight.dtype, device=weight.device)
    last = model.hidden(tokens, mask=mask, cache=cache)[:, -1]  # (prompts, D)
    index = torch.tensor(source, device=weight.device)
    return cache.select(index, width + max(row.limit for row in rows)), model.logits(last)[index]


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
        cumulative = weights.cumsum(-1, dtype=torch.float64)
        targets = (uniforms * cumulative[:, -1])[:, None]
        tokens = torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]


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
    likeliest = probabilities.topk(int(candidates.max().clamp(min=1))).values  # (B, candidates), falling
    inside = (likeliest.cumsum(-1, dtype=torch.float64) < top_p * total).sum(-1, keepdim=True)
    return likeliest.gather(1, inside.clamp(max=likeliest.shape[-1] - 1))
