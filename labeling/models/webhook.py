"""Webhooks: what happens in a project is told to other programs. The database is the queue.

What is to be told is stored as a delivery in the transaction of the label itself, so none is lost and none tells of a
label that was rolled back. Signatures follow Standard Webhooks.
"""

import base64
import hashlib
import hmac
import json
import secrets
import uuid
from datetime import timedelta
from typing import Any, Self
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as translate
from django.utils.translation import gettext_lazy as _

from labeling.models.project import Project
from worker.jobs import BACK_IN_QUEUE, Job, JobQuerySet

EVENTS = {
    "answer.submitted": _("a ranking was handed in"),
    "answer.changed": _("a ranking was changed"),
    "answer.taken_back": _("a ranking was taken back"),
    "demonstration.submitted": _("a demonstration was handed in"),
    "demonstration.changed": _("a demonstration was changed"),
    "demonstration.taken_back": _("a demonstration was taken back"),
    "review.accepted": _("a label was accepted"),
    "review.returned": _("a label was returned to its labeler"),
    "set.finished": _("every place of a completion set was filled"),
    "export.finished": _("a file of labels is ready"),
    "policy.promoted": _("a policy was promoted"),
}
TEST = "test"
WAITS = [timedelta(seconds=seconds) for seconds in (5, 60, 300, 1800, 7200, 18_000, 36_000)]
"""Between the attempts at one delivery: eight attempts within eighteen hours."""
MOST_FAILURES = 20
"""Attempts in a row, at whatever delivery, after which a webhook is switched off."""
BOTH_SECRETS = timedelta(hours=24)
KEPT = timedelta(days=30)
MOST_WEBHOOKS = 10
LOCALHOST = ("localhost", "127.0.0.1", "::1")


def new_nonce() -> str:
    return secrets.token_hex(16)


def clean_url(url: str) -> str:
    """`url`, or ValidationError where nothing may be sent to it. Its addresses are looked at when it is sent to."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ValidationError(_("This is no address of the web.")) from error
    is_local = settings.WEBHOOKS_TO_LOCALHOST and parts.hostname in LOCALHOST
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
        raise ValidationError(_("The address must begin with https://."))
    if not parts.hostname or not port_is_fine or parts.username or parts.password or not url.isascii():
        raise ValidationError(_("This is no address of the web."))
    if any(character.isspace() for character in url):
        raise ValidationError(_("This is no address of the web."))
    return url


class WebhookQuerySet(models.QuerySet["Webhook"]):
    def curated_by(self, user: Any) -> Self:
        return self.filter(project__in=Project.objects.curated_by(user))

    def tell(self, event: str, **data: Any) -> None:
        """Store a delivery for each webhook of the query that wants `event`. Call it in the event's transaction.

        What costs a query may be given as a function: it is asked where somebody wants to know.
        """
        for webhook in self.filter(is_active=True):
            if event in webhook.events:
                webhook.deliver(event, {name: value() if callable(value) else value for name, value in data.items()})


class Webhook(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="webhooks")
    url = models.CharField(_("address"), max_length=500, help_text=_("Beginning with https://."))
    events = models.JSONField(_("events"), default=list)
    is_active = models.BooleanField(_("switched on"), default=True)
    failures = models.PositiveIntegerField(default=0)
    """Attempts that failed since the last one that went well."""
    switched_off_because = models.TextField(blank=True)
    nonce = models.CharField(max_length=32, default=new_nonce)
    """What the secret is made of, with the site's own: a copy of the database alone can sign nothing."""
    previous_nonce = models.CharField(max_length=32, blank=True)
    rotated_at = models.DateTimeField(null=True)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = WebhookQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")

    def __str__(self) -> str:
        return self.url

    def clean(self) -> None:
        try:
            clean_url(self.url)
        except ValidationError as error:
            raise ValidationError({"url": error}) from error
        if not self.pk and self.project.webhooks.count() >= MOST_WEBHOOKS:
            raise ValidationError(_("A project has at most %(most)s webhooks."), params={"most": MOST_WEBHOOKS})

    def deliver(self, event: str, data: dict[str, Any]) -> "Delivery":
        """Queue one message."""
        id = uuid.uuid4()
        payload = {
            "id": f"msg_{id.hex}",
            "type": event,
            "timestamp": timezone.now().isoformat(timespec="milliseconds"),
            "project": self.project.slug,
            "data": data,
        }
        made = Delivery.objects.create(webhook=self, message=id, event=event, payload=payload)
        made.enqueue()
        return made

    def rotate(self) -> None:
        """A new secret. For a day messages are signed with both, so that the receiver can change over."""
        self.previous_nonce, self.nonce, self.rotated_at = self.nonce, new_nonce(), timezone.now()
        self.save(update_fields=["previous_nonce", "nonce", "rotated_at"])

    def switch(self, *, on: bool) -> None:
        """Switch on or off. What happens while it is off is never told."""
        Webhook.objects.filter(pk=self.pk).update(is_active=on, failures=0, switched_off_because="")
        self.refresh_from_db()

    def went_well(self) -> None:
        Webhook.objects.filter(pk=self.pk, failures__gt=0).update(failures=0)

    def failed(self, why: str, *, for_good: bool) -> None:
        """Count a failed attempt, and switch off after too many, or where the receiver says it is gone."""
        Webhook.objects.filter(pk=self.pk).update(failures=F("failures") + 1)
        reason = translate("The receiver said that nobody is there any more (410).")
        if not for_good:
            reason = translate("%(count)s attempts in a row failed; the last: %(why)s") % {
                "count": MOST_FAILURES,
                "why": why,
            }
        too_many = Webhook.objects.filter(pk=self.pk, is_active=True)
        too_many = too_many if for_good else too_many.filter(failures__gte=MOST_FAILURES)
        if too_many.update(is_active=False, switched_off_because=reason):
            waiting = self.deliveries.filter(state=Job.State.QUEUED)
            waiting.update(state=Job.State.CANCELLED, cancel_requested=True, finished_at=Now())

    def sign(self, message: str, timestamp: int, body: bytes) -> str:
        """What stands in the header `webhook-signature`: one signature for each secret that holds."""
        nonces = [self.nonce]
        if self.previous_nonce and self.rotated_at and timezone.now() - self.rotated_at < BOTH_SECRETS:
            nonces.append(self.previous_nonce)
        signed = f"{message}.{timestamp}.".encode() + body
        digests = [hmac.new(self._key(nonce), signed, hashlib.sha256).digest() for nonce in nonces]
        return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)

    @property
    def secret(self) -> str:
        """For the receiver alone: shown once, when it was made."""
        return f"whsec_{base64.b64encode(self._key(self.nonce)).decode()}"

    def _key(self, nonce: str) -> bytes:
        return hmac.new(settings.SECRET_KEY.encode(), f"webhook:{nonce}".encode(), hashlib.sha256).digest()


