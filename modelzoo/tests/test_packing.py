"""Demonstrations in one row without padding: nothing leaks from one to another, and the result is the padded one's."""

from dataclasses import replace

import pytest
import torch

from modelzoo.batches import Example, collate, length_of, seeded
from modelzoo.logprobs import response_logprobs
from modelzoo.packing import best_fit, pack
from modelzoo.tests.conftest import Train, tiny_policy
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import Transformer

EXAMPLES = [
    Example([5, 6, 7], [8, 9, 10, 2]),
    Example([11], [12, 2]),
    Example(list(range(5, 35)), list(range(40, 60))),
    Example([5, 6, 7, 8], [20, 21, 22, 23, 24, 2]),
]


@pytest.fixture(params=[{}, {"position": "alibi"}, {"position": "learned"}, {"sliding_window": 3}], ids=str)
def policy(tokenizer: Tokenizer, request: pytest.FixtureRequest) -> Transformer:
    config = replace(tiny_policy(tokenizer).config, **request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Transformer(config)


def loss_and_gradients(policy: Transformer, logprobs: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
    policy.zero_grad()
    loss = -logprobs.sum() / sum(len(example.response) for example in EXAMPLES)
    loss.backward()
    return loss.item(), [weight.grad.clone() for weight in policy.parameters()]


def logits_of_each(policy: Transformer, examples: list[Example]) -> tuple[torch.Tensor, ...]:
    row = pack(examples, policy.model)
    states = policy.hidden(row.tokens, positions=row.positions, attend=row.attend)
    return policy.logits(states)[0].split([length_of(example) for example in examples])


def test_packed_and_separate_examples_have_the_same_loss_and_gradients(
    policy: Transformer, tokenizer: Tokenizer
) -> None:
    packed, gradients = loss_and_gradients(policy, response_logprobs(policy, pack(EXAMPLES, policy.model)))
    one_by_one = [response_logprobs(policy, collate([example], tokenizer.pad_id)).sum() for example in EXAMPLES]
    separate, expected = loss_and_gradients(policy, torch.stack(one_by_one))
    assert abs(packed - separate) < 1e-5
    for gradient, other in zip(gradients, expected, strict=True):
        assert torch.allclose(gradient, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("altered", range(len(EXAMPLES)))
def test_altering_one_packed_example_leaves_the_logits_of_the_others_unchanged(
    policy: Transformer, altered: int
) -> None:
    other = list(EXAMPLES)
    other[altered] = Example([t + 30 for t in other[altered].prompt], [t + 30 for t in other[altered].response])
    before, after = (logits_of_each(policy, examples) for examples in (EXAMPLES, other))
    for number in range(len(EXAMPLES)):
        assert torch.equal(before[number], after[number]) == (number != altered)


def test_positions_start_again_with_each_packed_example(policy: Transformer) -> None:
    first, second = logits_of_each(policy, [EXAMPLES[0], EXAMPLES[0]])
    assert torch.equal(first, second)


def test_nothing_is_predicted_across_packed_examples(policy: Transformer) -> None:
    row = pack([EXAMPLES[0], Example([], [8, 9])], policy.model)
    assert row.response[0].tolist() == [False] * 3 + [True] * 4 + [False, True]


def test_best_fit_wastes_no_group_and_gives_none_more_than_padding_would_take() -> None:
    order = torch.randint(1, 60, (200,), generator=seeded("lengths")).tolist()
    examples = [Example([5], [6] * length) for length in order]
    for size in (1, 2, 4, 16):
        groups = best_fit(examples, size, length_of)
        room = size * max(map(length_of, examples))
        assert sorted(sum(groups, [])) == sorted(examples)
        assert max(sum(map(length_of, group)) for group in groups) <= room
        assert len(groups) <= -(-len(examples) // size)
        full = sum(map(length_of, examples)) / room
        assert len(groups) <= 11 / 9 * full + 2  # best-fit decreasing (Johnson et al. 1974)
    assert best_fit([], 4, length_of) == []


def test_packing_changes_neither_loss_nor_gradient(train: Train) -> None:
    """One and the same run, packed and padded, in few micro-batches or many: all labelled tokens divide."""
    runs = [
        train("sft", {"packing": packing, "micro_batch_size": size, "batch_size": 16}, out=f"out-{packing}-{size}")
        for packing in (True, False)
        for size in (1, 3, 16)
    ]
    for name in ("loss", "grad_norm", "heldout_loss"):
        values = [run.series(name)[0] for run in runs]
        assert values == pytest.approx([values[0]] * len(runs), rel=1e-5)
