"""Schedules in the console."""

from typing import Any

import pytest
from django.test import Client

from labeling.models import Project
from rlhf.models import Schedule
from rlhf.tests.console import defaults, url


def schedule_form(of: Project, **changes: Any) -> dict[str, Any]:
    sent = {"project": of.pk, "every_rankings": 50, "cron": "", "enabled": "on"}
    return {**defaults("reward", "reward-"), **defaults("ppo", "ppo-"), **sent, **changes}


def test_schedule_is_made_and_changed_with_its_parameters(ops: Client, project: Project) -> None:
    ops.post(url("schedule_add"), schedule_form(project, **{"ppo-kl_coef": 0.2}))
    schedule = Schedule.objects.get()
    assert (schedule.every_rankings, schedule.ppo_params, schedule.by.username) == (50, {"kl_coef": 0.2}, "oscar")
    shown = ops.get(url("schedule_change", schedule.pk)).context["adminform"].form
    assert shown["ppo-kl_coef"].value() == 0.2
    ops.post(url("schedule_change", schedule.pk), schedule_form(project, cron="0 3 * * 1"))
    schedule.refresh_from_db()
    assert (schedule.cron, schedule.ppo_params) == ("0 3 * * 1", {})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cron": "soon"}, "cron"),
        ({"every_rankings": "", "cron": ""}, "every_rankings"),
        ({"every_rankings": "-3"}, "every_rankings"),
        ({"reward-epochs": "0"}, "reward-epochs"),
        ({"ppo-minibatch_size": "7"}, "ppo-minibatch_size"),
        ({"project": ""}, "project"),
    ],
)
def test_schedule_form_refuses_beside_the_field(
    ops: Client, project: Project, changes: dict[str, str], named: str
) -> None:
    answer = ops.post(url("schedule_add"), schedule_form(project, **changes))
    assert answer.status_code == 200
    assert set(answer.context["adminform"].form.errors) == {named}
    assert not Schedule.objects.exists()


def test_schedule_page_says_how_far_it_is_and_what_went_wrong(ops: Client, project: Project, rank: Any) -> None:
    schedule = Schedule.objects.create(project=project, every_rankings=5, cron="0 3 * * 1")
    rank(2)
    Schedule.objects.filter(pk=schedule.pk).update(last_error="The project has no policy yet.")
    page = ops.get(url("schedule_change", schedule.pk)).content.decode()
    assert "2 of 5" in page
    assert "3 a.m. (UTC)" in page
    assert "The project has no policy yet." in page
