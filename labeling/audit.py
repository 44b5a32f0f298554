"""What auditlog cannot see by itself: many rows changed by one UPDATE. Who did it is the request's user."""

from typing import Any

from auditlog.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet
from django.db.models.signals import pre_save


def record_state(rows: QuerySet[Any], state: str, field: str = "state") -> None:
    """Log that each of `rows` goes from the state it is in to `state`. Call before the UPDATE, in its transaction.

    `field` is where another state than `state` stands.
    """
    kind = ContentType.objects.get_for_model(rows.model)
    entries = [
        LogEntry(
            content_type=kind,
            object_pk=str(row.pk),
            object_id=row.pk,
            object_repr=str(row),
            action=LogEntry.Action.UPDATE,
            changes={field: [getattr(row, field), state]},
        )
        for row in rows
    ]
    for entry in entries:
        # While a request lasts, auditlog listens here and writes its user in. bulk_create sends nothing.
        pre_save.send(LogEntry, instance=entry)
    LogEntry.objects.bulk_create(entries)
