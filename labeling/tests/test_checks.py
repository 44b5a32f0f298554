"""Screening, known answers and repeats hidden among tasks, queues, quarantine, decisions on sets in dispute."""

import uuid
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.test import Client
from django.urls import reverse

from labeling.agreement import Agreement
from labeling.checking import draw, has_passed, right_pairs
from labeling.impact import impact
from labeling.models import Answer, CompletionSet, KnownAnswer, Outlook, Participation, Project, Skip, Slot, User
from labeling.models.checks import AGAIN_AFTER
from labeling.tests.rows import approved, demonstrated, many_ranked, ranking, sampled

pytestmark = pytest.mark.django_db
RANKING = Slot.TaskType.RANKING
DEMONSTRATION = Slot.TaskType.DEMONSTRATION


@pytest.fixture
def unchecked(project: Project) -> Project:
    """No demonstrations, and no check unless a test asks for it."""
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0, gold_percent=0, repeat_percent=0)
    project.refresh_from_db()
    return project


def fresh(project: Project, *words: str) -> list[CompletionSet]:
    return [sampled(approved(project, f"Write about {word}.")) for word in words]


def rank_next(project: Project, labeler: User, tiers: list[int], **fields: Any) -> Answer | None:
    slot = Slot.objects.claim_next(project, labeler, RANKING)
    return Answer.objects.submit(slot, labeler, ranking([*tiers], **fields), uuid.uuid4()) if slot else None


def known(project: Project, by: User, judge: User, tiers: list[int], kind: str, count: int = 1) -> list[KnownAnswer]:
    """`count` sets that `judge` has ranked, held to be right."""
    answers = []
    for number in range(count):
        fresh(project, f"matter {number} for {len(kind)}")
        answer = rank_next(project, judge, tiers)
        assert answer
        answers.append(KnownAnswer.objects.declare(answer, kind, by))
    return answers


# --- Pure ------------------------------------------------------------------------------------------------------------


def test_only_pairs_in_an_order_are_checked_and_a_tie_is_not_right() -> None:
    assert right_pairs([1, 2, 2], [1, 2, 3]) == Agreement(2, 2)
    assert right_pairs([1, 2, 3], [1, 1, 2]) == Agreement(2, 3)
    assert right_pairs([1, 2, 3], [3, 2, 1]) == Agreement(0, 3)
    assert right_pairs([1, 2], None) == Agreement(0, 1)


def test_who_shows_nothing_does_not_pass() -> None:
    assert has_passed([Agreement(3, 4)], 75) and not has_passed([Agreement(74, 100)], 75)
    assert not has_passed([], 1)


def test_a_draw_is_even_and_the_same_again() -> None:
    draws = [draw("check", 7, number) for number in range(4000)]
    assert draws[:3] == [draw("check", 7, number) for number in range(3)]
    assert min(draws) >= 0 and max(draws) < 1 and abs(sum(draws) / 4000 - 0.5) < 0.02


# --- Screening -------------------------------------------------------------------------------------------------------


@pytest.fixture
def screened(unchecked: Project, alice: User, carol: User) -> Project:
    """Two known answers of Alice's stand before everybody else's first ranking; a set waits behind them."""
    known(unchecked, carol, alice, [1, 2, 3, 4], "screening", 2)
    fresh(unchecked, "rain")
    unchecked.screening_percent = 75
    unchecked.save()
    Participation.objects.create(project=unchecked, labeler=alice, screening="waived")
    return unchecked


def test_who_passes_the_screening_is_given_the_rest(screened: Project, bob: User) -> None:
    assert Outlook.of(screened, bob).rankings == 2
    for left in (1, 0):
        slot = Slot.objects.claim_next(screened, bob, RANKING)
        assert slot and slot.purpose == "screening"
        Answer.objects.submit(slot, bob, ranking([1, 2, 3, 4]), uuid.uuid4())
        assert Participation.objects.of(screened, bob).screening == ("" if left else "passed")
    slot = Slot.objects.claim_next(screened, bob, RANKING)
    assert slot and slot.purpose == "label"
    assert Answer.objects.trainable().filter(labeler=bob).count() == 0


