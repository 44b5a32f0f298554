"""Pages that belong to no app: the way in, one's own preferences, and errors."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import reverse
from django.utils import translation
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import check_for_language, gettext_lazy
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe
from rest_framework.authtoken.models import Token

from labeling.models import Role, User
from labeling.roles import person
from webapp.tokens import issue_token, revoke_token

LANGUAGE_COOKIE_AGE = 365 * 24 * 60 * 60


class LoginForm(AuthenticationForm):
    def clean_username(self) -> str:
        """Django tells only the browser how long a name may be, and the log of attempts has no room for more."""
        name: str = self.cleaned_data["username"]
        try:
            User._meta.get_field("username").run_validators(name)
        except ValidationError as error:
            raise self.get_invalid_login_error() from error
        return name


class PasswordForm(PasswordChangeForm):
    """One of several forms of its page, so it does not pull the cursor to itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["old_password"].widget.attrs["autofocus"]


class PreferencesForm(forms.ModelForm):  # type: ignore[type-arg]
    language = forms.ChoiceField(label=gettext_lazy("Language"), choices=settings.LANGUAGES)

    class Meta:
        model = User
        fields = ["language", "theme"]


@require_GET
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Everyone's work: tasks for labelers, prompts for curators, the console for ops."""
    user = person(request)
    if user.is_superuser or user.has_role(Role.OPS):
        return redirect("admin:index")
    return redirect("project_list" if user.has_role(Role.CURATOR) else "desk")


@require_http_methods(["GET", "POST"])
@login_required
def preferences(request: HttpRequest) -> HttpResponse:
    """One's own settings: language and appearance, password, API token."""
    form = PreferencesForm(request.POST or None, instance=person(request))
    if request.method == "POST" and form.is_valid():
        form.save()
        response = redirect("preferences")
        response.set_cookie(settings.LANGUAGE_COOKIE_NAME, form.cleaned_data["language"], max_age=LANGUAGE_COOKIE_AGE)
        with translation.override(form.cleaned_data["language"]):
            messages.success(request, _("Saved."))
        return response
    return _preferences(request, form=form)


@require_POST
@login_required
@sensitive_post_parameters()
def change_password(request: HttpRequest) -> HttpResponse:
    form = PasswordForm(person(request), request.POST)
    if not form.is_valid():
        return _preferences(request, password_form=form)
    update_session_auth_hash(request, form.save())
    messages.success(request, _("Your password was changed. Other devices are logged out."))
    return redirect("preferences")


@require_POST
@login_required
@never_cache
def make_token(request: HttpRequest) -> HttpResponse:
    """A new API token, shown this once; one made before stops working."""
    return _preferences(request, new_token=issue_token(person(request)))


@require_POST
@login_required
def drop_token(request: HttpRequest) -> HttpResponse:
    revoke_token(person(request))
    messages.success(request, _("The token no longer works."))
    return redirect("preferences")


def _preferences(request: HttpRequest, **given: Any) -> HttpResponse:
    user = person(request)
    context = {
        "form": PreferencesForm(instance=user),
        "password_form": PasswordForm(user),
        "token": Token.objects.filter(user=user).first(),
        "section": "preferences",
    }
    return TemplateResponse(request, "preferences.html", context | given)


@require_POST
def choose_language(request: HttpRequest) -> HttpResponse:
    """Switch the pages' language, kept in a cookie and, for someone logged in, on their account."""
    language, target = request.POST.get("language", ""), request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(target, allowed_hosts={request.get_host()}):
        target = reverse("home")
    response = redirect(target)
    if check_for_language(language):
        response.set_cookie(settings.LANGUAGE_COOKIE_NAME, language, max_age=LANGUAGE_COOKIE_AGE)
        if isinstance(request.user, User):
            User.objects.filter(pk=request.user.pk).update(language=language)
    return response


@require_GET
def admin_login(request: HttpRequest) -> HttpResponse:
    """Where the admin sends whom it does not let in: one login page for the whole site, and a word for the others."""
    if request.user.is_authenticated:
        raise PermissionDenied
    return redirect_to_login(request.GET.get("next") or reverse("admin:index"))


@require_safe
def favicon(request: HttpRequest) -> HttpResponse:
    """Browsers look for it here where a page names none."""
    return redirect(static("favicon.svg"))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The page was open for too long, or in another tab someone logged in as somebody else."""
    return render(request, "csrf_failure.html", status=403)
