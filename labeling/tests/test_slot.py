"""Giving out work: who gets what, and never twice."""

import uuid
from datetime import timedelta

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import connection
from django.db.models import Count
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from labeling.models import (
    Answer,
    CompletionSet,
    Demonstration,
    DraftConflict,
    Project,
    Skip,
    Slot,
    StaleAssignment,
    User,
)
from labeling.tests.rows import HAIKU, approved, ranked, ranking, sampled

RANKING, DEMONSTRATION = Slot.TaskType.RANKING, Slot.TaskType.DEMONSTRATION


@pytest.fixture
def completion_set(project: Project) -> CompletionSet:
    """One set to rank, and nothing else to do."""
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0)
    project.refresh_from_db()
    return sampled(approved(project))


def next_of(project: Project, labeler: User, task_type: str | None = None) -> Slot:
    slot = Slot.objects.claim_next(project, labeler, task_type)
    assert slot
    return slot


def let_lease_run_out(slot: Slot) -> None:
    Slot.objects.filter(pk=slot.pk).update(lease_until=Now() - timedelta(seconds=1))


def test_nobody_else_gets_a_leased_piece(
    project: Project, completion_set: CompletionSet, alice: User, bob: User
) -> None:
    assert next_of(project, alice).completion_set == completion_set
    assert Slot.objects.claim_next(project, bob) is None


def test_next_task_returns_to_the_one_at_hand(project: Project, completion_set: CompletionSet, alice: User) -> None:
    first = next_of(project, alice)
    assert next_of(project, alice) == first


def test_rankings_come_before_demonstrations(project: Project, alice: User) -> None:
    sampled(approved(project))
    assert next_of(project, alice).task_type == RANKING
    assert next_of(project, alice, DEMONSTRATION).task_type == DEMONSTRATION


def test_prompt_beyond_the_policys_languages_is_demonstrated(project: Project, alice: User) -> None:
    approved(project, "비에 대한 시를 써 주세요.", "ko")
    slot = next_of(project, alice)
    assert slot.task_type == DEMONSTRATION
    assert not slot.policy_speaks_language


def test_stranger_is_given_nothing(project: Project, completion_set: CompletionSet, charlie: User) -> None:
    with pytest.raises(PermissionDenied):
        Slot.objects.claim_next(project, charlie)


def test_curator_is_given_nothing(project: Project, completion_set: CompletionSet, carol: User) -> None:
    with pytest.raises(PermissionDenied):
        Slot.objects.claim_next(project, carol)


def test_expired_lease_goes_to_the_next_one(
    project: Project, completion_set: CompletionSet, alice: User, bob: User
) -> None:
    slot = next_of(project, alice)
    let_lease_run_out(slot)
    assert next_of(project, bob).pk == slot.pk
    with pytest.raises(StaleAssignment, match="no longer yours"):
        Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())


def test_expired_lease_that_nobody_took_still_stands(
    project: Project, completion_set: CompletionSet, alice: User
) -> None:
    slot = next_of(project, alice)
    let_lease_run_out(slot)
    slot.save_draft(alice, {"tiers": [1, None, None, None]})
    slot.refresh_from_db()
    assert slot.lease_until and slot.labeler == alice
    Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())


