"""Pages that belong to no app: the way in, one's own preferences, and errors."""

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import check_for_language
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from labeling.models import Role, User


class PreferencesForm(forms.ModelForm[User]):
    language = forms.ChoiceField(choices=settings.LANGUAGES)

    class Meta:
        model = User
        fields = ["language", "theme"]


@require_GET
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Everyone's work: tasks for labelers, prompts for curators, the console for ops."""
    user = request.user
    assert isinstance(user, User)
    if user.is_superuser or user.has_role(Role.OPS):
        return redirect("admin:index")
    return redirect("project_list" if user.has_role(Role.CURATOR) else "desk")


@require_http_methods(["GET", "POST"])
@login_required
def preferences(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    form = PreferencesForm(request.POST or None, instance=request.user)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("Saved."))
        response = redirect("preferences")
        response.set_cookie(settings.LANGUAGE_COOKIE_NAME, form.cleaned_data["language"], max_age=365 * 86400)
        return response
    return TemplateResponse(request, "preferences.html", {"form": form, "section": "preferences"})


@require_POST
def choose_language(request: HttpRequest) -> HttpResponse:
    """Switch the pages' language, kept in a cookie and, for someone logged in, on their account."""
    language, target = request.POST.get("language", ""), request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(target, allowed_hosts={request.get_host()}):
        target = reverse("home")
    response = redirect(target)
    if check_for_language(language):
        response.set_cookie(settings.LANGUAGE_COOKIE_NAME, language, max_age=365 * 86400)
        if isinstance(request.user, User):
            User.objects.filter(pk=request.user.pk).update(language=language)
    return response


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The page was open for too long, or in another tab someone logged in as somebody else."""
    return render(request, "csrf_failure.html", status=403)
