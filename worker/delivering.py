"""Deliveries of webhooks: each attempt is one POST, and its outcome is a row."""

import logging
import threading
import time

from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils import translation
from django.utils.translation import gettext as _

from labeling.models import Delivery
from labeling.models.webhook import TEST, clean_url
from worker.jobs import LostLease
from worker.leases import stopping
from worker.posting import Refused, post

logger = logging.getLogger(__name__)

slot = threading.Lock()
"""One delivery at a time in this process: a receiver that lets us wait must not keep its threads from other jobs."""


def deliver(delivery_id: int) -> None:
    """Make one attempt at delivery `delivery_id`; do nothing where it is not to be made now."""
    if stopping.is_set() or not slot.acquire(blocking=False):
        return  # the row stays queued and is rung for again
    try:
        job = Delivery.objects.claim(delivery_id)
        if job is not None:
            with translation.override(_language(job)):
                attempt(job)
    except LostLease as error:
        logger.warning("%s", error)
    finally:
        slot.release()
    Delivery.objects.ring_next()


def attempt(job: Delivery) -> None:
    webhook = job.webhook
    if not webhook.is_active and job.event != TEST:
        job.fail(_("The webhook is switched off."))
        return
    try:
        url = clean_url(webhook.url)  # what is allowed may have changed since it was entered
        sent = post(url, job.body, job.headers(int(time.time())), allow_local=settings.WEBHOOKS_TO_LOCALHOST)
    except ValidationError as error:
        job.failed(error.messages[0])
    except Refused as error:
        job.failed(str(error))
    else:
        if 200 <= sent.status < 300:
            job.arrived(sent.status, sent.text)
        else:
            job.failed(_("The receiver answered %(status)s.") % {"status": sent.status}, sent.status, sent.text)


def _language(job: Delivery) -> str:
    """Of whoever set the webhook up: what went wrong is stored in words for them."""
    by = job.webhook.by
    return by.language if by and by.language else settings.LANGUAGE_CODE
