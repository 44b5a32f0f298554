"""Webhooks to a real receiver: signed, tried again, never to where they should not go."""

import base64
import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from labeling.models import (
    Answer,
    Delivery,
    Demonstration,
    Export,
    Project,
    Review,
    Role,
    Slot,
    User,
    Webhook,
)
from labeling.models.webhook import EVENTS, MOST_FAILURES, WAITS, clean_url
from labeling.tests.rows import approved, ranking, sampled
from worker import exporting, posting
from worker.delivering import deliver
from worker.posting import Refused, is_public, post

pytestmark = pytest.mark.django_db(transaction=True)


class Receiver(ThreadingHTTPServer):
    """Keeps what it was sent and answers as the test wants."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status, self.headers, self.body, self.pause = 200, {}, b"ok", 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?x=1"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({key.lower(): value for key, value in self.headers.items()}, body))
        if self.server.pause:
            time.sleep(self.server.pause)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOKS_TO_LOCALHOST = True
    server = Receiver()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def alice(db: None) -> User:
    alice = User.objects.create_user("alice")
    alice.set_roles([Role.LABELER])
    return alice


@pytest.fixture
def webhook(project: Project, alice: User, curator: User, receiver: Receiver) -> Webhook:
    project.members.add(alice, curator)
    return Webhook.objects.create(project=project, url=receiver.url, events=list(EVENTS))


def fresh(delivery: Delivery) -> Delivery:
    return Delivery.objects.get(pk=delivery.pk)


def send(webhook: Webhook, event: str = "test") -> Delivery:
    made = webhook.deliver(event, {})
    deliver(made.pk)
    return fresh(made)


def again(delivery: Delivery) -> Delivery:
    """The next attempt, without the wait."""
    Delivery.objects.filter(pk=delivery.pk).update(not_before=timezone.now() - timedelta(seconds=1))
    deliver(delivery.pk)
    return fresh(delivery)


def verify(secret: str, headers: dict[str, str], body: bytes) -> None:
    """The snippet of docs/labeling.md, as a receiver would run it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    if not any(hmac.compare_digest(expected, given) for given in headers["webhook-signature"].split()):
        raise ValueError("not from our site")
    if abs(time.time() - int(headers["webhook-timestamp"])) > 300:
        raise ValueError("too old")


def test_a_delivery_arrives_signed(webhook: Webhook, receiver: Receiver) -> None:
    sent = send(webhook)
    assert (sent.state, sent.status, sent.response, sent.attempts) == ("succeeded", 200, "ok", 1)
    headers, body = receiver.got[0]
    verify(webhook.secret, headers, body)
    told = json.loads(body)
    assert headers["webhook-id"] == told["id"] and (told["type"], told["project"]) == ("test", webhook.project.slug)
    with pytest.raises(ValueError, match="not from our site"):
        verify(webhook.secret, headers, body + b" ")


def test_a_new_secret_is_signed_with_beside_the_old_one_for_a_day(webhook: Webhook, receiver: Receiver) -> None:
    old = webhook.secret
    webhook.rotate()
    send(webhook)
    Webhook.objects.update(rotated_at=timezone.now() - timedelta(hours=25))
    send(webhook)
    for secret in (old, webhook.secret):
        verify(secret, *receiver.got[0])
    verify(webhook.secret, *receiver.got[1])
    with pytest.raises(ValueError):
        verify(old, *receiver.got[1])


def told(receiver: Receiver) -> list[dict[str, Any]]:
    """Send everything that waits, and read what came."""
    for row in Delivery.objects.order_by("pk"):
        deliver(row.pk)
    return [json.loads(body) for _headers, body in receiver.got]


def test_labels_are_told_of_under_pseudonyms(
    webhook: Webhook, receiver: Receiver, project: Project, alice: User, curator: User
) -> None:
    sampled(approved(project, by=curator))
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
    assert slot
    answer = Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4], note="a secret"), uuid.uuid4())
    answer = Answer.objects.get(pk=answer.pk)
    answer.amend(alice, ranking([2, 1, 3, 4]), uuid.uuid4(), 1)
    slot = Slot.objects.get(pk=slot.pk)
    Review.objects.add(slot, curator, "returned", "Look again.")
    Review.objects.add(slot, curator, "accepted")
    demo = Slot.objects.claim_next(project, alice, Slot.TaskType.DEMONSTRATION)
    assert demo
    Demonstration.objects.submit(demo, alice, {"text": "An answer."}, uuid.uuid4())
    Slot.objects.get(pk=demo.pk).take_back(alice)
    project.set_policy("tiny-2", ["en"])
    events = told(receiver)
    assert [event["type"] for event in events] == [
        *("set.finished", "answer.submitted", "answer.changed", "review.returned", "review.accepted"),
        *("demonstration.submitted", "demonstration.taken_back", "policy.promoted"),
    ]
    assert events[1]["data"] | {"labeler": ""} == {
        **{"answer": answer.pk, "set": answer.completion_set_id, "prompt": slot.prompt_id},
        **{"labeler": "", "revision": 1, "verdict": "ranked"},
    }
    assert len({event["id"] for event in events}) == 8
    everything = json.dumps(events)
    assert "alice" not in everything and "secret" not in everything and "labeler-" in everything


