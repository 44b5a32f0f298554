"""The first page of the console: true numbers, links that lead to rows, and no query for each row."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from labeling.models import Project, User
from rlhf import liveness
from rlhf.dashboard import overviews
from rlhf.models import DatasetSnapshot, ModelVersion, Promotion, Schedule, TrainingRun
from rlhf.tests.world import model_version
from worker.tests.broker import no_broker

__all__ = ["no_broker"]  # a fixture


def test_numbers_are_those_of_the_project(project: Project, oscar: User, snapshot: DatasetSnapshot, rank: Any) -> None:
    other = Project.objects.create(name="Aardvarks", slug="aardvarks", languages=["en"])
    rank(2)
    first, second = overviews(oscar)
    assert first.project == other
    assert not any(first.collected.values())
    assert (second.collected["rankings"], second.collected["pairs"]) == (5, 25)
    assert (second.fresh["rankings"], second.fresh["pairs"]) == (2, 10)
    assert second.promotion.version.name == "tiny-base"
    assert second.snapshot == snapshot


def test_schedule_counts_what_came_since_it_was_made(project: Project, oscar: User, rank: Any) -> None:
    rank(1)
    schedule = Schedule.objects.create(project=project, every_rankings=10)
    rank(3)
    [overview] = overviews(oscar)
    assert overview.schedules == [(schedule, 3)]


def test_every_link_of_the_dashboard_leads_somewhere(ops: Client, project: Project, start: Any, rank: Any) -> None:
    start()
    Schedule.objects.create(project=project, every_rankings=10)
    page = ops.get(reverse("admin:index")).content.decode()
    console = page[page.index('<section class="ops"') : page.index("</section>")]
    links = {link.replace("&amp;", "&") for link in re.findall(r'href="([^"]+)"', console)}
    assert len(links) > 10
    for link in links:
        answer = ops.get(link)
        assert answer.status_code == 200, link  # a filter that the list does not know is sent elsewhere


def test_away_workers_are_named_with_what_to_do(ops: Client, project: Project, no_broker: None) -> None:
    page = ops.get(reverse("admin:rlhf_trainingrun_workers")).content.decode()
    for word in ("Broker: away", "Sampler: away", "Trainer: away", "make run"):
        assert word in page


def test_busy_trainer_counts_as_there(start: Any) -> None:
    assert not liveness.look().trainer
    TrainingRun.objects.claim(start().pk)
    assert liveness.look().trainer


LISTS = ["datasetsnapshot", "modelversion", "promotion", "schedule", "trainingrun"]


@pytest.mark.parametrize("model", [*LISTS, "index"])
def test_lists_ask_no_more_of_the_database_when_they_grow(
    ops: Client, project: Project, oscar: User, start: Any, rank: Any, model: str
) -> None:
    address = reverse("admin:index") if model == "index" else reverse(f"admin:rlhf_{model}_changelist")

    def grow(number: int) -> None:
        rank()
        start("sft", policy=ModelVersion.objects.first())
        DatasetSnapshot.objects.freeze(project, oscar)
        Promotion.objects.promote(project, model_version(f"tiny-{number}"), oscar)
        Schedule.objects.create(project=project, every_rankings=3)

    grow(1)
    ops.get(address)
    with CaptureQueriesContext(
        connection,
    ) as few:
        ops.get(address)
    for number in range(2, 6):
        grow(number)
    with CaptureQueriesContext(connection) as many:
        ops.get(address)
    assert len(many) <= len(few), "\n".join(query["sql"] for query in many.captured_queries)