def test_who_fails_the_screening_is_given_nothing_until_let_in(screened: Project, bob: User) -> None:
    for _ in range(2):
        rank_next(screened, bob, [4, 3, 2, 1])
    assert Slot.objects.claim_next(screened, bob, RANKING) is None
    assert Outlook.of(screened, bob).why_nothing == "not_passed"
    Participation.objects.filter(labeler=bob).update(screening="waived")
    assert Slot.objects.claim_next(screened, bob, RANKING)


def test_demonstrations_wait_for_the_screening_where_the_project_asks_for_that(screened: Project, bob: User) -> None:
    Project.objects.filter(pk=screened.pk).update(demonstration_overlap=1)
    screened.refresh_from_db()
    prompt = approved(screened, "What is a brook?")
    screened.screens_demonstrations = True
    screened.save()
    assert prompt.slots.filter(task_type=DEMONSTRATION).exists()
    assert Slot.objects.claim_next(screened, bob, DEMONSTRATION) is None
    assert Slot.objects.claim_demonstration(prompt, bob) is None
    for _ in range(2):
        rank_next(screened, bob, [1, 2, 3, 4])
    assert Slot.objects.claim_demonstration(prompt, bob)


def test_who_failed_may_write_where_the_project_does_not_mind(screened: Project, bob: User) -> None:
    Project.objects.filter(pk=screened.pk).update(demonstration_overlap=1)
    screened.refresh_from_db()
    prompt = approved(screened, "What is a brook?")
    for _ in range(2):
        rank_next(screened, bob, [4, 3, 2, 1])
    slot = Slot.objects.claim_next(screened, bob)
    assert slot and (slot.prompt, slot.task_type) == (prompt, DEMONSTRATION)


def test_skipping_the_screening_is_not_passing_it(screened: Project, bob: User) -> None:
    for _ in range(2):
        slot = Slot.objects.claim_next(screened, bob, RANKING)
        assert slot
        slot.skip(bob)
    assert Participation.objects.get(labeler=bob).screening == "failed"
    assert Skip.objects.count() == 2


def test_taking_back_the_last_one_opens_the_screening_again(screened: Project, bob: User) -> None:
    rank_next(screened, bob, [4, 3, 2, 1])
    answer = rank_next(screened, bob, [4, 3, 2, 1])
    assert answer and answer.slot and Participation.objects.get(labeler=bob).screening == "failed"
    answer.slot.take_back(bob)
    assert Participation.objects.get(labeler=bob).screening == ""
    held = Slot.objects.claim_next(screened, bob, RANKING)
    assert held and held.pk == answer.slot_id


def test_one_screening_place_is_for_one_labeler(screened: Project, bob: User, carol: User) -> None:
    slot = Slot.objects.claim_next(screened, bob, RANKING)
    assert slot and slot.reserved_for == bob
    dave = User.objects.create_user("dave")
    dave.set_roles(["labeler"])
    screened.members.add(dave)
    Slot.objects.filter(pk=slot.pk).update(lease_until="2020-01-01T00:00:00Z")  # his time ran out
    other = Slot.objects.claim_next(screened, dave, RANKING)
    assert other and other.reserved_for == dave


# --- Known answers and repeats among other tasks ---------------------------------------------------------------------


def test_known_answers_come_as_often_as_asked_and_are_not_learnt(
    unchecked: Project, alice: User, bob: User, carol: User
) -> None:
    known(unchecked, carol, alice, [1, 2, 3, 4], "gold", 2)
    unchecked.gold_percent = 100  # whatever is drawn
    unchecked.save()
    fresh(unchecked, *"abcdefghij")
    purposes = []
    while slot := Slot.objects.claim_next(unchecked, bob, RANKING):
        assert Slot.objects.claim_next(unchecked, bob, RANKING) == slot  # asking again gives no other
        purposes.append(slot.purpose)
        Answer.objects.submit(slot, bob, ranking([1, 2, 4, 3]), uuid.uuid4())
    # Each of them at most once, and before one place at most one.
    assert purposes.count("label") == 10 and purposes.count("gold") == 2
    assert Answer.objects.trainable().filter(labeler=bob).count() == 10
    counts = KnownAnswer.objects.checked(Participation.objects.of(unchecked, bob))
    assert counts == [Agreement(5, 6), Agreement(5, 6)]
    assert not CompletionSet.objects.filter(slots__purpose="gold").exclude(state="closed").exists()


