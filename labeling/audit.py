"""What auditlog cannot see by itself: many rows changed by one UPDATE. Who did it is the request's user."""

from typing import Any

from auditlog.context import auditlog_value
from auditlog.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet


def record_state(rows: QuerySet[Any], state: str) -> None:
    """Log that each of `rows` goes from the state it is in to `state`. Call before the UPDATE, in its transaction."""
    kind = ContentType.objects.get_for_model(rows.model)
    actor = auditlog_value.get({}).get("actor")
    LogEntry.objects.bulk_create(
        LogEntry(
            content_type=kind,
            object_pk=str(row.pk),
            object_id=row.pk,
            object_repr=str(row),
            action=LogEntry.Action.UPDATE,
            changes={"state": [row.state, state]},
            actor=actor,
            actor_email=actor.email if actor else None,
        )
        for row in rows
    )
