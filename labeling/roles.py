"""Who may open a page at all. Which rows they then see is decided by the QuerySets (`curated_by`, `labeled_by` ...)."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from labeling.models import Role, User

View = Callable[..., HttpResponse]


def requires(*roles: Role) -> Callable[[View], View]:
    """Let in who holds one of `roles`; others are refused, and who is logged out is sent to the login page.

    A fragment is answered with 401 instead: the login page must not land inside another page.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not isinstance(request.user, User):
                if "HX-Request" in request.headers:
                    return HttpResponse(
                        _("You are logged out. Log in again in another tab, then go on here."), status=401
                    )
                return redirect_to_login(request.get_full_path())
            if not request.user.has_role(*roles):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return guarded

    return decorate


curates = requires(Role.CURATOR, Role.ADMIN)
exports = requires(Role.CURATOR, Role.OPS, Role.ADMIN)
labels = requires(Role.LABELER)
judges = requires(Role.LABELER, Role.CURATOR, Role.ADMIN)


def person(request: HttpRequest) -> User:
    """Who asks, in a view that lets in nobody who is logged out."""
    assert isinstance(request.user, User)
    return request.user
