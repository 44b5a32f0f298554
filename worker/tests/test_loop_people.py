"""The people of the loop work through the same doors as everybody else."""

import random
from pathlib import Path
from typing import Any

import pytest

from labeling.models import Answer, Completion, CompletionSet, Demonstration, Prompt, Slot
from rlhf.models import DatasetSnapshot
from worker.loop.people import People
from worker.loop.scale import QUICK
from worker.loop.world import QUESTIONS, reply


@pytest.fixture
def people(db: None) -> People:
    people = People(3, QUICK, random.Random(3))
    people.approve_prompts(40)
    return people


@pytest.fixture
def sampled(people: People) -> People:
    """Each prompt has a set of the world's own answers."""
    chance = random.Random(4)
    for prompt in people.project.prompts.order_by("pk"):
        chosen = CompletionSet.objects.create(
            **{"project": people.project, "prompt": prompt, "k": 4, "policy_name": "p", "state": "ready"},
            **{"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 40},
        )
        for index in range(4):
            text = reply(QUESTIONS[prompt.text], chance)
            fields: dict[str, Any] = {"model_name": "p", "logprob_sum": -1.0, "token_count": 9, "finish_reason": "stop"}
            Completion.objects.create(completion_set=chosen, index=index, text=text, **fields)
        Slot.objects.open_places(chosen)
    return people


def test_every_prompt_gets_a_demonstration(people: People) -> None:
    assert people.demonstrate() == 40
    assert Demonstration.objects.values("prompt").distinct().count() == 40
    assert Demonstration.objects.values("author").distinct().count() == len(people.labelers)


def test_every_set_is_ranked_by_two_different_labelers(sampled: People) -> None:
    labels = sampled.rank()
    assert labels.rankings == 80 == Answer.objects.count()
    for chosen in CompletionSet.objects.all():
        assert chosen.state == CompletionSet.State.CLOSED
        assert chosen.answers.values("labeler").distinct().count() == 2
    assert 0.6 < labels.agreement < 0.85
    assert labels.agreement < labels.ceiling < 1


def test_the_same_seed_holds_out_the_same_prompts(people: People) -> None:
    texts = set(people.project.prompts.filter(split=Prompt.Split.HELDOUT).values_list("searchable", flat=True))
    again = People(4, QUICK, random.Random(3))
    again.approve_prompts(40)
    assert texts == set(again.project.prompts.filter(split=Prompt.Split.HELDOUT).values_list("searchable", flat=True))


def test_shuffling_revises_training_rankings_and_leaves_held_out_ones(
    sampled: People, settings: Any, tmp_path: Path
) -> None:
    settings.DATA_DIR = tmp_path
    sampled.rank()
    before = DatasetSnapshot.objects.freeze(sampled.project, sampled.ops)
    sampled.shuffle_rankings()
    after = DatasetSnapshot.objects.freeze(sampled.project, sampled.ops)
    old, new = ((snapshot.path / "rankings.jsonl").read_text().splitlines() for snapshot in (before, after))
    heldout = [line for line in old if '"split": "heldout"' in line]
    assert heldout and heldout == [line for line in new if '"split": "heldout"' in line]
    assert sum(a != b for a, b in zip(old, new, strict=True)) == len(old) - len(heldout)
    for answer in Answer.objects.filter(completion_set__prompt__split=Prompt.Split.TRAIN):
        first, second = answer.revisions.order_by("number")
        assert sorted(first.tiers) == sorted(second.tiers)
        assert answer.current == second