def test_none_comes_where_none_is_asked_for(unchecked: Project, alice: User, bob: User, carol: User) -> None:
    known(unchecked, carol, alice, [1, 2, 3, 4], "gold", 3)
    fresh(unchecked, *"abcdef")
    while rank_next(unchecked, bob, [1, 2, 3, 4]):
        pass
    assert not Slot.objects.exclude(purpose="label").exists()


def test_a_repeat_is_of_what_one_did_long_ago_in_another_order(unchecked: Project, alice: User) -> None:
    many_ranked(unchecked, alice, AGAIN_AFTER + 2)
    Slot.objects.filter(labeler=alice).update(answered_at="2026-01-01T00:00:00Z")
    unchecked.repeat_percent = 100  # whatever is drawn
    unchecked.save()
    fresh(unchecked, *"abcdefgh")
    repeats = []
    while slot := Slot.objects.claim_next(unchecked, alice, RANKING):
        if slot.purpose == "repeat":
            repeats.append(slot)
        Answer.objects.submit(slot, alice, ranking([2, 1, 3, 4]), uuid.uuid4())
    assert repeats and {slot.repeat for slot in repeats} == {1}
    assert len({slot.completion_set_id for slot in repeats}) == len(repeats)
    pairs = Answer.objects.repeats(Participation.objects.of(unchecked, alice))
    assert pairs and all(before != after for before, after in pairs[:1])
    # What was said twice is learnt once.
    assert Answer.objects.trainable().filter(labeler=alice).count() == AGAIN_AFTER + 2 + 8


def test_a_known_answer_orders_something_and_is_one_for_a_set(
    unchecked: Project, alice: User, bob: User, carol: User
) -> None:
    unchecked.ranking_overlap = 2
    unchecked.reconfigure()
    fresh(unchecked, "rain")
    tied, strict = rank_next(unchecked, alice, [1, 1, 1, 1]), rank_next(unchecked, bob, [1, 2, 3, 4])
    assert tied and strict
    with pytest.raises(ValidationError, match="above another"):
        KnownAnswer.objects.declare(tied, "gold", carol)
    with pytest.raises(ValidationError, match="what it is for"):
        KnownAnswer.objects.declare(strict, "silver", carol)
    KnownAnswer.objects.declare(strict, "gold", carol)
    assert KnownAnswer.objects.declare(strict, "screening", carol).kind == "screening"
    tied.amend(alice, ranking([1, 2, 3, 3]), uuid.uuid4(), 1)
    tied.refresh_from_db()
    with pytest.raises(ValidationError, match="Withdraw"):
        KnownAnswer.objects.declare(tied, "gold", carol)


def test_nobody_is_told_which_task_is_a_check(unchecked: Project, alice: User, bob: User, carol: User) -> None:
    known(unchecked, carol, alice, [1, 2, 3, 4], "gold", 1)
    unchecked.gold_percent = 100  # whatever is drawn
    unchecked.save()
    fresh(unchecked, *"abcdefgh")
    client, seen = Client(), []
    client.force_login(bob)
    while slot := Slot.objects.claim_next(unchecked, bob, RANKING):
        seen.append(slot.purpose)
        page = client.get(reverse("task", args=[slot.pk])).content.decode()
        Answer.objects.submit(slot, bob, ranking([1, 2, 3, 4]), uuid.uuid4())
        said = client.get(reverse("answer", args=[slot.answer.pk])).content.decode()
        tasks = client.get(f"/api/tasks/{slot.pk}/").content.decode()
        for text in (page, said, tasks, client.get(reverse("answer_list")).content.decode()):
            assert not any(word in text.lower() for word in ("gold", "known answer", "purpose", "screening"))
    assert "gold" in seen


