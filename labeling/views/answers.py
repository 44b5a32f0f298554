"""What was said: one's own rankings and demonstrations, to read again."""

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.views.decorators.http import require_GET

from labeling.models import Answer, Demonstration, Slot
from labeling.rankings import FLAGS
from labeling.roles import labels, person

PAGE = 50


@require_GET
@labels
def answer_list(request: HttpRequest) -> HttpResponse:
    """Everything the labeler handed in, newest first."""
    done = Slot.objects.answered_by(person(request)).with_labels()
    page = Paginator(done, PAGE).get_page(request.GET.get("page"))
    return TemplateResponse(request, "labeling/answer_list.html", {"page": page, "section": "desk"})


@require_GET
@login_required
def answer(request: HttpRequest, pk: int) -> HttpResponse:
    """One ranking, as it was handed in."""
    visible = Answer.objects.visible_to(person(request)).select_related(
        "current", "labeler", "slot__project", "completion_set__prompt"
    )
    found = get_object_or_404(visible, pk=pk)
    judged = found.judged
    tiers = sorted({each.tier for each in judged})
    context = {
        "answer": found,
        "tiers": [(tier, [each for each in judged if each.tier == tier]) for tier in tiers],
        "flags": FLAGS,
        "section": "desk",
    }
    return TemplateResponse(request, "labeling/answer.html", context)


@require_GET
@login_required
def demonstration(request: HttpRequest, pk: int) -> HttpResponse:
    """One demonstration, as it was handed in."""
    visible = Demonstration.objects.visible_to(person(request)).select_related("author", "prompt__project")
    found = get_object_or_404(visible, pk=pk)
    context = {"demonstration": found, "revision": found.revisions.order_by("number").last(), "section": "desk"}
    return TemplateResponse(request, "labeling/demonstration.html", context)
