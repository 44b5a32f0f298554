"""What the domain refuses, as answers of the REST API."""

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from labeling.models import StaleAssignment


def refusal(error: Exception, context: dict[str, Any]) -> Response | None:
    """ValidationError is 400 with messages by field, StaleAssignment 409."""
    if isinstance(error, ValidationError):
        error = exceptions.ValidationError(_messages(error))
    elif isinstance(error, StaleAssignment):
        return Response(
            {"detail": _("This task is no longer yours: its time ran out, or it was withdrawn. Ask for the next one.")},
            status=409,
        )
    return exception_handler(error, context)


def _messages(error: ValidationError) -> dict[str, Sequence[str]]:
    if hasattr(error, "error_dict"):
        return {
            "non_field_errors" if name == NON_FIELD_ERRORS else name: messages
            for name, messages in error.message_dict.items()
        }
    return {"non_field_errors": error.messages}
