"""Projects that ask which of two is better: what is sampled, what is stored, and what goes out."""

import uuid
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from rest_framework.test import APIClient

from labeling import export, exporting
from labeling.models import Answer, CompletionSet, Export, Project, Revision, Slot, User
from labeling.quality import whole
from labeling.rankings import clean_ranking, preferences
from labeling.tests.rows import approved, ranked, ranking, sampled

TWO = ["Rain on the roof tiles", "Grey sky, quiet street"]


@pytest.fixture
def pairs(project: Project) -> Project:
    project.comparison = Project.Comparison.PAIRS
    project.save()
    return project


def compared(pairs: Project, who: User, tiers: list[int | None], strength: Any, **about: Any) -> Answer:
    """What `who` says of two new completions."""
    return ranked(pairs, who, ranking(tiers, strength=strength), texts=TWO, **about)


def test_two_are_sampled_whatever_the_prompt_asked_for(pairs: Project) -> None:
    prompt = approved(pairs)
    assert prompt.completion_sets.get().k == 2
    prompt.choose_k("7")
    again = prompt.sample_again()
    assert again and again.k == 2
    with pytest.raises(ValueError, match="set of 2"):
        sampled(prompt)  # four of them


def test_sets_that_are_there_already_stay_in_tiers(project: Project, alice: User) -> None:
    sampled(approved(project))
    project.comparison = Project.Comparison.PAIRS
    project.reconfigure()
    slot = Slot.objects.claim_next(project, alice, "ranking")
    assert slot and slot.completion_set and not slot.completion_set.is_pair
    Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    assert Revision.objects.get().strength is None


@pytest.mark.parametrize(
    ("tiers", "strength", "stored"),
    [([1, 2], 3, ([1, 2], 3)), ([2, 1], 1, ([2, 1], 1)), ([2, 2], 0, ([1, 1], 0)), ([1, 1], None, ([1, 1], 0))],
)
def test_what_is_stored(tiers: list[int], strength: int | None, stored: tuple[list[int], int]) -> None:

    said = clean_ranking(ranking(list(tiers), strength=strength), TWO, require_ratings=False, require_strength=True)
    assert (said.tiers, said.strength) == stored


