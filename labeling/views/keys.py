"""One's own keys for the task pages."""

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from labeling.keys import ACTIONS, clean_keys, keymap, words
from labeling.models import User
from labeling.roles import labels, person


@require_http_methods(["GET", "POST"])
@labels
def keys(request: HttpRequest) -> HttpResponse:
    user, wanted, wrong = person(request), keymap(person(request).keys), {}
    if request.method == "POST":
        wanted = keymap({} if "reset" in request.POST else {name: request.POST.get(name, "") for name in wanted})
        try:
            User.objects.filter(pk=user.pk).update(
                keys=clean_keys(wanted), single_keys="reset" in request.POST or "single_keys" in request.POST
            )
        except ValidationError as error:
            wrong = error.message_dict
        else:
            messages.success(request, _("Saved."))
            return redirect("keys")
    rows = [(action, wanted[action.name], words(action), wrong.get(action.name)) for action in ACTIONS]
    single = "single_keys" in request.POST if request.method == "POST" else user.single_keys
    context = {"rows": rows, "single_keys": single, "is_wrong": bool(wrong), "section": "preferences"}
    return TemplateResponse(request, "labeling/keys.html", context)
