"""Who sees the ops console, and that every page of it can be shown."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import URLPattern, reverse

from labeling.models import Project, User
from rlhf.models import Promotion, Schedule
from rlhf.tests.conftest import carried_out

ROWS = {"datasetsnapshot", "modelversion", "promotion", "schedule", "trainingrun"}
WRITES = {"verify", "archive", "unarchive", "cancel", "resume"}  # POST only


def patterns() -> Iterator[URLPattern]:
    """Every named URL of every rlhf model in the admin."""
    for model, model_admin in admin.site._registry.items():
        if model._meta.app_label == "rlhf":
            yield from (pattern for pattern in model_admin.get_urls() if pattern.name)


def verb(pattern: URLPattern) -> str:
    return str(pattern.name).split("_", 2)[2]


@pytest.fixture
def address(project: Project, start: Any, oscar: User) -> Any:
    """The address of a pattern, for a row that is there."""
    run = start()
    carried_out(run)
    schedule = Schedule.objects.create(project=project, every_rankings=5, by=oscar)
    rows = {
        "datasetsnapshot": run.snapshot,
        "modelversion": run.policy,
        "promotion": Promotion.objects.get(),
        "schedule": schedule,
        "trainingrun": run,
    }

    def of(pattern: URLPattern) -> str:
        row = rows[str(pattern.name).split("_")[1]]
        values = {"pk": row.pk, "object_id": row.pk, "stage": "ppo", "project_id": project.pk, "name": "manifest.json"}
        if pattern.pattern.converters:
            values["object_id"] = str(row.pk)
        names = pattern.pattern.converters
        return reverse(f"admin:{pattern.name}", kwargs={name: values[name] for name in names})

    return of


def test_every_model_of_the_registry_has_pages() -> None:
    assert {str(pattern.name).split("_")[1] for pattern in patterns()} == ROWS


def test_every_page_is_shown_to_ops(ops: Client, address: Any) -> None:
    closed = {"add", "delete"}  # rows come from verbs, and stay
    for pattern in patterns():
        answer = ops.get(address(pattern))
        model = str(pattern.name).split("_")[1]
        if verb(pattern) in WRITES:
            assert answer.status_code == 405, pattern.name
        elif verb(pattern) in closed and model != "schedule":
            assert answer.status_code == 403, pattern.name
        else:
            assert answer.status_code == 200, pattern.name


def test_every_page_is_shown_to_admins(client: Client, ada: User, address: Any) -> None:
    client.force_login(ada)
    for pattern in patterns():
        if verb(pattern) in ("changelist", "change", "start", "retrain", "freeze"):
            assert client.get(address(pattern)).status_code == 200, pattern.name


@pytest.mark.parametrize("name", ["alice", "carol"])
def test_labelers_and_curators_see_nothing_of_the_registry(
    client: Client, request: pytest.FixtureRequest, address: Any, name: str
) -> None:
    client.force_login(request.getfixturevalue(name))
    for pattern in patterns():
        for answer in (client.get(address(pattern)), client.post(address(pattern))):
            assert answer.status_code == 302, pattern.name
            assert answer.headers["Location"].startswith(reverse("admin:login"))


def test_curator_whom_someone_made_staff_still_sees_nothing(client: Client, carol: User, address: Any) -> None:
    User.objects.filter(pk=carol.pk).update(is_staff=True)
    client.force_login(carol)
    for pattern in patterns():
        for answer in (client.get(address(pattern)), client.post(address(pattern))):
            assert answer.status_code == 403, pattern.name
    index = client.get(reverse("admin:index"))
    assert b"tiny-base" not in index.content
    assert b"/admin/rlhf/" not in index.content


def test_strangers_are_asked_to_log_in(client: Client, address: Any) -> None:
    for pattern in patterns():
        assert client.get(address(pattern)).status_code == 302, pattern.name


def test_pages_carry_no_inline_script_or_style(ops: Client, address: Any) -> None:
    for pattern in patterns():
        if verb(pattern) in WRITES | {"file", "live"}:
            continue
        text = ops.get(address(pattern)).content.decode(errors="replace")
        assert "<style" not in text, pattern.name
        assert " style=" not in text, pattern.name
        assert " onclick=" not in text, pattern.name
        for script in text.split("<script")[1:]:
            assert " src=" in script.split(">")[0] or "application/json" in script.split(">")[0], pattern.name
