"""Rows for training, in the shape of docs/files.md."""

import uuid

import pytest

from labeling import export
from labeling.models import Answer, Demonstration, Project, Prompt, Slot, User
from labeling.tests.rows import ANSWERS, HAIKU, approved, ranking, sampled


def imported(project: Project, text: str) -> Prompt:
    prompt = Prompt.objects.add(project, [{"role": "user", "content": text}], language="en")
    Demonstration.objects.import_all([(prompt, "Rain again.")], "seed tasks")
    return prompt


def next_of(project: Project, labeler: User, task_type: str) -> Slot:
    slot = Slot.objects.claim_next(project, labeler, task_type)
    assert slot
    return slot


def test_ranking_row_has_the_documented_shape(project: Project, alice: User) -> None:
    prompt = approved(project)
    sampled(prompt, cut=(1,))
    slot = next_of(project, alice, Slot.TaskType.RANKING)
    answer = Answer.objects.submit(slot, alice, ranking([2, 1, 2, 3]), uuid.uuid4())
    [row] = export.rankings(project)
    assert row == {
        "id": f"rev-{answer.current.pk}",  # type: ignore[union-attr]
        "split": prompt.split,
        "prompt_id": str(prompt.pk),
        "language": "en",
        "messages": [{"role": "user", "content": HAIKU}],
        "completions": ANSWERS,
        "finish_reasons": ["stop", "length", "stop", "stop"],
        "models": ["tiny-1"] * 4,
        "tiers": [2, 1, 2, 3],
        "strength": None,
        "ratings": [{"overall": 4, "flags": [], "note": ""}] * 4,
        "labeler": export.pseudonym(alice.pk),
        "source": "",
        "instruction_version": None,
        "arm": answer.completion_set.arm,
    }


def test_demonstration_row_has_the_documented_shape(project: Project, alice: User) -> None:
    prompt = approved(project)
    slot = next_of(project, alice, Slot.TaskType.DEMONSTRATION)
    demonstration = Demonstration.objects.submit(slot, alice, {"text": "Rain falls."}, uuid.uuid4())
    [row] = export.demonstrations(project)
    assert row == {
        "id": f"demo-{demonstration.pk}-{demonstration.revisions.get().pk}",
        "split": prompt.split,
        "prompt_id": str(prompt.pk),
        "language": "en",
        "messages": [{"role": "user", "content": HAIKU}],
        "completion": "Rain falls.",
        "origin": "labeler",
        "labeler": export.pseudonym(alice.pk),
        "source": "",
        "instruction_version": None,
    }


def test_pseudonyms_tell_people_apart_and_hide_their_names(alice: User, bob: User) -> None:
    assert export.pseudonym(alice.pk) != export.pseudonym(bob.pk)
    assert "alice" not in export.pseudonym(alice.pk)
    assert export.pseudonym(alice.pk) == export.pseudonym(alice.pk)


def test_drafts_are_never_exported(project: Project, alice: User) -> None:
    sampled(approved(project))
    next_of(project, alice, Slot.TaskType.RANKING).save_draft(alice, ranking([1, 2, 3, 4]))
    assert list(export.rankings(project)) == []


def test_what_was_said_about_a_retired_prompt_stays(project: Project, alice: User) -> None:
    prompt = approved(project)
    sampled(prompt)
    Answer.objects.submit(next_of(project, alice, Slot.TaskType.RANKING), alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    prompt.retire()
    assert len(list(export.rankings(project))) == 1
    assert list(export.prompts(project)) == []


@pytest.mark.parametrize("state", [Prompt.State.DRAFT, Prompt.State.IN_REVIEW])
def test_import_counts_only_once_its_prompt_is_approved(project: Project, carol: User, state: str) -> None:
    prompt = imported(project, "Write another haiku.")
    Prompt.objects.filter(pk=prompt.pk).update(state=state)
    assert list(export.demonstrations(project)) == []
    prompt.approve(carol)
    [row] = export.demonstrations(project)
    assert (row["origin"], row["labeler"], row["source"]) == ("imported", None, "seed tasks")


def test_import_thrown_away_unread_is_not_trained_on(project: Project, carol: User) -> None:
    unread, read = imported(project, "My phone number is 555-0101."), imported(project, "Write another haiku.")
    unread.retire()
    read.approve(carol)
    read.retire()
    assert [row["prompt_id"] for row in export.demonstrations(project)] == [str(read.pk)]


def test_other_projects_do_not_leak_in(project: Project, alice: User) -> None:
    sampled(approved(project))
    Answer.objects.submit(next_of(project, alice, Slot.TaskType.RANKING), alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    other = Project.objects.create(name="Other", slug="other", languages=["en"])
    assert list(export.rankings(other)) == []