def test_overlap_of_two_means_two_different_labelers(
    project: Project, completion_set: CompletionSet, alice: User, bob: User
) -> None:
    Project.objects.filter(pk=project.pk).update(ranking_overlap=2)
    Slot.objects.match_overlap(project)
    Answer.objects.submit(next_of(project, alice), alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    assert Slot.objects.claim_next(project, alice) is None
    Answer.objects.submit(next_of(project, bob), bob, ranking([2, 1, 3, 4]), uuid.uuid4())
    completion_set.refresh_from_db()
    assert completion_set.state == CompletionSet.State.CLOSED


def test_raised_overlap_reopens_closed_sets(
    project: Project, completion_set: CompletionSet, alice: User, bob: User
) -> None:
    Answer.objects.submit(next_of(project, alice), alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    assert Slot.objects.claim_next(project, bob) is None
    Project.objects.filter(pk=project.pk).update(ranking_overlap=2)
    Slot.objects.match_overlap(project)
    assert next_of(project, bob).completion_set == completion_set


def test_lowered_overlap_takes_back_only_what_nobody_holds(project: Project, alice: User, bob: User) -> None:
    Project.objects.filter(pk=project.pk).update(ranking_overlap=3, demonstration_overlap=0)
    project.refresh_from_db()
    completion_set = sampled(approved(project))
    held = [next_of(project, alice), next_of(project, bob)]
    Project.objects.filter(pk=project.pk).update(ranking_overlap=1)
    Slot.objects.match_overlap(project)
    assert set(completion_set.slots.all()) == set(held)
    for slot, labeler in zip(held, (alice, bob), strict=True):
        Answer.objects.submit(slot, labeler, ranking([1, 2, 3, 4]), uuid.uuid4())
    completion_set.refresh_from_db()
    assert completion_set.state == CompletionSet.State.CLOSED


def test_skipped_piece_never_comes_back(
    project: Project, completion_set: CompletionSet, alice: User, bob: User
) -> None:
    next_of(project, alice).skip(alice, "I do not know this field. \x00")
    assert Slot.objects.claim_next(project, alice) is None
    assert next_of(project, bob).completion_set == completion_set
    assert Skip.objects.get().labeler == alice


def test_skip_of_somebody_elses_task_is_refused(
    project: Project, completion_set: CompletionSet, alice: User, bob: User
) -> None:
    slot = next_of(project, alice)
    with pytest.raises(StaleAssignment):
        slot.skip(bob)
    assert Slot.objects.get(pk=slot.pk).labeler == alice


def test_retired_prompt_is_offered_to_nobody_but_kept_by_its_labeler(
    project: Project, completion_set: CompletionSet, alice: User, bob: User
) -> None:
    slot = next_of(project, alice)
    completion_set.prompt.retire()
    let_lease_run_out(slot)
    assert Slot.objects.claim_next(project, bob) is None
    Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())


def test_former_member_can_hand_in_nothing(project: Project, completion_set: CompletionSet, alice: User) -> None:
    slot = next_of(project, alice)
    project.members.remove(alice)
    with pytest.raises(StaleAssignment, match="no longer a member"):
        slot.save_draft(alice, {})
    with pytest.raises(StaleAssignment, match="no longer a member"):
        Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())


def test_new_policy_withdraws_sets_that_nobody_began(
    project: Project, completion_set: CompletionSet, alice: User
) -> None:
    project.set_policy("tiny-2", ["en"])
    assert Slot.objects.claim_next(project, alice) is None
    sampled(completion_set.prompt)
    held = next_of(project, alice)
    assert held.completion_set and held.completion_set.policy_name == "tiny-2"


def test_prompts_that_a_new_policy_cannot_answer_are_demonstrated(project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0)
    project.refresh_from_db()
    prompt = approved(project)
    assert Slot.objects.claim_next(project, alice) is None
    project.set_policy("tiny-ko", ["ko"])
    slot = next_of(project, alice)
    assert (slot.task_type, slot.prompt) == (DEMONSTRATION, prompt)


def test_answered_piece_says_so_to_the_second_tab(project: Project, completion_set: CompletionSet, alice: User) -> None:
    slot = next_of(project, alice)
    other_tab = Slot.objects.get(pk=slot.pk)
    Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    with pytest.raises(StaleAssignment, match="already") as refused:
        Answer.objects.submit(other_tab, alice, ranking([4, 3, 2, 1]), uuid.uuid4())
    assert refused.value.is_answered
    assert Answer.objects.get().current.tiers == [1, 2, 3, 4]


def test_each_labeler_sees_an_order_of_their_own(project: Project, alice: User, bob: User) -> None:
    Project.objects.filter(pk=project.pk).update(ranking_overlap=2, k=9)
    project.refresh_from_db()
    sampled(approved(project), [f"answer {n}" for n in range(9)])
    hers, his = next_of(project, alice), next_of(project, bob)
    assert hers.shown_order != his.shown_order
    assert [completion.index for completion in hers.shown_completions] == hers.shown_order
    assert sorted(hers.shown_order) == list(range(9))


