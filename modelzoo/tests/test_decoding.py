"""Rows that join, say something and leave at any time get the logits of the whole sequence, in every variant."""

import random

import pytest
import torch

from modelzoo.decoding import Decoding
from modelzoo.packed import packed
from modelzoo.tests.test_variants import VARIANTS, config, wilder
from modelzoo.transformer import Transformer

VOCABULARY = config().vocab_size


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Transformer:
    return wilder(Transformer(config(request.param))).requires_grad_(False)


def text(length: int, draw: random.Random) -> list[int]:
    return [draw.randrange(VOCABULARY) for _ in range(length)]


def uncached(model: Transformer, rows: list[list[int]]) -> torch.Tensor:
    return torch.stack([model(torch.tensor([row]))[0, -1] for row in rows])


def assert_alike(logits: torch.Tensor, model: Transformer, rows: list[list[int]], limit: float = 5e-5) -> None:
    difference = torch.log_softmax(logits, -1) - torch.log_softmax(uncached(model, rows), -1)
    assert difference.abs().max() < limit


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_come_and_go_get_the_logits_of_their_whole_sequence(model: Transformer, seed: int) -> None:
    draw = random.Random(seed)
    decoding = Decoding(model)
    rows: list[list[int]] = []
    for _ in range(12):
        if not rows or draw.random() < 0.4:
            prompts = [text(draw.randint(1, 9), draw) for _ in range(draw.randint(1, 3))]
            counts = [draw.randint(1, 4) for _ in prompts]
            new = [list(prompt) for prompt, count in zip(prompts, counts, strict=True) for _ in range(count)]
            assert_alike(decoding.join(prompts, counts), model, new)
            rows += new
        if draw.random() < 0.4:
            order = decoding.leave(sorted(draw.sample(range(len(rows)), draw.randint(1, len(rows)))))
            rows = [rows[old] for old in order]
        if rows:
            said = text(len(rows), draw)
            rows = [[*row, token] for row, token in zip(rows, said, strict=True)]
            assert_alike(decoding.step(torch.tensor(said)), model, rows)


def test_rows_may_say_more_than_the_memory_had_room_for(model: Transformer) -> None:
    draw = random.Random(0)
    decoding, prompt = Decoding(model), text(3, draw)
    decoding.join([prompt], [3])
    rows = [list(prompt) for _ in range(3)]
    for step in range(40):
        said = text(3, draw)
        rows = [[*row, token] for row, token in zip(rows, said, strict=True)]
        logits = decoding.step(torch.tensor(said))
        if step in (31, 32, 39):  # the memory grows at 33
            assert_alike(logits, model, rows)


def test_packed_weights_say_the_same(model: Transformer) -> None:
    fast = packed(model)
    ids = torch.tensor([text(20, random.Random(1))])
    assert fast is not model
    assert (fast(ids) - model(ids)).abs().max() < 1e-4
    assert {name for name, _ in fast.named_parameters()} <= {name for name, _ in model.named_parameters()}


def test_int8_weights_say_nearly_the_same(model: Transformer) -> None:
    ids = torch.tensor([text(20, random.Random(1))])
    expected, got = (torch.softmax(policy(ids), -1) for policy in (model, packed(model, "int8")))
    difference = (expected - got).abs().sum(-1).mean() / 2  # total variation
    assert 0 < difference < 0.15


def test_int8_weights_are_for_float32_on_cpus(model: Transformer) -> None:
    double = Transformer(config()).double()
    with pytest.raises(ValueError, match="int8 weights are for float32 models on CPUs"):
        packed(double, "int8")
    assert packed(double) is double
    with pytest.raises(ValueError, match="must be float32 or int8, not 'int4'"):
        packed(double, "int4")
