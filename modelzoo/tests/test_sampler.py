import math
from collections import Counter

import pytest
import torch

from modelzoo import generate as generate_module
from modelzoo.choose import choose
from modelzoo.config import ModelConfig, SamplingConfig
from modelzoo.generate import PromptError, PromptTooLongError, Response, SamplingStoppedError, generate, row_generators
from modelzoo.sampler import Sampler
from modelzoo.tests.test_transformer import CONFIG, wild
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import Transformer

STOP = (0, 1, 2)
PROMPTS = [[5, 6, 7], [8] * 12, [1, 2, 3, 4, 5, 6, 7]]
SEEDS = [3, 4, 5]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return wild(Transformer(ModelConfig(**CONFIG, max_position_embeddings=64))).requires_grad_(False)


def rollout(model: Transformer, which: list[int], sampling: SamplingConfig, k: int = 4) -> list[list[Response]]:
    streams = [stream for number in which for stream in row_generators(SEEDS[number], k)]
    return generate(model, [PROMPTS[number] for number in which], k, sampling, STOP, streams)


def tokens_of(group: list[Response]) -> list[list[int]]:
    return [row.token_ids for row in group]


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, 1.3])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_logprobs_are_those_a_trainer_computes(model: Transformer, temperature: float, top_p: float) -> None:
    sampling = SamplingConfig(temperature=temperature, top_p=top_p, max_new_tokens=30)
    for prompt, group in zip(PROMPTS, rollout(model, [0, 1, 2], sampling), strict=True):
        for row in group:
            logits = model(torch.tensor([prompt + row.token_ids]))[0, len(prompt) - 1 : -1]
            expected = torch.log_softmax(logits / (temperature or 1), -1)
            chosen = expected.gather(1, torch.tensor(row.token_ids)[:, None])[:, 0]
            assert (chosen - torch.tensor(row.logprobs)).abs().max() < 1e-5


def test_greedy_tokens_are_the_likeliest_of_the_uncached_model(model: Transformer) -> None:
    greedy = SamplingConfig(temperature=0, max_new_tokens=20)
    for prompt, group in zip(PROMPTS, rollout(model, [0, 1, 2], greedy), strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 20 and ids[-1] not in STOP or ids == list(prompt):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert tokens_of(group) == [ids[len(prompt) :]] * 4


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_a_prompts_completions_do_not_depend_on_its_company(
    model: Transformer, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = SamplingConfig(temperature=temperature, top_p=0.95, max_new_tokens=30)
    together = [tokens_of(group) for group in rollout(model, [0, 1, 2], sampling)]
    assert [tokens_of(rollout(model, [number], sampling)[0]) for number in (0, 1, 2)] == together
    assert [tokens_of(group) for group in rollout(model, [2, 0], sampling)] == [together[2], together[0]]
    assert [tokens_of(group)[:2] for group in rollout(model, [0, 1, 2], sampling, k=2)] == [g[:2] for g in together]
    monkeypatch.setattr(generate_module, "MAX_ROWS", 5)  # four rows of one prompt and one of the next
    assert [tokens_of(group) for group in rollout(model, [0, 1, 2], sampling)] == together
    monkeypatch.setattr(generate_module, "MAX_CACHE_BYTES", 1)  # every row alone
    assert [tokens_of(group) for group in rollout(model, [0, 1, 2], sampling)] == together


def test_completions_of_one_prompt_differ(model: Transformer) -> None:
    sampling = SamplingConfig(max_new_tokens=30)
    for group in rollout(model, [0, 1, 2], sampling, k=9):
        assert len({tuple(row.token_ids) for row in group}) == 9


def test_rows_end_at_a_stop_token_or_at_the_limit(model: Transformer) -> None:
    rows = [row for group in rollout(model, [0, 1, 2], SamplingConfig(max_new_tokens=30), k=9) for row in group]
    assert {row.finish_reason for row in rows} == {"stop", "length"}
    for row in rows:
        assert not set(row.token_ids[:-1]) & set(STOP)
        assert (row.token_ids[-1] in STOP) == (row.finish_reason == "stop")
        assert row.finish_reason == "stop" or len(row.token_ids) == 30


def test_a_response_ends_where_the_models_context_does(model: Transformer) -> None:
    full = [[9] * 62, [9] * 40]
    groups = generate(model, full, 1, SamplingConfig(max_new_tokens=100), (), row_generators(0, 2))
    assert [(len(rows[0].token_ids), rows[0].finish_reason) for rows in groups] == [(2, "length"), (24, "length")]


def test_tokens_are_drawn_in_proportion_to_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0, float("-inf")]])
    temperature, draws = 0.7, 20_000
    uniforms = torch.rand(draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampled, _ = choose(logits.expand(draws, -1), uniforms, SamplingConfig(temperature=temperature))
    counts = Counter(sampled.tolist())
    for token, probability in enumerate(torch.softmax(logits[0] / temperature, 0).tolist()):
        error = math.sqrt(probability * (1 - probability) / draws)
        assert abs(counts[token] / draws - probability) <= 4 * error, token


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (SamplingConfig(top_p=0.5), {0}),
        (SamplingConfig(top_p=0.51), {0, 1}),
        (SamplingConfig(top_p=0.8), {0, 1}),
        (SamplingConfig(top_p=0.81), {0, 1, 2}),
        (SamplingConfig(top_p=0.99), {0, 1, 2, 3}),
        (SamplingConfig(top_k=1), {0}),
        (SamplingConfig(top_k=3), {0, 1, 2}),
        (SamplingConfig(top_k=9), {0, 1, 2, 3}),
        (SamplingConfig(top_k=2, top_p=0.63), {0, 1}),  # 0.5 of 0.8 is 0.625: the nucleus is of what top-k left
        (SamplingConfig(top_k=2, top_p=0.62), {0}),
        (SamplingConfig(temperature=0.0), {0}),
    ],
)
def test_top_k_and_top_p_keep_exactly_these(sampling: SamplingConfig, kept: set[int]) -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    uniforms = torch.linspace(0, 1 - 1e-9, 1000, dtype=torch.float64)
    sampled, logprobs = choose(logits.expand(1000, -1), uniforms, sampling)
    assert set(sampled.tolist()) == kept
    assert (logprobs - logits[sampled]).abs().max() < 1e-6  # of the whole distribution, not of what was kept