# --- Drafts ---------------------------------------------------------------------------------------------------------
def test_draft_is_there_on_return(project: Project, completion_set: CompletionSet, alice: User) -> None:
    next_of(project, alice).save_draft(alice, {"note": "first"})
    draft = next_of(project, alice).draft
    assert draft and draft.payload == {"note": "first"} and draft.version == 1


def test_draft_of_another_tab_is_not_overwritten(project: Project, completion_set: CompletionSet, alice: User) -> None:
    slot = next_of(project, alice)
    slot.save_draft(alice, {"note": "here"}, version=0)
    slot.save_draft(alice, {"note": "here, longer"}, version=1)
    with pytest.raises(DraftConflict) as refused:
        slot.save_draft(alice, {"note": "the other tab"}, version=1)
    assert refused.value.draft.payload == {"note": "here, longer"}
    assert slot.save_draft(alice, {"note": "the other tab"}).version == 3


def test_draft_sent_twice_is_no_conflict(project: Project, completion_set: CompletionSet, alice: User) -> None:
    slot = next_of(project, alice)
    assert slot.save_draft(alice, {"note": "once"}, version=0).version == 1
    assert slot.save_draft(alice, {"note": "once"}, version=0).version == 1


def test_tab_does_not_conflict_with_itself(project: Project, completion_set: CompletionSet, alice: User) -> None:
    slot = next_of(project, alice)
    slot.save_draft(alice, {"note": "before the reload", "tab": "1"}, version=0)
    assert slot.save_draft(alice, {"note": "after it", "tab": "1"}, version=0).version == 2
    with pytest.raises(DraftConflict):
        slot.save_draft(alice, {"note": "another", "tab": "2"}, version=0)


def test_draft_outlives_a_lost_lease(project: Project, completion_set: CompletionSet, alice: User, bob: User) -> None:
    slot = next_of(project, alice)
    slot.save_draft(alice, {"note": "half done"})
    let_lease_run_out(slot)
    next_of(project, bob).skip(bob)
    back = next_of(project, alice).draft
    assert back and back.payload == {"note": "half done"}


def test_drafts_go_with_the_answer(project: Project, completion_set: CompletionSet, alice: User) -> None:
    slot = next_of(project, alice)
    slot.save_draft(alice, {"note": "half done"})
    Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    assert slot.drafts.count() == 0


@pytest.mark.parametrize("payload", [None, [], "text", {"text": "a\x00"}, {"text": "\ud800"}, {"n": float("nan")}])
def test_draft_that_cannot_be_stored_is_refused(
    project: Project, completion_set: CompletionSet, alice: User, payload: object
) -> None:
    with pytest.raises(ValidationError):
        next_of(project, alice).save_draft(alice, payload)


def test_endless_draft_is_refused(project: Project, completion_set: CompletionSet, alice: User) -> None:
    with pytest.raises(ValidationError, match="too long"):
        next_of(project, alice).save_draft(alice, {"text": "x" * 200_001})


def test_demonstration_slot_takes_no_ranking(project: Project, alice: User) -> None:
    approved(project, HAIKU)
    slot = next_of(project, alice, DEMONSTRATION)
    with pytest.raises(ValidationError, match="demonstration"):
        Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    Demonstration.objects.submit(slot, alice, {"text": "Rain falls."}, uuid.uuid4())


def test_overlap_of_many_sets_is_matched_in_few_queries(project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0)

    def asked(overlap: int) -> int:
        Project.objects.filter(pk=project.pk).update(ranking_overlap=overlap)
        with CaptureQueriesContext(connection) as queries:
            Slot.objects.match_overlap(project)
        return len(queries)

    for number in range(3):
        ranked(project, alice, ranking([1, 2, 3, 4]), f"{HAIKU} {number}")
    few = asked(2)
    assert project.completion_sets.filter(state=CompletionSet.State.READY).count() == 3, "all are open again"
    asked(1)
    for number in range(3, 15):
        ranked(project, alice, ranking([1, 2, 3, 4]), f"{HAIKU} {number}")
    assert asked(2) == few
    assert project.completion_sets.filter(state=CompletionSet.State.READY).count() == 15
    assert set(project.completion_sets.annotate(places=Count("slots")).values_list("places", flat=True)) == {2}
