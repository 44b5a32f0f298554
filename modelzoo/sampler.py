"""Completions of conversations by a policy: text in, text out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from modelzoo.chat_template import ChatTemplateError, Message
from modelzoo.checkpoint import load_policy
from modelzoo.config import SamplingConfig
from modelzoo.generate import Progress, PromptError, Response, check_prompt, generate, row_generators
from modelzoo.packed import packed
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import Transformer


@dataclass(frozen=True)
class Sample(Response):
    """A response with its text: without the stop token, and without half a character at the cut."""

    text: str

    @property
    def logprob_sum(self) -> float:
        return sum(self.logprobs)


class Sampler:
    """A policy and its tokenizer, ready to complete conversations."""

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, device: str | torch.device = "cpu", weights: str = "float32"
    ) -> None:
        """`weights` as in `packed`."""
        model = model.to(device).requires_grad_(False)
        self.model = packed(model, weights)
        if self.model is not model:
            for parameter in self.model.parameters():  # the few that stay must not keep the whole file in memory
                parameter.data = parameter.data.clone()
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, directory: Path | str, device: str | torch.device = "cpu", weights: str = "float32") -> "Sampler":
        """From a checkpoint; raises CheckpointError."""
        model, tokenizer, _ = load_policy(directory)
        return cls(model, tokenizer, device, weights)

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
