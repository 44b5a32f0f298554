"""Where the tests' messages go."""

from collections.abc import Iterator

import kombu.pools
import pytest

from worker import jobs
from worker.celery import app


def use_broker(url: str) -> None:
    """Talk to the broker at `url` from now on, over new connections."""
    app.conf.broker_url = app.conf.broker_read_url = app.conf.broker_write_url = url
    kombu.pools.reset()
    app._pool = None
    app.amqp._producer_pool = None
    jobs._silent_until = 0.0


@pytest.fixture
def no_broker() -> Iterator[None]:
    """A broker address where nobody listens."""
    before = app.conf.broker_url
    use_broker("redis://127.0.0.1:1/0")
    yield
    use_broker(before)
