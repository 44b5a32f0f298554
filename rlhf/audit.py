"""What auditlog cannot see by itself: rows changed by a guarded UPDATE. Who did it is the request's user."""

from typing import Any

from auditlog.models import LogEntry
from django.db import models


def record(instance: models.Model, **changes: tuple[Any, Any]) -> None:
    """Log that each field went from the first value to the second."""
    LogEntry.objects.log_create(
        instance,
        action=LogEntry.Action.UPDATE,
        changes={name: [str(before), str(after)] for name, (before, after) in changes.items()},
    )