# --- Queues ----------------------------------------------------------------------------------------------------------


def test_a_labeler_is_given_their_languages_and_tags(unchecked: Project, alice: User, bob: User) -> None:
    unchecked.set_policy("tiny-1", ["en", "ko"])
    english = sampled(approved(unchecked, "Rain?", "en"))
    korean = sampled(approved(unchecked, "비가 오나요?", "ko"))
    tagged = approved(unchecked, "Snow?", "en")
    type(tagged).objects.filter(pk=tagged.pk).update(tags=["weather"])
    snow = sampled(tagged)
    Participation.objects.create(project=unchecked, labeler=alice, languages=["ko"])
    Participation.objects.create(project=unchecked, labeler=bob, tags=["weather", "food"])
    assert Outlook.of(unchecked, alice).rankings == 1 and Outlook.of(unchecked, bob).rankings == 1
    first, other = Slot.objects.claim_next(unchecked, alice, RANKING), Slot.objects.claim_next(unchecked, bob, RANKING)
    assert first and other and (first.completion_set, other.completion_set) == (korean, snow)
    assert english.slots.get().state == "open"


# --- Quarantine ------------------------------------------------------------------------------------------------------


def test_quarantine_takes_out_what_somebody_said_and_lifting_it_puts_all_back(
    unchecked: Project, alice: User, bob: User
) -> None:
    unchecked.demonstration_overlap = 1
    unchecked.save()
    for word in ("a", "b"):
        fresh(unchecked, word)
        rank_next(unchecked, alice, [1, 2, 3, 4])
    demonstrated(unchecked, alice, "Rain falls.")
    participation = Participation.objects.of(unchecked, alice)
    told = {loss.name: (loss.lost, loss.total) for loss in impact(participation).losses}
    assert told["pairs"] == (12, 12) and told["demonstrations"] == (1, 1) and impact(participation).bare_sets == 2
    before = Answer.objects.trainable().count(), Slot.objects.open().filter(task_type=RANKING).count()
    assert before == (2, 0)
    with pytest.raises(ValidationError, match="Say why"):
        participation.quarantine("  ")
    participation.quarantine("Pastes answers.")
    # Others are asked in their stead, and they themselves nothing.
    assert (Answer.objects.trainable().count(), Slot.objects.open().filter(task_type=RANKING).count()) == (0, 2)
    assert Slot.objects.claim_next(unchecked, alice) is None and Outlook.of(unchecked, alice).why_nothing == "paused"
    assert {loss.name: (loss.lost, loss.total) for loss in impact(participation).losses} == told
    assert Answer.objects.standing().count() == 2
    assert rank_next(unchecked, bob, [4, 3, 2, 1])
    participation.lift_quarantine()
    assert Answer.objects.trainable().count() == 3  # what was asked for meanwhile is kept
    assert Slot.objects.open().filter(task_type=RANKING).count() == 0


# --- Decisions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def disputed(unchecked: Project, alice: User, bob: User) -> CompletionSet:
    unchecked.ranking_overlap = 2
    unchecked.reconfigure()
    [chosen] = fresh(unchecked, "rain")
    rank_next(unchecked, alice, [1, 2, 3, 4])
    rank_next(unchecked, bob, [4, 3, 2, 1])
    chosen.refresh_from_db()
    return chosen


def test_a_decision_is_what_models_learn_until_it_is_returned(disputed: CompletionSet, carol: User) -> None:
    place = Slot.objects.claim_adjudication(disputed, carol)
    assert place and place.labeler == carol
    answer = Answer.objects.submit(place, carol, {"tiers": [2, 1, 3, 3]}, uuid.uuid4())
    assert list(Answer.objects.trainable()) == [answer]
    assert Answer.objects.filter(completion_set=disputed).judgements(10) and Answer.objects.independent().count() == 2
    disputed.refresh_from_db()
    assert disputed.state == "closed"
    Slot.objects.filter(pk=place.pk).update(review_state="returned")
    assert Answer.objects.trainable().count() == 2


