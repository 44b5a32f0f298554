"""What rankings say of their labelers."""

import random
import uuid
from datetime import date
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from labeling import quality
from labeling.models import Answer, Project, Slot, User
from labeling.quality import Judgement
from labeling.templatetags import figures
from labeling.tests.rows import ANSWERS, approved, many_ranked, ranking, sampled


def judged(set_id: int, labeler: str, tiers: list[int], **changes: Any) -> Judgement:
    k = len(tiers)
    row: dict[str, Any] = {
        "shown_order": list(range(k)),
        "lengths": [10 * (index + 1) for index in range(k)],
        "seconds": 20.0,
        "day": date(2026, 11, 18),
        "language": "en",
        "tags": [],
    }
    return Judgement(set_id=set_id, labeler=labeler, tiers=tiers, **(row | changes))


def test_agreement_counts_what_both_put_in_an_order() -> None:
    rows = [judged(1, "a", [1, 2, 3]), judged(1, "b", [1, 3, 2]), judged(2, "a", [1, 1, 2]), judged(2, "b", [2, 1, 3])]
    whole = quality.whole(rows)
    assert (whole.agreement.pairs, whole.agreement.sets) == (5, 2)
    assert whole.agreement.rate == 4 / 5  # set 1: two of three alike; set 2: both alike, the pair that a ties is out
    assert whole.agreement_with_ties.rate == 4 / 6
    assert whole.tau == pytest.approx((1 / 3 + 2 / 6**0.5) / 2)


def test_one_labeler_alone_agrees_with_nobody() -> None:
    whole = quality.whole([judged(1, "a", [1, 2, 3])])
    assert (whole.agreement.rate, whole.alpha, whole.tau, whole.w) == (None, None, None, None)


def test_a_labeler_is_held_against_each_other_one() -> None:
    rows = [judged(1, "a", [1, 2]), judged(1, "b", [1, 2]), judged(1, "c", [2, 1]), judged(2, "a", [1, 2])]
    assert quality.with_others(rows, "a").rate == 1 / 2
    assert quality.with_others(rows, "c").rate == 0
    by_name = {row.name: row for row in quality.labelers(rows)}
    assert by_name["a"].agreement == quality.with_others(rows, "a")
    assert by_name["a"].rankings == 2
    pairs = quality.labeler_pairs(rows)
    assert {pair: figure.rate for pair, figure in pairs.items()} == {("a", "b"): 1, ("a", "c"): 0, ("b", "c"): 0}


def test_habits_show() -> None:
    chance = random.Random(5)
    rows = []
    for number in range(60):
        shown = chance.sample(range(4), 4)
        lazy = [shown.index(index) + 1 for index in range(4)]
        careful = chance.sample([1, 2, 3, 4], 4)
        rows += [judged(number, "lazy", lazy, shown_order=shown), judged(number, "careful", careful, shown_order=shown)]
        rows.append(judged(number, "long", [4, 3, 2, 1], shown_order=shown))
    by_name = {row.name: row for row in quality.labelers(rows)}
    lazy_row, careful_row, long_row = by_name["lazy"], by_name["careful"], by_name["long"]
    assert (lazy_row.first_shown.rate, lazy_row.untouched) == (1.0, 1.0)
    assert careful_row.first_shown.interval and careful_row.longer.interval
    assert careful_row.first_shown.interval[0] < 0.5 < careful_row.first_shown.interval[1]
    assert careful_row.longer.interval[0] < 0.5 < careful_row.longer.interval[1]
    assert careful_row.untouched < 0.2
    assert long_row.longer.rate == 1.0 and long_row.untouched < 0.2


def test_the_most_disputed_sets_come_first() -> None:
    rows = [
        *(judged(1, name, [1, 2, 3]) for name in "ab"),
        *(judged(2, name, tiers) for name, tiers in (("a", [1, 2, 3]), ("b", [3, 2, 1]))),
        *(judged(3, name, tiers) for name, tiers in (("a", [1, 2, 3]), ("b", [1, 3, 2]))),
        judged(4, "a", [3, 2, 1]),
    ]
    assert quality.disputed(rows, 5) == [(2, 1.0), (3, pytest.approx(1 / 3))]
    assert quality.disputed(rows, 1) == [(2, 1.0)]


