"""A recorded step repeats the same operations on the same memory, and gives the logits of the whole sequence.

A CUDA graph needs a card. Its stand-in here keeps what matters of one: operations are written down once with the
numbers and addresses that they then had, and no Python of ours runs when they are repeated.
"""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from modelzoo.decoding import Decoding
from modelzoo.replay import PLAIN, ReplayedDecoding, decoding_of
from modelzoo.tests.test_decoding import assert_alike, text
from modelzoo.tests.test_variants import config, wilder
from modelzoo.transformer import Transformer


@pytest.fixture(params=["llama", "alibi", "mistral", "ALBERT"])  # biases by head and by window, layers that are one
def model(request: pytest.FixtureRequest) -> Transformer:
    return wilder(Transformer(config(request.param))).requires_grad_(False)


class Recorder:
    """Records as a graph does, and counts."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recorded += 1
        operations = make_fx(run)()

        def replay() -> Tensor:
            self.replayed += 1
            result: Tensor = operations()
            return result

        return replay


def test_replayed_steps_give_the_logits_of_the_whole_sequence(model: Transformer) -> None:
    draw, record = random.Random(0), Recorder()
    decoding = ReplayedDecoding(model, record)
    prompts = [text(length, draw) for length in (7, 3)]
    decoding.join(prompts, [4, 2])
    rows = [list(prompt) for prompt, count in zip(prompts, (4, 2), strict=True) for _ in range(count)]
    for step in range(48):
        if step == 8:
            rows = [rows[old] for old in decoding.leave([1, 5])]
        if step == 16:
            decoding.join([prompts[1]], [3])
            rows += [list(prompts[1]) for _ in range(3)]
        said = text(len(rows), draw)
        rows = [[*row, token] for row, token in zip(rows, said, strict=True)]
        assert_alike(decoding.step(torch.tensor(said)), model, rows)
    assert record.recorded == 4  # at the start, when rows leave, when some join, and when the memory grows at 33
    assert record.replayed == 48 - 4 * PLAIN


def test_steps_of_a_shape_that_does_not_last_are_not_recorded(model: Transformer) -> None:
    record = Recorder()
    decoding = ReplayedDecoding(model, record)
    decoding.join([[1, 2, 3]], [9])
    for rows in range(9, 0, -1):
        decoding.step(torch.zeros(rows, dtype=torch.long))
        decoding.leave([0])
    assert record.recorded == 0


def test_plain_decoding_is_for_cpus(model: Transformer) -> None:
    assert type(decoding_of(model)) is Decoding
