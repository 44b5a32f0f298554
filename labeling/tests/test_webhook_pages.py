"""Webhooks on the curator's page: a secret shown once, deliveries to look at and to send again."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import Delivery, Project, Webhook
from labeling.models.webhook import MOST_WEBHOOKS

pytestmark = pytest.mark.django_db
URL = "https://hooks.example.com/labels"


def add(client: Client, project: Project, url: str = URL, **data: Any) -> Any:
    return client.post(reverse("webhook_list", args=[project.slug]), {"url": url, "events": ["set.finished"]} | data)


@pytest.fixture
def webhook(project: Project) -> Webhook:
    return Webhook.objects.create(project=project, url=URL, events=["set.finished"])


def page(client: Client, webhook: Webhook) -> str:
    return client.get(reverse("webhook", args=[webhook.pk])).content.decode()


def test_the_secret_is_shown_once(as_carol: Client, project: Project) -> None:
    answer = add(as_carol, project)
    made = Webhook.objects.get()
    assert made.secret in answer.content.decode() and "no-store" in answer.headers["cache-control"]
    assert made.secret not in page(as_carol, made) and made.nonce not in page(as_carol, made)
    renewed = as_carol.post(reverse("webhook_secret", args=[made.pk])).content.decode()
    assert made.secret not in renewed and Webhook.objects.get().secret in renewed


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"url": "http://example.com/"}, "must begin with https://"),
        ({"url": "https://user:pass@example.com/"}, "no address of the web"),
        ({"url": "http://localhost/"}, "must begin with https://"),
        ({"events": []}, "This field is required"),
        ({"events": ["x"]}, "not one of the available choices"),
    ],
)
def test_wrong_choices_are_refused_beside_them(
    as_carol: Client, project: Project, data: dict[str, Any], words: str
) -> None:
    assert words in add(as_carol, project, **data).content.decode() and not Webhook.objects.exists()


def test_there_are_not_endlessly_many(as_carol: Client, project: Project) -> None:
    Webhook.objects.bulk_create(Webhook(project=project, url=URL) for _each in range(MOST_WEBHOOKS))
    assert "at most 10 webhooks" in add(as_carol, project).content.decode()


def test_events_are_changed_and_it_is_switched_off(as_carol: Client, webhook: Webhook) -> None:
    as_carol.post(reverse("webhook", args=[webhook.pk]), {"url": URL, "events": ["export.finished"]})
    as_carol.post(reverse("webhook_switch", args=[webhook.pk]), {"on": "0"})
    webhook.refresh_from_db()
    assert (webhook.events, webhook.is_active) == (["export.finished"], False)
    as_carol.post(reverse("webhook_switch", args=[webhook.pk]), {"on": "1"})
    assert Webhook.objects.get().is_active


def test_a_test_is_queued_and_shown(as_carol: Client, webhook: Webhook) -> None:
    as_carol.post(reverse("webhook_test", args=[webhook.pk]))
    assert "on its way" in page(as_carol, webhook) and Delivery.objects.get().event == "test"


def test_what_the_receiver_answered_is_shown_as_text(as_carol: Client, webhook: Webhook) -> None:
    made = webhook.deliver("test", {})
    Delivery.objects.update(state="failed", status=500, response="<script>alert(1)</script>", error="It answered 500.")
    text = page(as_carol, webhook)
    assert "It answered 500." in text and "&lt;script&gt;alert(1)" in text and "<script>alert" not in text
    as_carol.post(reverse("delivery_redeliver", args=[made.pk]))
    made.refresh_from_db()
    assert (made.state, made.attempts) == ("queued", 0)


def test_one_that_was_switched_off_says_why_and_sends_nothing_again(as_carol: Client, webhook: Webhook) -> None:
    made = webhook.deliver("set.finished", {})
    Delivery.objects.update(state="failed")
    Webhook.objects.update(is_active=False, switched_off_because="20 attempts in a row failed.")
    assert "20 attempts in a row failed." in page(as_carol, webhook)
    answer = as_carol.post(reverse("delivery_redeliver", args=[made.pk]), follow=True)
    assert "Switch the webhook on first." in answer.content.decode() and Delivery.objects.get().state == "failed"


def test_deleting_takes_its_deliveries_along(as_carol: Client, webhook: Webhook) -> None:
    webhook.deliver("test", {})
    as_carol.post(reverse("webhook_delete", args=[webhook.pk]))
    assert not Webhook.objects.exists() and not Delivery.objects.exists()
