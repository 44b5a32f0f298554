"""How the REST API reads requests, counts them, and cuts long lists into pages.

The views stand beside their models, in `labeling/api/` and `rlhf/api.py`.
"""

import json
import logging
import math
import re
from typing import IO, TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.utils.translation import gettext as _
from redis.exceptions import RedisError
from rest_framework import exceptions
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.throttling import UserRateThrottle

if TYPE_CHECKING:
    from rest_framework.views import APIView

logger = logging.getLogger(__name__)


class JsonBody(JSONParser):
    """JSON that can be stored anywhere: no NUL or half surrogate pairs (PostgreSQL refuses them), no number out of
    range, no nesting deeper than the interpreter goes, and no more bytes than the site takes."""

    def parse(self, stream: IO[bytes], media_type: Any = None, parser_context: Any = None) -> Any:
        body = stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise RequestDataTooBig
        try:
            data = json.loads(body.decode(), parse_int=_integer, parse_float=_finite, parse_constant=_finite)
            _check_texts(data)
        except (ValueError, RecursionError) as error:
            raise exceptions.ParseError(_("The request is not readable JSON: %(why)s") % {"why": error}) from error
        return data


def _integer(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError("a number is too large")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError("a number is too large or none at all")
    return value


def _check_texts(data: Any) -> None:
    if isinstance(data, str):
        if "\x00" in data:
            raise ValueError("a text holds NUL")
        data.encode()  # UnicodeEncodeError, a ValueError, for half a surrogate pair
    elif isinstance(data, dict):
        for key, value in data.items():
            _check_texts(key)
            _check_texts(value)
    elif isinstance(data, list):
        for value in data:
            _check_texts(value)


class Throttle(UserRateThrottle):
    """Counts in the cache. With the cache away everyone is let through: a label lost is worse than a limit missed."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        try:
            return super().allow_request(request, view)
        except RedisError as error:
            logger.warning("API requests are not limited, the cache is away: %s", error)
            return True


class Pages(CursorPagination):
    """Newest first; a cursor of ours or 404."""

    ordering = "-pk"

    def decode_cursor(self, request: Request) -> Cursor | None:
        cursor = super().decode_cursor(request)
        if cursor and cursor.position is not None and not re.fullmatch(r"[0-9]{1,18}", str(cursor.position)):
            raise exceptions.NotFound(self.invalid_cursor_message)
        return cursor
