"""Actions that the script of a page sends: JSON in, JSON out, every refusal in words for the person at the page."""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from labeling.models import DraftConflict, Role, StaleAssignment, User

View = Callable[..., HttpResponse]


def labels_by_script(view: View) -> View:
    """For people with the labeler's role. What the domain refuses comes back with a code that the script knows."""
    return _by_script(view, Role.LABELER)


def judges_by_script(view: View) -> View:
    """The same for labelers and those who review them."""
    return _by_script(view, Role.LABELER, Role.CURATOR, Role.ADMIN)


def _by_script(view: View, *roles: Role) -> View:
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not isinstance(request.user, User):
            words = _(
                "You were logged out. Log in again in another tab, then go on here: your work stays on this page."
            )
            return _refusal(401, "signed_out", words, url=reverse("login"))
        if not request.user.has_role(*roles):
            return _refusal(403, "forbidden", _("Your account does not have the labeler's role. Ask an admin."))
        try:
            return view(request, *args, **kwargs)
        except ValidationError as error:
            return _refusal(422, "invalid", " ".join(error.messages))
        except DraftConflict as conflict:
            words = _("This task was changed in another tab or browser.")
            return _refusal(409, "conflict", words, payload=conflict.draft.payload, version=conflict.draft.version)
        except StaleAssignment as error:
            return _refusal(409, "answered" if error.is_answered else "stale", str(error))
        except Http404:
            return _refusal(
                404,
                "stale",
                _("This task is no longer yours: its time ran out, or it was withdrawn. Take the next one."),
            )

    return guarded


def read_json(request: HttpRequest) -> Any:
    """The body of a request. ValidationError where it is not JSON that a database can hold."""
    try:
        return json.loads(request.body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValidationError(_("The request is not readable. Reload the page.")) from error


def read_object(request: HttpRequest) -> dict[str, Any]:
    """The body of a request as a JSON object."""
    sent = read_json(request)
    if not isinstance(sent, dict):
        raise ValidationError(_("The request is not readable. Reload the page."))
    return sent


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _refusal(status: int, code: str, words: str, **more: Any) -> JsonResponse:
    return JsonResponse({"code": code, "error": words, **more}, status=status)
