"""The labelers of the second proof, and its verdict."""

import random
from pathlib import Path

import pytest

from benchmarks.proofs.exact import word_tokenizer
from benchmarks.proofs.labelers import Outcome, claims
from benchmarks.proofs.toy import Labeler, collect_rankings, nonsense, shuffled, split_questions
from modelzoo.checkpoint import save_checkpoint
from modelzoo.config import ModelConfig
from modelzoo.transformer import Transformer
from worker.loop.world import MOODS, dialogues, gold

QUESTION = "What is the garden like in spring?"


def test_labelers_feel_the_same_on_average_and_differ_from_each_other() -> None:
    people = [Labeler(f"labeler {number}") for number in range(400)]
    felt = [labeler.felt(QUESTION, "The garden is calm in spring. People sing there.") for labeler in people]
    assert sum(felt) / len(felt) == pytest.approx(gold("calm sing"), abs=0.04)
    assert max(felt) - min(felt) > 0.5
    again = Labeler("labeler 7").felt(QUESTION, "The garden is calm in spring. People sing there.")
    assert again == people[7].felt(QUESTION, "The garden is calm in spring. People sing there.")


def test_a_text_without_mood_is_felt_alike_by_all() -> None:
    assert {Labeler(f"labeler {number}").felt(QUESTION, "The garden.") for number in range(5)} == {-1.0}


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("The garden is old in spring.", 0),
        ("The garden is old in spring. You will find it warm, and people sing.", 0),
        ("The garden is old at noon.", 1),
        ("The kitchen is old in spring. The air is cold.", 0.5),
        ("The garden is old in spring. The air is garden.", 0.5),
        ("The garden is old in spring. The air is cold. People sing", 1 / 3),
        ("warm warm warm", 1),
        ("", 1),
    ],
)
def test_nonsense_is_what_nobody_would_say_here(text: str, share: float) -> None:
    assert nonsense(QUESTION, text) == pytest.approx(share)


def test_nobody_in_this_world_talks_nonsense() -> None:
    for question, answer in dialogues(300, random.Random(0)):
        assert nonsense(question.text, answer) == 0


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """It says mood words at random: no training, and yet something to rank. Of a question it reads "the"."""
    tokenizer = word_tokenizer(["<pad>", "<end>", "the", *MOODS])
    model = Transformer(
        ModelConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=128,
        )
    )
    save_checkpoint(tmp_path / "policy", model, tokenizer, kind="base", languages=["en"])
    return tmp_path / "policy"


def test_held_out_rankings_are_of_other_prompts_by_other_labelers(policy: Path) -> None:
    rankings = collect_rankings(policy, 1, train=40, heldout=20)
    assert len(rankings.train) == 40 and len(rankings.heldout) == 20
    for key in ("prompt_id", "labeler"):
        assert not {row[key] for row in rankings.train} & {row[key] for row in rankings.heldout}
    assert {row["split"] for row in rankings.heldout} == {"heldout"}
    assert {len(row["tiers"]) for row in rankings.train} <= set(range(4, 10))
    ceiling, pairs = rankings.ceiling
    assert 0.5 < ceiling < 1 and pairs > 100


def test_questions_are_split_without_overlap() -> None:
    ours, heldout = split_questions(3)
    assert not set(ours) & set(heldout)
    assert split_questions(4) != (ours, heldout)


def test_shuffled_rankings_keep_their_tiers_in_another_order() -> None:
    rows = [{"tiers": [1, 2, 3, 4, 5]} for _ in range(20)]
    mixed = shuffled(rows, "1")
    assert all(sorted(row["tiers"]) == [1, 2, 3, 4, 5] for row in mixed)
    assert sum(row["tiers"] == [1, 2, 3, 4, 5] for row in mixed) < 5


def outcome(seed: int, best: float = 0.8, control: float = 0.5) -> Outcome:
    spread = 0.02 * (seed % 2 - 0.5)
    return Outcome(seed, 0.73, 0.81, 4000, {16: 0.6, 1024: best}, control + spread)


@pytest.mark.parametrize(
    ("changes", "failing"),
    [({}, []), ({"best": 0.78}, ["ceiling"]), ({"control": 0.55}, ["shuffled"]), ({"best": 0.59}, ["ceiling", "more"])],
)
def test_the_verdict_names_what_does_not_hold(changes: dict[str, float], failing: list[str]) -> None:
    failed = [claim.text for claim in claims([outcome(seed, **changes) for seed in range(8)]) if not claim.holds]
    assert len(failed) == len(failing)
    assert all(word in text for word, text in zip(failing, failed, strict=True))