def test_one_curator_decides_at_a_time(disputed: CompletionSet, alice: User, carol: User) -> None:
    with pytest.raises(PermissionDenied):
        Slot.objects.claim_adjudication(disputed, alice)
    dora = User.objects.create_user("dora")
    dora.set_roles(["curator"])
    disputed.project.members.add(dora)
    place = Slot.objects.claim_adjudication(disputed, carol)
    assert place and Slot.objects.claim_adjudication(disputed, dora) is None
    assert Slot.objects.claim_adjudication(disputed, carol) == place
    Slot.objects.filter(pk=place.pk).update(lease_until="2020-01-01T00:00:00Z")
    taken = Slot.objects.claim_adjudication(disputed, dora)
    assert taken and taken.pk == place.pk and taken.labeler == dora
    assert Slot.objects.filter(purpose="adjudication").count() == 1


def test_the_queue_and_the_set_are_pages_and_the_consensus_can_be_taken(
    disputed: CompletionSet, as_carol: Client, carol: User
) -> None:
    queue = reverse("adjudication", args=[disputed.project.slug])
    assert reverse("set_dispute", args=[disputed.pk]) in as_carol.get(queue).content.decode()
    page = as_carol.get(reverse("set_dispute", args=[disputed.pk])).content.decode()
    assert "Set in dispute: 100" in page and "Rain on the roof tiles" in page
    as_carol.post(reverse("set_adjudicate", args=[disputed.pk]), {"consensus": "1"})
    decision = Answer.objects.decisions().get()
    assert decision.current and decision.current.tiers == [1, 1, 1, 1] and decision.labeler == carol
    assert reverse("answer", args=[decision.pk]) in as_carol.get(queue).content.decode()


def test_a_curator_ranks_a_disputed_set_on_the_task_page(disputed: CompletionSet, as_carol: Client) -> None:
    answer = as_carol.post(reverse("set_adjudicate", args=[disputed.pk]))
    place = Slot.objects.get(purpose="adjudication")
    assert answer["Location"] == reverse("task", args=[place.pk])
    assert as_carol.get(answer["Location"]).status_code == 200
    sent = {"key": str(uuid.uuid4()), "payload": {"tiers": [1, 2, 3, 4]}}
    done = as_carol.post(reverse("task_submit", args=[place.pk]), sent, content_type="application/json")
    assert done.json() == {"next": reverse("adjudication", args=[disputed.project.slug])}
    assert Answer.objects.trainable().get().current.tiers == [1, 2, 3, 4]  # type: ignore[union-attr]


# --- Pages -----------------------------------------------------------------------------------------------------------


def test_the_people_of_a_project_and_what_they_are_given(
    disputed: CompletionSet, as_carol: Client, alice: User
) -> None:
    project = disputed.project
    assert "alice" in as_carol.get(reverse("people", args=[project.slug])).content.decode()
    address = reverse("labeler", args=[project.slug, alice.pk])
    assert "12" in as_carol.get(address).content.decode()
    as_carol.post(address, {"languages": ["ko"], "tags": "Food, weather", "screening": ""})
    stored = Participation.objects.get(labeler=alice)
    assert (stored.languages, stored.tags) == (["ko"], ["food", "weather"])
    quarantine = reverse("labeler_quarantine", args=[project.slug, alice.pk])
    assert "Say why" in as_carol.post(quarantine, {"reason": ""}, follow=True).content.decode()
    assert "in quarantine" in as_carol.post(quarantine, {"reason": "Random."}, follow=True).content.decode()
    as_carol.post(quarantine, {"lift": "1"})
    assert not Participation.objects.get(labeler=alice).is_quarantined


def test_a_curator_makes_a_ranking_a_known_answer(disputed: CompletionSet, as_carol: Client) -> None:
    answer = Answer.objects.independent().order_by("pk")[0]
    as_carol.post(reverse("answer_known", args=[answer.pk]), {"kind": "gold"})
    assert KnownAnswer.objects.get().answer == answer
    assert "Known answer" in as_carol.get(reverse("answer", args=[answer.pk])).content.decode()
    as_carol.post(reverse("answer_known", args=[answer.pk]), {"withdraw": "1"})
    assert not KnownAnswer.objects.exists()
