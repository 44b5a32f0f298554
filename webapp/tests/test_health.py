"""What those who watch the site are told."""

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.db.utils import OperationalError
from django.test import Client

from webapp import health
from worker.tests.broker import no_broker

__all__ = ["no_broker"]  # a fixture


def test_the_process_says_that_it_is_alive_without_the_database(client: Client) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"ok")


def test_without_a_broker_the_site_is_degraded_but_ready(site: SimpleNamespace, no_broker: None) -> None:
    answer = Client().get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert answer.json()["broker"] == "away"
    assert answer.json()["policies"] == {"projects": 2, "without_policy": 0}


def test_workers_are_reported_when_asked_for(site: SimpleNamespace, no_broker: None) -> None:
    assert Client().get("/readyz?workers").json()["workers"] == {"sampler": False, "trainer": False}


def test_nothing_about_people_or_models_is_told(site: SimpleNamespace, no_broker: None) -> None:
    text = Client().get("/readyz").content.decode()
    for secret in ("tiny-base", "Ours", "lena"):
        assert secret not in text


def test_without_the_database_the_site_is_not_ready(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("the server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(connection, "cursor", away)
        answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "down", "database": "away"}


def test_with_a_migration_missing_the_site_is_not_ready(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_migrated", False)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'rlhf'")
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert "migrations to apply" in answer.json()["database"]
