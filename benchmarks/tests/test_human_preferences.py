"""How people's preferences become rankings, and the interval that their figures are given with."""

import pytest
import torch

from benchmarks.human_preferences import MODEL_TIERS, dialogue, gain, harmless, instructions, interval, share
from modelzoo.tokenizer import Tokenizer, train_sentencepiece

TALK = "\n\nHuman: Hello\n\nAssistant: Hi. What\nnow?\n\nHuman: Nothing\n\nAssistant: {}"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_sentencepiece(["Hello there, what is it now? Nothing at all, friend."] * 4, 290)


def test_a_transcript_becomes_messages_and_the_last_words() -> None:
    messages, last = dialogue(TALK.format(" Good.\n\nBye."))
    assert messages == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi. What\nnow?"},
        {"role": "user", "content": "Nothing"},
    ]
    assert last == "Good.\n\nBye."


def test_the_chosen_answer_stands_first_or_second_and_is_the_better_one(tokenizer: Tokenizer) -> None:
    places = []
    for number in range(20):
        ranked = harmless({"chosen": TALK.format(f"good {number}"), "rejected": TALK.format("bad")}, tokenizer)
        assert ranked
        best = ranked["completions"][ranked["tiers"].index(1)]
        assert best == f"good {number}"
        places.append(ranked["completions"].index(best))
    assert set(places) == {0, 1}


def test_two_dialogues_that_differ_before_the_answer_are_left_out(tokenizer: Tokenizer) -> None:
    other = TALK.replace("Hello", "Hey")
    assert harmless({"chosen": TALK.format("a"), "rejected": other.format("b")}, tokenizer) is None
    assert harmless({"chosen": TALK.format("a"), "rejected": TALK.format("a")}, tokenizer) is None


def test_answers_are_ranked_by_the_model_that_gave_them(tokenizer: Tokenizer) -> None:
    said = [{"model": model, "text": f"I am {model}. " + "now " * 200} for model in MODEL_TIERS]
    ranked = instructions({"instruction": "Say", "input": "it", "completions": said}, tokenizer)
    assert ranked and ranked["tiers"] == [*MODEL_TIERS.values()]
    assert ranked["messages"][0]["content"] == "Say\n\nit"
    assert set(ranked["finish_reasons"]) == {"length"}  # cut, as sampling would have


def test_an_interval_holds_the_true_share_19_times_in_20() -> None:
    held = 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        right = torch.binomial(torch.full((120,), 5.0), torch.full((120,), 0.7), generator=generator)
        found = interval(share, torch.stack([right, torch.full_like(right, 5)], 1))
        assert found["low"] <= found["value"] <= found["high"]
        held += found["low"] <= 0.7 <= found["high"]
    assert 180 <= held <= 198


def test_what_two_judges_differ_by_is_known_better_than_each() -> None:
    """Both are right about the same prompts, one about a few more: paired prompts tell."""
    easy = torch.arange(100) % 2 * 5.0
    better = torch.where(torch.arange(100) % 10 == 0, easy + 5, easy).clamp(max=5)
    pairs = torch.full_like(easy, 5)
    both = torch.stack([better, pairs, easy, pairs], 1)
    found, alone = interval(gain, both), interval(share, both[:, :2])
    assert found["value"] == pytest.approx(0.1) and found["low"] > 0
    assert found["high"] - found["low"] < 0.7 * (alone["high"] - alone["low"])
