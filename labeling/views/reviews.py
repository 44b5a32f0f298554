"""Reviewing: what labelers handed in, one after the other, to be accepted or returned."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from labeling.models import Project, Review, Slot
from labeling.roles import curates, person

PAGE = 50


@require_GET
@curates
def review_list(request: HttpRequest, slug: str) -> HttpResponse:
    """Labels of a project in one state of review, the newest first. Paged by key."""
    project = get_object_or_404(Project.objects.curated_by(person(request)), slug=slug)
    state = request.GET.get("state", "")
    state = state if state in Slot.ReviewState.values else ""
    slots = Review.objects.slots_for(person(request)).filter(project=project, review_state=state)
    before = request.GET.get("before", "")
    older = slots.filter(pk__lt=int(before)) if before.isdecimal() and len(before) < 19 else slots
    page = list(older.with_labels().select_related("labeler").order_by("-pk")[: PAGE + 1])
    context = {
        "project": project,
        "state": state,
        "states": Slot.ReviewState.choices,
        "slots": page[:PAGE],
        "older": page[PAGE - 1].pk if len(page) > PAGE else None,
        "section": "curate",
        "tab": "review",
    }
    return TemplateResponse(request, "labeling/review_list.html", context)


@require_POST
@curates
def review_add(request: HttpRequest, pk: int) -> HttpResponse:
    """Accept or return one label, then go on to the next that nobody has reviewed."""
    reviewable: Any = Review.objects.slots_for(person(request))
    slot = get_object_or_404(reviewable.with_labels(), pk=pk)
    try:
        review = Review.objects.add(slot, person(request), request.POST.get("verdict"), request.POST.get("comment"))
    except ValidationError as error:
        messages.error(request, error.messages[0])
        return redirect(slot.label)
    done = _("Accepted.") if review.verdict == Review.Verdict.ACCEPTED else _("Returned to its labeler.")
    waiting = reviewable.filter(project=slot.project, review_state__in=("", "changed")).with_labels().first()
    messages.success(request, done if waiting else f"{done} {_('Nothing else waits for review here.')}")
    return redirect(waiting.label) if waiting else redirect("review_list", slot.project.slug)