@pytest.mark.parametrize(
    ("tiers", "strength", "words"),
    [
        ([1, 2], None, "how much better"),
        ([1, 2], 0, "only with one"),
        ([1, 1], 2, "only with one"),
        ([1, 2], 4, "from 0"),
        ([1, 2], -1, "from 0"),
        ([1, 2], True, "from 0"),
        ([1, 2], "2", "from 0"),
        ([1, 2], 1.5, "from 0"),
    ],
)
def test_a_strength_that_does_not_fit_is_refused(tiers: list[int], strength: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        clean_ranking(ranking(list(tiers), strength=strength), TWO, require_ratings=False, require_strength=True)


def test_more_than_two_have_no_strength() -> None:
    with pytest.raises(ValidationError, match="these are 3"):
        clean_ranking(ranking([1, 2, 3], strength=1), [*TWO, "Rain"], require_ratings=False)


def test_neither_acceptable_needs_no_answer_and_teaches_nothing(pairs: Project, alice: User) -> None:
    answer = ranked(pairs, alice, {"verdict": "none_acceptable", "tiers": [None, None]}, texts=TWO)
    assert answer.current and (answer.current.tiers, answer.current.strength) == ([], None)
    assert list(export.rankings(pairs)) == []


def test_the_database_holds_no_other_strength(pairs: Project, alice: User) -> None:
    answer = compared(pairs, alice, [1, 2], 3)
    with pytest.raises(IntegrityError):
        Revision.objects.filter(answer=answer).update(strength=4)


def test_the_same_submit_twice_is_one_answer_and_taking_back_keeps_the_strength(pairs: Project, alice: User) -> None:
    sampled(approved(pairs), TWO)
    slot = Slot.objects.claim_next(pairs, alice, "ranking")
    assert slot
    key = uuid.uuid4()
    for _again in range(2):
        Answer.objects.submit(slot, alice, ranking([2, 1], strength=1), key)
    assert Revision.objects.count() == 1
    slot = Slot.objects.get(pk=slot.pk)
    slot.take_back(alice)
    draft = Slot.objects.get(pk=slot.pk).draft
    assert draft and (draft.payload["tiers"], draft.payload["strength"]) == ([2, 1], 1)


def test_changed_by_a_reviewer_it_needs_a_strength_again(pairs: Project, alice: User, carol: User) -> None:
    answer = compared(pairs, alice, [1, 2], 3)
    with pytest.raises(ValidationError, match="how much better"):
        answer.amend(carol, ranking([2, 1]), uuid.uuid4(), 1)
    revision = answer.amend(carol, ranking([2, 1], strength=2), uuid.uuid4(), 1)
    assert (revision.tiers, revision.strength, revision.author) == ([2, 1], 2, carol)


def test_the_answer_in_words(pairs: Project, alice: User) -> None:
    answer = compared(pairs, alice, [1, 2], 3)
    letter = "AB"[answer.current.shown_order.index(0)]  # type: ignore[union-attr]
    assert answer.preference == f"{letter} is much better"
    assert [value for value, _words in preferences("A", "B")] == [-3, -2, -1, 0, 1, 2, 3]
    assert [words for _value, words in preferences("A", "B")][2:5] == [
        "A is slightly better",
        "A and B are about the same",
        "B is slightly better",
    ]


def test_strength_as_margin(pairs: Project, alice: User) -> None:
    compared(pairs, alice, [2, 1], 3)
    compared(pairs, alice, [1, 1], 0, text="Write a haiku about snow.")
    dropped = [row for label in exporting.labels(Export(project=pairs, margin="strength")) for row in label]
    assert [(row["chosen_index"], row["margin"], row["strength"]) for row in dropped] == [(1, 3.0, 3)]
    kept = Export(project=pairs, margin="strength", ties="keep")
    rows = [row for label in exporting.labels(kept) for row in label]
    assert [(row["tie"], row["margin"]) for row in rows] == [(False, 3.0), (True, 0.0)]
    told = [row for label in exporting.labels(Export(project=pairs, kind="rankings")) for row in label]
    assert [(row["tiers"], row["strength"]) for row in told] == [([2, 1], 3), ([1, 1], 0)]


def test_snapshots_and_quality_have_them(pairs: Project, alice: User, bob: User) -> None:
    pairs.ranking_overlap = 2
    pairs.reconfigure()
    compared(pairs, alice, [2, 1], 3)
    slot = Slot.objects.claim_next(pairs, bob, "ranking")
    assert slot
    Answer.objects.submit(slot, bob, ranking([2, 1], strength=1), uuid.uuid4())
    assert [(row["tiers"], row["strength"], len(row["completions"])) for row in export.rankings(pairs)] == [
        ([2, 1], 3, 2),
        ([2, 1], 1, 2),
    ]
    assert export.collected()[pairs.pk] == {"rankings": 2, "pairs": 2}
    figures = whole(Answer.objects.all().judgements(100))
    assert (figures.agreement.rate, figures.agreement.pairs) == (1.0, 1)


def test_over_the_api(pairs: Project, alice: User) -> None:
    sampled(approved(pairs), TWO)
    client = APIClient()
    client.force_authenticate(alice)
    task = client.post("/api/tasks/next/", {"project": pairs.pk, "task_type": "ranking"}, format="json").json()
    assert len(task["completions"]) == 2
    address, payload = f"/api/tasks/{task['id']}/ranking/", {"key": str(uuid.uuid4()), **ranking([2, 1])}
    refused = client.post(address, payload, format="json")
    assert refused.status_code == 400 and "how much better" in refused.content.decode()
    assert client.post(address, payload | {"strength": 7}, format="json").status_code == 400
    made = client.post(address, payload | {"strength": 2}, format="json")
    assert made.status_code == 201, made.content
    assert (made.json()["revision"]["tiers"], made.json()["revision"]["strength"]) == ([2, 1], 2)
    assert client.get(f"/api/projects/{pairs.pk}/").json()["comparison"] == "pairs"


def test_a_curator_chooses_it(as_carol: Any, project: Project) -> None:
    page = as_carol.get(f"/projects/{project.slug}/settings/").content.decode()
    assert "two side by side" in page
    form = {"name": project.name, "languages": ["en", "ko"], "comparison": "pairs", "k": 4, "ranking_overlap": 1}
    form |= {
        "demonstration_overlap": 1,
        "gold_percent": 5,
        "repeat_percent": 2,
        "temperature": 1,
        "top_p": 0.95,
        "max_new_tokens": 64,
        "control_share": 15,
    }
    members = {"members": list(project.members.values_list("pk", flat=True))}
    assert as_carol.post(f"/projects/{project.slug}/settings/", form | members).status_code == 302
    project.refresh_from_db()
    assert project.comparison == Project.Comparison.PAIRS
    assert CompletionSet.objects.count() == 0
