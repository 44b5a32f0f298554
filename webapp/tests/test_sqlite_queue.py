"""Writers of SQLite wait for their turn, and give it back however they end."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connection, connections, transaction

from labeling.models import User
from webapp.sqlite3 import base

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'sqlite'", reason="says nothing of PostgreSQL"),
]


def test_many_writers_all_get_their_turn() -> None:
    user = User.objects.create(username="eve")

    def add() -> None:
        try:
            for _ in range(10):
                with transaction.atomic():
                    row = User.objects.get(pk=user.pk)
                    User.objects.filter(pk=user.pk).update(first_name=str(int(row.first_name or 0) + 1))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        for job in [pool.submit(add) for _ in range(8)]:
            job.result()
    user.refresh_from_db()
    assert user.first_name == "80"


def in_another_thread(work: object) -> BaseException | None:
    """What `work` in a transaction of another connection raised."""
    raised: list[BaseException | None] = [None]

    def run() -> None:
        try:
            with transaction.atomic():
                work()  # type: ignore[operator]
        except BaseException as error:
            raised[0] = error
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0]


def test_who_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.DatabaseWrapper, "_patience", lambda self: 0.05)
    with transaction.atomic():
        assert isinstance(in_another_thread(lambda: None), OperationalError)
    assert in_another_thread(lambda: None) is None


def test_a_turn_ends_with_an_error_and_with_the_connection() -> None:
    assert isinstance(in_another_thread(lambda: 1 / 0), ZeroDivisionError)
    transaction.set_autocommit(False)
    connection.close()
    assert in_another_thread(lambda: None) is None
