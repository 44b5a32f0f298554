"""Many labelers at once, on real connections: nobody gets a piece twice, nothing is stored twice."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from django.db import connection, connections, transaction

from conftest import person
from labeling.models import Answer, CompletionSet, Demonstration, Project, Role, Slot, StaleAssignment, User
from labeling.tests.rows import approved, ranking, sampled

pytestmark = pytest.mark.django_db(transaction=True)
CROWD = 20


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    """Run `jobs` in threads that start together; what each returned or raised."""
    gate = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        try:
            gate.wait()
            return job()
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


@pytest.fixture
def crowd(project: Project) -> Iterator[list[User]]:
    people = [person(f"labeler-{n}", Role.LABELER) for n in range(CROWD)]
    project.members.add(*people)
    yield people


def only_rankings(project: Project, overlap: int = 1) -> None:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0, ranking_overlap=overlap)
    project.refresh_from_db()


@pytest.mark.parametrize("overlap", [1, 3])
def test_a_crowd_gets_one_set_as_often_as_asked_for(project: Project, crowd: list[User], overlap: int) -> None:
    only_rankings(project, overlap)
    sampled(approved(project))
    got = at_once([lambda labeler=labeler: Slot.objects.claim_next(project, labeler) for labeler in crowd])
    assert [slot for slot in got if isinstance(slot, Exception)] == []
    won = [slot for slot in got if slot]
    assert len(won) == overlap
    assert len({slot.pk for slot in won}) == overlap


def test_everyone_in_a_crowd_gets_a_piece_where_there_are_enough(project: Project, crowd: list[User]) -> None:
    only_rankings(project)
    for n in range(CROWD):
        sampled(approved(project, f"Write a haiku about the number {n}."))
    got = at_once([lambda labeler=labeler: Slot.objects.claim_next(project, labeler) for labeler in crowd])
    assert len({slot.pk for slot in got}) == CROWD


@pytest.fixture
def locking() -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("this database has one writer at a time")


def test_a_place_that_somebody_is_taking_is_passed_over_without_waiting(
    project: Project, crowd: list[User], locking: None
) -> None:
    only_rankings(project)
    first, second = (sampled(approved(project, f"Write a haiku about the number {n}.")) for n in range(2))
    with transaction.atomic():
        taken = Slot.objects.claim_next(project, crowd[0])
        (other,) = at_once([lambda: Slot.objects.claim_next(project, crowd[1])])
    assert [taken.completion_set, other.completion_set] == [first, second]


def test_the_last_place_is_waited_for_where_who_has_locked_it_may_let_go(
    project: Project, crowd: list[User], locking: None
) -> None:
    only_rankings(project)
    sampled(approved(project))
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Slot.objects.claim_next(project, crowd[0])
            waiting = pool.submit(at_once, [lambda: Slot.objects.claim_next(project, crowd[1])])
            assert not wait([waiting], timeout=1).done
            transaction.set_rollback(True)
        (got,) = waiting.result()
    assert got.labeler == crowd[1]


def test_tabs_of_one_labeler_share_one_task(project: Project, alice: User) -> None:
    only_rankings(project, overlap=3)
    for n in range(6):
        sampled(approved(project, f"Write a haiku about the number {n}."))
    got = at_once([lambda: Slot.objects.claim_next(project, alice)] * 8)
    assert len({slot.pk for slot in got}) == 1
    assert Slot.objects.held_by(alice).count() == 1


def test_the_same_submit_sent_twice_at_once_is_stored_once(project: Project, alice: User) -> None:
    only_rankings(project)
    sampled(approved(project))
    slot = Slot.objects.claim_next(project, alice)
    assert slot
    key = uuid.uuid4()

    def submit() -> Answer:
        return Answer.objects.submit(Slot.objects.get(pk=slot.pk), alice, ranking([1, 2, 3, 4]), key)

    got = at_once([submit] * 6)
    assert len({answer.pk for answer in got}) == 1
    assert Answer.objects.get().revisions.count() == 1


def test_two_tabs_that_submit_at_once_store_one_answer(project: Project, alice: User) -> None:
    only_rankings(project)
    sampled(approved(project))
    slot = Slot.objects.claim_next(project, alice)
    assert slot
    got = at_once(
        [
            lambda tiers=tiers: Answer.objects.submit(Slot.objects.get(pk=slot.pk), alice, ranking(tiers), uuid.uuid4())
            for tiers in ([1, 2, 3, 4], [4, 3, 2, 1])
        ]
    )
    assert [type(result) for result in got if isinstance(result, Exception)] == [StaleAssignment]
    assert Answer.objects.count() == 1


def test_the_same_demonstration_sent_twice_at_once_is_stored_once(project: Project, alice: User) -> None:
    approved(project)
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.DEMONSTRATION)
    assert slot
    key = uuid.uuid4()

    def submit() -> Demonstration:
        return Demonstration.objects.submit(Slot.objects.get(pk=slot.pk), alice, {"text": "Rain falls."}, key)

    assert len({row.pk for row in at_once([submit] * 6)}) == 1


def test_set_closes_when_its_last_places_are_filled_at_once(project: Project, crowd: list[User]) -> None:
    only_rankings(project, overlap=CROWD)
    completion_set = sampled(approved(project))
    slots = [Slot.objects.claim_next(project, labeler) for labeler in crowd]

    def submit(slot: Slot | None, labeler: User) -> Answer:
        assert slot
        return Answer.objects.submit(slot, labeler, ranking([1, 2, 3, 4]), uuid.uuid4())

    got = at_once([lambda s=s, who=who: submit(s, who) for s, who in zip(slots, crowd, strict=True)])
    assert [error for error in got if isinstance(error, Exception)] == []
    completion_set.refresh_from_db()
    assert completion_set.state == CompletionSet.State.CLOSED


def test_skip_and_claim_at_once_leave_one_holder(project: Project, crowd: list[User], alice: User) -> None:
    only_rankings(project)
    sampled(approved(project))
    held = Slot.objects.claim_next(project, alice)
    assert held
    at_once([lambda: held.skip(alice), *(lambda who=who: Slot.objects.claim_next(project, who) for who in crowd)])
    slot = Slot.objects.get()
    assert slot.labeler != alice
    assert (slot.state == Slot.State.LEASED) == (slot.labeler is not None)


def test_retiring_while_a_crowd_asks_leaves_no_open_place(project: Project, crowd: list[User]) -> None:
    only_rankings(project, overlap=CROWD)
    prompt = approved(project)
    sampled(prompt)
    got = at_once([prompt.retire, *(lambda who=who: Slot.objects.claim_next(project, who) for who in crowd)])
    assert [error for error in got if isinstance(error, Exception)] == []
    assert Slot.objects.open().count() == 0
    for slot in (slot for slot in got if slot):
        assert Slot.objects.get(pk=slot.pk).labeler == slot.labeler


def test_overlap_changed_while_people_submit_strands_nobody(project: Project, crowd: list[User]) -> None:
    only_rankings(project, overlap=CROWD)
    sampled(approved(project))
    half = crowd[: CROWD // 2]
    slots = [Slot.objects.claim_next(project, labeler) for labeler in half]
    Project.objects.filter(pk=project.pk).update(ranking_overlap=1)

    def submit(slot: Slot | None, labeler: User) -> Answer:
        assert slot
        return Answer.objects.submit(slot, labeler, ranking([1, 2, 3, 4]), uuid.uuid4())

    got = at_once(
        [
            lambda: Slot.objects.match_overlap(project),
            *(lambda s=s, who=who: submit(s, who) for s, who in zip(slots, half, strict=True)),
        ]
    )
    assert [error for error in got if isinstance(error, Exception)] == []
    assert CompletionSet.objects.get().state == CompletionSet.State.CLOSED
    assert Answer.objects.count() == len(half)