def test_ties_time_and_speed() -> None:
    [row] = quality.labelers([judged(1, "a", [1, 1, 2]), judged(2, "a", [1, 1, 1], seconds=0)])
    assert row.tied == pytest.approx(4 / 6)
    assert row.seconds == 20
    assert row.characters_per_second == 60 / 20
    assert row.first_shown.pairs == 2


def test_groups_may_overlap_and_weeks_begin_on_monday() -> None:
    rows = [
        judged(1, "a", [1, 2], tags=["x", "y"]),
        judged(1, "b", [1, 2], tags=["x", "y"]),
        judged(2, "a", [1, 2], tags=["x"]),
        judged(2, "b", [2, 1], tags=["x"]),
    ]
    by_tag = quality.by_group(rows, lambda each: each.tags)
    assert {tag: figure.rate for tag, figure in by_tag.items()} == {"x": 1 / 2, "y": 1}
    assert quality.week(rows[0]) == [date(2026, 11, 16)]


def rank(project: Project, labeler: User, tiers: list[int | None]) -> Answer:
    slot = Slot.objects.claim_next(project, labeler, Slot.TaskType.RANKING)
    assert slot
    return Answer.objects.submit(slot, labeler, ranking(tiers), uuid.uuid4())


@pytest.fixture
def shared(project: Project) -> Project:
    Project.objects.filter(pk=project.pk).update(ranking_overlap=2)
    project.refresh_from_db()
    return project


def test_rows_are_read_as_they_were_said(shared: Project, alice: User, bob: User) -> None:
    completion_set = sampled(approved(shared))
    rank(shared, alice, [1, 2, 3, 4])
    rank(shared, bob, [4, 3, 2, 1])
    rows = {row.labeler: row for row in Answer.objects.filter(completion_set=completion_set).judgements(10)}
    assert rows["alice"].tiers == [1, 2, 3, 4] and rows["bob"].tiers == [4, 3, 2, 1]
    assert rows["alice"].lengths == [len(text) for text in ANSWERS]
    assert rows["alice"].shown_order == Slot.objects.get(labeler=alice).shown_order
    assert (rows["bob"].seconds, rows["bob"].language) == (12.5, "en")
    assert len(Answer.objects.all().judgements(1)) == 1


def test_pages_show_it_to_curators_and_ones_own_to_labelers(
    shared: Project, alice: User, bob: User, carol: User
) -> None:
    client = Client()
    client.force_login(carol)
    address = f"/projects/{shared.slug}/quality/"
    assert "No rankings yet." in client.get(address).content.decode()
    sampled(approved(shared))
    rank(shared, alice, [1, 2, 3, 4])
    assert "raise the overlap" in client.get(address).content.decode()
    rank(shared, bob, [1, 2, 4, 3])
    page = client.get(address).content.decode()
    assert "83.3%" in page and "alice" in page and "bob" in page
    client.force_login(alice)
    own = client.get("/your-work/").content.decode()
    assert "83.3%" in own and "bob" not in own
    assert "0:00:12" in own


def test_queries_do_not_grow_with_rankings(shared: Project, alice: User, bob: User, carol: User) -> None:
    client = Client()
    client.force_login(carol)
    counts = []
    for number in range(4):
        sampled(approved(shared, f"Name {number} rivers."))
        rank(shared, alice, [1, 2, 3, 4])
        rank(shared, bob, [1, 2, 4, 3])
        with CaptureQueriesContext(connection) as seen:
            client.get(f"/projects/{shared.slug}/quality/")
        counts.append(len(seen))
    assert len(set(counts)) == 1


def test_rows_cost_two_queries_however_many(
    project: Project, alice: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    many_ranked(project, alice, 1100)
    with django_assert_num_queries(2):
        assert len(Answer.objects.judgements(10)) == 10
    with django_assert_num_queries(2):
        rows = Answer.objects.judgements(1050)
    assert len({row.set_id for row in rows}) == 1050
    assert {len(row.lengths) for row in rows} == {4}


def test_figures_are_rounded_and_not_cut() -> None:
    assert (figures.percent(0.7266), figures.percent(0.05 / 1.0000001), figures.percent(None)) == ("72.7%", "5.0%", "–")
    assert (figures.number(0.999), figures.number(-0.126)) == ("1.00", "-0.13")
