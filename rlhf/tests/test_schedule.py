"""Schedules: when a project is retrained by itself, and when not."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from labeling.models import Project, User
from rlhf.models import ModelVersion, Schedule, TrainingRun

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def made(project: Project, at: datetime = MONDAY, **fields: Any) -> Schedule:
    """A schedule that was made at `at`."""
    schedule = Schedule.objects.create(project=project, **fields)
    Schedule.objects.filter(pk=schedule.pk).update(counts_from=at)
    schedule.refresh_from_db()
    return schedule


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


# --- By number -------------------------------------------------------------------------------------------------------


def test_starts_after_every_n_new_rankings(project: Project, rank: Any) -> None:
    rank(2)
    schedule = Schedule.objects.create(project=project, every_rankings=3)
    rank(2)
    assert not schedule.run_if_due()  # four in all, two of them new
    rank(1)
    assert schedule.run_if_due()
    assert TrainingRun.objects.filter(schedule=schedule).count() == 2
    assert not schedule.is_due(timezone.now())
    assert schedule.new_rankings() == 0


def test_switched_off_starts_nothing(project: Project, rank: Any) -> None:
    Schedule.objects.create(project=project, every_rankings=1, enabled=False)
    rank(2)
    assert Schedule.objects.run_due() == 0


def test_parameters_of_the_schedule_are_those_of_the_runs(project: Project, rank: Any) -> None:
    schedule = Schedule.objects.create(
        project=project, every_rankings=1, reward_params={"epochs": 2}, ppo_params={"kl_coef": 0.1}
    )
    rank()
    schedule.run_if_due()
    params = dict(schedule.runs.values_list("stage", "params"))
    assert params == {"reward": {"epochs": 2}, "ppo": {"kl_coef": 0.1}}


# --- By the clock ----------------------------------------------------------------------------------------------------


def test_set_time_comes_due_once(project: Project, rank: Any) -> None:
    rank()
    schedule = made(project, cron="0 3 * * 1", at=at(5, 2))
    assert not schedule.run_if_due(at(5, 2, 59))
    assert schedule.run_if_due(at(5, 3, 0))
    TrainingRun.objects.first().request_cancel()
    TrainingRun.objects.last().request_cancel()
    assert not schedule.run_if_due(at(5, 3, 1))
    assert not schedule.run_if_due(at(12, 2, 59))
    assert schedule.run_if_due(at(12, 3, 0))


def test_time_that_passed_while_the_site_was_down_is_made_up_for_once(project: Project, rank: Any) -> None:
    rank()
    schedule = made(project, cron="0 3 * * *", at=at(5, 4))
    assert schedule.run_if_due(at(9, 12))  # four times were missed
    assert not schedule.is_due(at(9, 13))
    assert schedule.is_due(at(10, 3))


def test_new_schedule_does_not_start_for_a_time_that_has_passed(project: Project) -> None:
    schedule = made(project, cron="0 3 * * *", at=at(5, 3, 1))
    assert not schedule.is_due(at(5, 23, 59))
    assert schedule.is_due(at(6, 3))


def test_switching_on_again_does_not_start_for_times_in_between(project: Project) -> None:
    schedule = made(project, cron="* * * * *", enabled=False)
    assert schedule.is_due(timezone.now())
    schedule.enabled = True
    schedule.save()
    assert not schedule.is_due(schedule.counts_from)
    assert schedule.is_due(schedule.counts_from + timedelta(minutes=1))


def test_another_time_counts_from_the_change(project: Project) -> None:
    schedule = made(project, cron="0 3 1 1 *", at=datetime(2020, 2, 1, tzinfo=UTC))
    schedule.cron = "* * * * *"
    schedule.save()
    assert not schedule.is_due(schedule.counts_from)


def test_times_are_those_of_the_sites_clock(project: Project, settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Seoul"
    timezone.get_default_timezone.cache_clear()
    try:
        schedule = made(project, cron="0 3 * * *", at=at(5, 4))
        assert not schedule.is_due(at(5, 17, 59))
        assert schedule.is_due(at(5, 18, 0))  # 3:00 of the 6th in Seoul
        assert schedule.next_due(at(5, 12)) == datetime(2026, 1, 6, 3, tzinfo=ZoneInfo("Asia/Seoul"))
    finally:
        del settings.TIME_ZONE
        timezone.get_default_timezone.cache_clear()


@pytest.mark.parametrize(
    ("cron", "since", "due"),
    [
        ("*/15 * * * *", at(5, 10, 7), at(5, 10, 15)),
        ("0 3 * * 1", at(5, 3, 1), at(12, 3)),
        ("30 22 * * mon-fri", at(9, 23), at(12, 22, 30)),
        ("0 0 1 * *", at(5, 0), datetime(2026, 2, 1, tzinfo=UTC)),
        ("0 12 29 2 *", at(5, 0), datetime(2028, 2, 29, 12, tzinfo=UTC)),
    ],
)
def test_next_time_is_when_it_comes_due(project: Project, cron: str, since: datetime, due: datetime) -> None:
    schedule = made(project, cron=cron, at=since)
    assert schedule.next_due(since) == due
    assert not schedule.is_due(due - timedelta(seconds=1))
    assert schedule.is_due(due)


@pytest.mark.parametrize(
    "cron",
    [
        "tomorrow",
        "0 3 * *",
        "0 3 * * * *",
        "60 * * * *",
        "0 24 * * *",
        "0 0 31 2 *",
        "*/0 * * * *",
        "a b c d e",
        "- - - - -",
    ],
)
def test_unreadable_time_is_refused_in_words(project: Project, cron: str) -> None:
    schedule = Schedule(project=project, cron=cron)
    with pytest.raises(ValidationError) as refused:
        schedule.full_clean()
    assert set(refused.value.message_dict) == {"cron"}


def test_schedule_without_a_rule_is_refused(project: Project) -> None:
    with pytest.raises(ValidationError) as refused:
        Schedule(project=project).full_clean()
    assert set(refused.value.message_dict) == {"every_rankings"}


def test_zero_rankings_are_refused(project: Project) -> None:
    with pytest.raises(ValidationError, match="at least one"):
        Schedule(project=project, every_rankings=0).full_clean()


# --- Refusals --------------------------------------------------------------------------------------------------------


def test_refusal_is_kept_and_tried_again(project: Project, policy: ModelVersion, oscar: User, rank: Any) -> None:
    rank(2)
    first, _ppo = TrainingRun.objects.retrain(project, oscar, policy=policy)
    schedule = Schedule.objects.create(project=project, every_rankings=1)
    rank(1)
    assert not schedule.run_if_due()
    schedule.refresh_from_db()
    assert "under way" in schedule.last_error
    first.request_cancel()
    assert schedule.run_if_due()
    schedule.refresh_from_db()
    assert schedule.last_error == ""


def test_project_without_policy_says_so(alice: User) -> None:
    bare = Project.objects.create(name="Bare", slug="bare", languages=["en"])
    schedule = made(bare, cron="* * * * *")
    assert not schedule.run_if_due()
    schedule.refresh_from_db()
    assert "no policy yet" in schedule.last_error


def test_two_beats_at_once_start_one_retraining(project: Project, rank: Any) -> None:
    schedule = Schedule.objects.create(project=project, every_rankings=1)
    rank()
    twin = Schedule.objects.get(pk=schedule.pk)
    assert schedule.run_if_due()
    assert twin.run_if_due()  # it saw the same moment, and finds what the other started
    assert TrainingRun.objects.count() == 2