def test_nucleus_equals_that_of_a_full_sort() -> None:
    logits = 4 * torch.randn(20, 5000, generator=torch.Generator().manual_seed(0))
    uniforms = torch.rand(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for top_p in (0.05, 0.5, 0.9, 0.999):
        probabilities, order = torch.softmax(logits.double(), -1).sort(-1, descending=True)
        outside = probabilities.cumsum(-1) - probabilities >= top_p
        kept = torch.zeros_like(probabilities).scatter(1, order, probabilities.masked_fill(outside, 0))
        targets = (uniforms * kept.sum(-1))[:, None]
        expected = torch.searchsorted(kept.cumsum(-1), targets, right=True)[:, 0]
        assert choose(logits, uniforms, SamplingConfig(top_p=top_p))[0].equal(expected), top_p


def test_broken_weights_are_noticed_instead_of_sampled(model: Transformer) -> None:
    broken = Transformer(model.config)
    torch.nn.init.constant_(broken.model.norm.weight, math.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        generate(broken, [[5]], 1, SamplingConfig(), STOP, row_generators(0, 1))


def test_sampling_stops_when_told_and_reports_progress(model: Transformer) -> None:
    seen: list[tuple[int, int]] = []

    def stop() -> bool:
        return len(seen) == 5

    with pytest.raises(SamplingStoppedError):
        generate(
            model,
            PROMPTS,
            2,
            SamplingConfig(max_new_tokens=30),
            (),
            row_generators(0, 6),
            should_stop=stop,
            on_progress=lambda done, total: seen.append((done, total)),
        )
    assert seen == [(6 * step, 180) for step in range(1, 6)]


def test_streams_must_match_the_rows(model: Transformer) -> None:
    with pytest.raises(ValueError, match="6 rows need as many generators, not 5"):
        generate(model, PROMPTS, 2, SamplingConfig(), STOP, row_generators(0, 5))


@pytest.fixture
def chat(policy: Transformer, tokenizer: Tokenizer) -> Sampler:
    return Sampler(policy, tokenizer)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_prompt_that_cannot_be_used_does_not_spoil_the_others(chat: Sampler) -> None:
    sampling = SamplingConfig(max_new_tokens=6, seed=7)
    prompts = [said("the cat"), said("cat " * 200), [{"role": "robot", "content": "x"}], said("a dog")]
    first, long, malformed, last = chat.sample(prompts, [2, 3, 3, 1], sampling)
    assert isinstance(long, PromptTooLongError) and "at most 127" in str(long)
    assert isinstance(malformed, PromptError) and "role must be one of" in str(malformed)
    assert isinstance(first, list) and isinstance(last, list)
    assert (len(first), len(last)) == (2, 1)
    [alone] = chat.sample([said("the cat")], 2, sampling)
    assert [sample.token_ids for sample in alone] == [sample.token_ids for sample in first]


def test_each_prompts_result_is_told_once_as_soon_as_it_is_there(chat: Sampler) -> None:
    told: list[tuple[int, object]] = []
    told_at_step: list[int] = []

    def count_step(done: int, total: int) -> None:
        told_at_step.append(len(told))

    prompts = [said("cat " * 200), said("the cat " * 12), said("a dog")]  # too long, little room left, much room
    results = chat.sample(
        prompts,
        2,
        SamplingConfig(max_new_tokens=90),
        on_result=lambda number, result: told.append((number, result)),
        on_progress=count_step,
    )
    assert [number for number, _ in told] == [0, 1, 2]
    assert all(results[number] is result for number, result in told)
    assert told_at_step[0] == 1 and 2 in told_at_step


def test_seeds_decide_what_is_said(chat: Sampler) -> None:
    sampling = SamplingConfig(max_new_tokens=12)
    results = chat.sample([said("the cat")] * 3, 2, sampling, seeds=[1, 1, 2])
    one, same, other = ([sample.token_ids for sample in result] for result in results)
    assert one == same != other


def test_logprob_sum_is_the_responses_log_probability(chat: Sampler) -> None:
    [[sample]] = chat.sample([said("the cat")], 1, SamplingConfig(max_new_tokens=5))
    assert sample.logprob_sum == pytest.approx(sum(sample.logprobs)) != 0


def test_text_is_cut_between_characters_and_without_the_stop_token(chat: Sampler) -> None:
    """A character outside the vocabulary takes several byte tokens; the limit may fall between them."""
    ids = chat.tokenizer.encode("cat 쀍")
    assert chat.tokenizer.decode(ids[:-1]).endswith("\ufffd")
    cut = chat._with_text(Response(ids[:-1], [0.0] * len(ids), "length"))
    assert cut.text == "cat "
    whole = chat._with_text(Response([*ids, chat.tokenizer.eos_id], [0.0] * len(ids), "stop"))
    assert whole.text == "cat 쀍"


def test_sampling_draws_nothing_from_the_global_random_state(chat: Sampler) -> None:
    before = torch.random.get_rng_state()
    chat.sample([said("the cat")], 3, SamplingConfig(max_new_tokens=5))
    assert torch.random.get_rng_state().equal(before)
