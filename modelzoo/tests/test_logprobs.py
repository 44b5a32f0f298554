import pytest
import torch

from modelzoo.batches import Batch, Example, collate, length_of, micro_batches, seeded
from modelzoo.config import SamplingConfig
from modelzoo.generate import generate
from modelzoo.logprobs import CHUNK, response_logprobs, response_logprobs_and_entropy, response_values, summed_loss
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel, Transformer

EXAMPLES = [Example([5, 6, 7], [8, 9, 2]), Example([5, 9, 11, 12], [6]), Example([7], [8, 9, 10, 11, 12, 13])]


def padded(batch: Batch, columns: int, pad_id: int) -> Batch:
    rows = len(batch.tokens)
    more = (torch.full((rows, columns), pad_id), torch.zeros(rows, columns).bool(), torch.zeros(rows, columns).bool())
    return Batch(*(torch.cat([tensor, extra], dim=1) for tensor, extra in zip(batch, more, strict=True)))


def test_logprobs_are_those_of_the_full_logits(policy: Transformer, tokenizer: Tokenizer) -> None:
    batch = collate(EXAMPLES, tokenizer.pad_id)
    logprobs = response_logprobs(policy, batch, temperature=0.7)
    full = (policy(batch.tokens, mask=batch.mask) / 0.7).log_softmax(-1)
    for row, example in enumerate(EXAMPLES):
        for t in range(len(example.prompt), len(example.tokens)):
            assert logprobs[row, t].item() == pytest.approx(full[row, t - 1, example.tokens[t]].item(), abs=1e-5)
    assert not logprobs[~batch.response].any()


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.3])
def test_sampler_and_trainer_agree_at_the_sampling_temperature(
    policy: Transformer, tokenizer: Tokenizer, temperature: float
) -> None:
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=8)
    streams = [seeded("test", row) for row in range(len(prompts))]
    responses = generate(policy, prompts, 1, sampling, tokenizer.stop_ids, streams)
    examples = [Example(prompt, rows[0].token_ids) for prompt, rows in zip(prompts, responses, strict=True)]
    batch = collate(examples, tokenizer.pad_id)
    sampled = torch.tensor([p for rows in responses for p in rows[0].logprobs])
    assert torch.allclose(response_logprobs(policy, batch, temperature=temperature)[batch.response], sampled, atol=1e-5)


def test_entropy_is_that_of_the_full_distribution_and_blind_to_padding(
    policy: Transformer, tokenizer: Tokenizer
) -> None:
    batch = collate(EXAMPLES, tokenizer.pad_id)
    logprobs, entropy = response_logprobs_and_entropy(policy, batch, temperature=1.0)
    assert torch.equal(logprobs, response_logprobs(policy, batch))
    exact = torch.distributions.Categorical(logits=policy(batch.tokens)).entropy()
    assert torch.allclose(entropy[:, 1:][batch.response[:, 1:]], exact[:, :-1][batch.response[:, 1:]], atol=1e-5)
    _, wider = response_logprobs_and_entropy(policy, padded(batch, 5, tokenizer.pad_id), temperature=1.0)
    assert torch.allclose(wider[:, : entropy.shape[1]], entropy, atol=1e-6)
    assert not wider[:, entropy.shape[1] :].any()


def test_many_tokens_go_through_the_head_in_chunks_with_the_same_gradient(
    policy: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = collate([Example([5], list(range(6, 100)))] * 3, tokenizer.pad_id)

    def gradients() -> list[torch.Tensor]:
        policy.zero_grad()
        response_logprobs(policy, batch).sum().backward()
        return [weight.grad.clone() for weight in policy.parameters()]

    assert batch.response.sum() < CHUNK
    whole = gradients()
    monkeypatch.setattr("modelzoo.logprobs.CHUNK", 50)
    for chunked, expected in zip(gradients(), whole, strict=True):
        assert torch.allclose(chunked, expected, rtol=1e-4, atol=1e-4)


def test_summed_loss_does_not_depend_on_how_many_rows_go_at_once(policy: Transformer, tokenizer: Tokenizer) -> None:
    losses = []
    for size in (1, 2, 3):
        batches = (collate(part, tokenizer.pad_id) for part in micro_batches(EXAMPLES, size, length_of))
        losses.append(summed_loss(policy, batches, lambda: None))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_value_of_a_token_is_what_was_expected_before_it(policy: Transformer, tokenizer: Tokenizer) -> None:
    model = RewardModel.from_policy(policy, seeded("head"))
    batch = collate(EXAMPLES, tokenizer.pad_id)
    values = response_values(model, batch)
    for row, example in enumerate(EXAMPLES):
        for t in range(len(example.prompt), len(example.tokens)):
            before = torch.tensor([example.tokens[:t]])
            score = model(before, torch.ones_like(before, dtype=torch.bool))
            assert values[row, t].item() == pytest.approx(score.item(), abs=1e-5)
    assert not values[~batch.response].any()


def test_score_is_blind_to_padding_but_not_to_a_missing_end(policy: Transformer, tokenizer: Tokenizer) -> None:
    model = RewardModel.from_policy(policy, seeded("head"))
    ended = collate([Example([5, 6], [8, 9, tokenizer.end_of_turn_id])], tokenizer.pad_id)
    cut = collate([Example([5, 6], [8, 9])], tokenizer.pad_id)
    wider = padded(ended, 4, tokenizer.pad_id)
    assert model(wider.tokens, wider.mask).item() == pytest.approx(model(ended.tokens, ended.mask).item(), abs=1e-6)
    assert abs(model(cut.tokens, cut.mask).item() - model(ended.tokens, ended.mask).item()) > 1e-3
