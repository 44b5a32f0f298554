"""What the domain refuses, as answers of the REST API."""

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, RequestDataTooBig, ValidationError
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from labeling.models import StaleAssignment
from labeling.models.draft import DraftConflict


def refusal(error: Exception, context: dict[str, Any]) -> Response | None:
    """ValidationError is 400 with messages by field; work on what is no longer yours, or was saved elsewhere, 409."""
    if isinstance(error, ValidationError):
        error = exceptions.ValidationError(_messages(error))
    elif isinstance(error, StaleAssignment):
        return Response({"detail": str(error)}, status=409)
    elif isinstance(error, DraftConflict):
        message = _("Another tab or program has saved since. This is what it saved.")
        return Response({"detail": message, "payload": error.draft.payload, "version": error.draft.version}, status=409)
    elif isinstance(error, RequestDataTooBig):
        return Response({"detail": _("The request is larger than this site takes.")}, status=413)
    return exception_handler(error, context)


def _messages(error: ValidationError) -> dict[str, Sequence[str]]:
    if hasattr(error, "error_dict"):
        return {
            "non_field_errors" if name == NON_FIELD_ERRORS else name: messages
            for name, messages in error.message_dict.items()
        }
    return {"non_field_errors": error.messages}
