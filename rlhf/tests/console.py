"""The ops console as a browser uses it: addresses, untouched forms, messages, the history of a row."""

from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.urls import reverse

from rlhf import parameters


def url(name: str, *args: Any, **query: Any) -> str:
    address = reverse(f"admin:rlhf_{name}", args=args)
    return address + "?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else address


def defaults(stage: str, prefix: str = "") -> dict[str, Any]:
    """The parameters of `stage` as a browser sends an untouched form."""
    values = {prefix + name: spec.default for name, spec in parameters.specs(stage).items()}
    return {name: value for name, value in values.items() if value is not False}


def said(answer: Any) -> str:
    return " ".join(str(message) for message in get_messages(answer.wsgi_request))


def recorded(row: Any) -> list[str]:
    return [entry.get_change_message() for entry in LogEntry.objects.filter(object_id=str(row.pk)).order_by("pk")]