class DeliveryQuerySet(JobQuerySet):
    def runnable(self) -> Self:
        return super().runnable().filter(Q(not_before=None) | Q(not_before__lte=Now()))

    def old(self) -> Self:
        return self.exclude(state__in=(Job.State.QUEUED, Job.State.RUNNING)).filter(created_at__lt=Now() - KEPT)


class Delivery(Job):
    TASK = "worker.tasks.deliver"
    QUEUE = "default"

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    message = models.UUIDField()
    """The same in every attempt, and when it is sent again: by it the receiver knows what it has had."""
    event = models.CharField(max_length=40)
    payload = models.JSONField()
    not_before = models.DateTimeField(null=True)
    status = models.PositiveSmallIntegerField(null=True)
    """What the receiver last answered; empty where it did not."""
    response = models.TextField(blank=True)
    """The beginning of that answer."""

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        indexes = [models.Index(fields=["state", "not_before"], name="deliveries_to_make")]

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook}"

    @property
    def body(self) -> bytes:
        return json.dumps(self.payload, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def message_id(self) -> str:
        return f"msg_{self.message.hex}"

    def headers(self, now: int) -> dict[str, str]:
        """Of an attempt at `now`, in seconds since 1970."""
        return {
            "content-type": "application/json",
            "user-agent": "nanoChatGPT-webhooks/1",
            "webhook-id": self.message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": self.webhook.sign(self.message_id, now, self.body),
        }

    @transaction.atomic
    def arrived(self, status: int, response: str) -> None:
        self.succeed(status=status, response=response, error="")
        self.webhook.went_well()

    @transaction.atomic
    def failed(self, why: str, status: int | None = None, response: str = "") -> None:
        """Try again later, or give up where this was the last attempt or the receiver is gone. Raises LostLease."""
        told = {"status": status, "response": response}
        if status == 410 or self.attempts > len(WAITS):
            self.fail(why, **told)
        else:
            later = Now() + WAITS[self.attempts - 1]
            self.write(**BACK_IN_QUEUE, **told, error=why, not_before=later)
        self.webhook.failed(why, for_good=status == 410)

    def retry(self, error: str, **fields: Any) -> None:
        """The worker died or broke on it: as any failed attempt, but none of the receiver's."""
        if self.attempts > len(WAITS):
            self.fail(error, **fields)
        else:
            self.write(**BACK_IN_QUEUE, **fields, error=error, not_before=Now() + WAITS[max(0, self.attempts - 1)])

    def redeliver(self) -> bool:
        """Send the same message again, now. False while it is on its way anyway."""
        ended = Delivery.objects.filter(pk=self.pk).exclude(state__in=(self.State.QUEUED, self.State.RUNNING))
        waiting = Delivery.objects.filter(pk=self.pk, state=self.State.QUEUED, not_before__gt=Now())
        fields: dict[str, Any] = {"state": self.State.QUEUED, "cancel_requested": False, "not_before": None}
        if not ended.update(**fields, attempts=0, finished_at=None) and not waiting.update(**fields):
            return False
        self.enqueue()
        return True