def test_a_file_that_is_ready_is_told_of(
    webhook: Webhook, receiver: Receiver, project: Project, curator: User, settings: Any, data_dir: Any
) -> None:
    settings.MEDIA_ROOT = data_dir
    export = Export.objects.start(project, curator)
    exporting.export(export.pk)
    assert [event["type"] for event in told(receiver)] == ["export.finished"]


def test_what_is_rolled_back_is_not_told(webhook: Webhook, project: Project) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        project.webhooks.tell("policy.promoted", policy="x")
        raise ZeroDivisionError
    assert not Delivery.objects.exists()


def test_only_chosen_events_of_webhooks_that_are_on(webhook: Webhook, project: Project) -> None:
    Webhook.objects.update(events=["set.finished"])
    project.webhooks.tell("policy.promoted")
    Webhook.objects.update(events=["policy.promoted"], is_active=False)
    project.webhooks.tell("policy.promoted")
    assert not Delivery.objects.exists()


def test_a_failed_attempt_is_made_again_later_with_the_same_id(webhook: Webhook, receiver: Receiver) -> None:
    receiver.status = 500
    sent = send(webhook)
    assert (sent.state, sent.status, sent.error) == ("queued", 500, "The receiver answered 500.")
    deliver(sent.pk)
    assert len(receiver.got) == 1  # not before its time
    receiver.status = 204
    sent = again(sent)
    assert (sent.state, sent.attempts, sent.error) == ("succeeded", 2, "")
    assert len({headers["webhook-id"] for headers, _body in receiver.got}) == 1 and len(receiver.got) == 2
    assert Webhook.objects.get().failures == 0


def test_what_went_wrong_is_said_in_the_language_of_who_set_it_up(
    webhook: Webhook, receiver: Receiver, alice: User
) -> None:
    User.objects.filter(pk=alice.pk).update(language="ko")
    Webhook.objects.update(by=alice)
    receiver.status = 500
    assert send(webhook).error == "받는 쪽이 500로 응답했습니다."
    Webhook.objects.update(url="http://127.0.0.1:9/hook")
    assert send(webhook).error.startswith("받는 쪽에 연결할 수 없습니다")


def test_after_the_last_attempt_it_has_failed_and_can_be_sent_again(webhook: Webhook, receiver: Receiver) -> None:
    receiver.status = 503
    sent = send(webhook)
    for _attempt in WAITS:
        sent = again(sent)
    assert (sent.state, sent.attempts, len(receiver.got)) == ("failed", len(WAITS) + 1, len(WAITS) + 1)
    receiver.status = 200
    assert sent.redeliver() and not fresh(sent).redeliver()
    deliver(sent.pk)
    assert fresh(sent).state == "succeeded" and receiver.got[-1][0]["webhook-id"] == receiver.got[0][0]["webhook-id"]


def test_too_many_failures_switch_it_off_and_say_why(webhook: Webhook, receiver: Receiver) -> None:
    receiver.status = 500
    waiting = webhook.deliver("set.finished", {})
    Webhook.objects.update(failures=MOST_FAILURES - 1)
    send(webhook)
    webhook.refresh_from_db()
    assert not webhook.is_active and "20 attempts in a row failed" in webhook.switched_off_because
    assert fresh(waiting).state == "cancelled"
    webhook.switch(on=True)
    assert (webhook.is_active, webhook.failures, webhook.switched_off_because) == (True, 0, "")


def test_a_receiver_that_is_gone_is_left_in_peace(webhook: Webhook, receiver: Receiver) -> None:
    receiver.status = 410
    assert send(webhook).state == "failed" and not Webhook.objects.get().is_active


def test_redirects_are_not_followed_and_long_answers_are_cut(webhook: Webhook, receiver: Receiver) -> None:
    receiver.status, receiver.headers, receiver.body = 302, {"location": receiver.url}, b"x" * 100_000
    sent = send(webhook)
    assert (sent.status, len(sent.response), len(receiver.got)) == (302, posting.MOST_BYTES, 1)


def test_a_receiver_that_dawdles_is_hung_up_on(
    webhook: Webhook, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "WHOLE_SECONDS", 0.2)
    receiver.pause = 1.0
    sent = send(webhook)
    assert sent.state == "queued" and sent.status is None and sent.error


def test_nobody_there_is_said(webhook: Webhook, receiver: Receiver) -> None:
    receiver.server_close()
    assert "cannot be reached" in send(webhook).error


def test_private_addresses_are_refused_when_it_connects(webhook: Webhook, receiver: Receiver, settings: Any) -> None:
    with pytest.raises(Refused, match="private network"):
        post(receiver.url, b"{}", {})
    Webhook.objects.update(url=f"https://localhost:{receiver.server_port}/")
    settings.WEBHOOKS_TO_LOCALHOST = False
    webhook.refresh_from_db()
    assert "private network" in send(webhook).error and not receiver.got


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1"),
    ],
)
def test_these_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_these_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/", "ftp://example.com/", "https:///x", "https://a:b@example.com/", "x", "file:///x"),
        *("https://example.com:99999/", "http://localhost/", "https://exa\tmple.com/", "https://예.한국/"),
    ],
)
def test_these_urls_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        clean_url(url)


def test_a_dead_worker_costs_an_attempt_and_no_delivery(webhook: Webhook, receiver: Receiver) -> None:
    made = webhook.deliver("test", {})
    for _death in range(4):
        Delivery.objects.update(not_before=None)
        assert Delivery.objects.claim(made.pk)
        Delivery.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        assert Delivery.objects.reap() == 1
    assert again(made).state == "succeeded"
