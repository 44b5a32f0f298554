"""What was said: rankings and demonstrations, to read again, to change, and to review."""

import uuid
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from labeling.models import Answer, Demonstration, Project, Review, Slot
from labeling.rankings import FLAGS, Verdict
from labeling.roles import labels, person
from labeling.views.json_actions import judges_by_script, read_object
from labeling.views.task import work_page

PAGE = 50
RELATED = ("slot__project", "slot__prompt", "slot__completion_set", "slot__labeler")


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
        "current__author", "completion_set__prompt__project", *RELATED
    )
    found = get_object_or_404(visible, pk=pk)
    judged = found.judged
    tiers = sorted({each.tier or 0 for each in judged})
    context = {
        "answer": found,
        "tiers": [(tier, [each for each in judged if (each.tier or 0) == tier]) for tier in tiers],
        "flags": FLAGS,
        "may_demonstrate": found.labeler == person(request)
        and Slot.objects.demonstrations_of(found.completion_set.prompt, person(request)).exists(),
        "is_amendable": Answer.objects.amendable_by(person(request)).filter(pk=pk).exists(),
        "may_declare": Project.objects.curated_by(person(request)).filter(pk=found.completion_set.project_id).exists()
        and found.current is not None
        and found.current.verdict == Verdict.RANKED,
        "revisions": found.revisions.select_related("author").order_by("-number"),
        **_reviewing(request, found.slot),
    }
    return TemplateResponse(request, "labeling/answer.html", context)


@require_GET
@login_required
def demonstration(request: HttpRequest, pk: int) -> HttpResponse:
    """One demonstration, as it was handed in."""
    visible = Demonstration.objects.visible_to(person(request)).select_related("author", "prompt__project", *RELATED)
    found = get_object_or_404(visible, pk=pk)
    context = {
        "demonstration": found,
        "revision": found.newest,
        "is_amendable": _amendable_demonstrations(request).filter(pk=pk).exists(),
        "revisions": found.revisions.select_related("editor").order_by("-number"),
        **_reviewing(request, found.slot),
    }
    return TemplateResponse(request, "labeling/demonstration.html", context)


def _reviewing(request: HttpRequest, slot: Slot | None) -> dict[str, Any]:
    """What was said of a label by reviewers, and whether the reader may be one."""
    return {
        "slot": slot,
        "reviews": slot.reviews.select_related("reviewer") if slot else (),
        "may_review": slot is not None and Review.objects.slots_for(person(request)).filter(pk=slot.pk).exists(),
        "section": "desk",
    }


@require_POST
@labels
def answer_demonstrate(request: HttpRequest, pk: int) -> HttpResponse:
    """From a ranking to a demonstration of the same prompt, which may start from the best completion."""
    mine = Answer.objects.standing().filter(labeler=person(request)).select_related("completion_set__prompt__project")
    prompt = get_object_or_404(mine, pk=pk).completion_set.prompt
    slot = Slot.objects.claim_demonstration(prompt, person(request))
    if slot is None:
        messages.info(request, _("No more demonstrations of this prompt are asked for, or you hold another one."))
        return redirect("answer", pk)
    return redirect("task", slot.pk)


# --- Changing what was handed in: the task page again, and what its script sends ------------------------------------


@require_GET
@never_cache
@login_required
def answer_change(request: HttpRequest, pk: int) -> HttpResponse:
    return _change_page(request, get_object_or_404(_amendable_answers(request), pk=pk))


@require_GET
@never_cache
@login_required
def demonstration_change(request: HttpRequest, pk: int) -> HttpResponse:
    return _change_page(request, get_object_or_404(_amendable_demonstrations(request), pk=pk))


@require_POST
@judges_by_script
def answer_amend(request: HttpRequest, pk: int) -> HttpResponse:
    return _amend(request, get_object_or_404(_amendable_answers(request), pk=pk))


@require_POST
@judges_by_script
def demonstration_amend(request: HttpRequest, pk: int) -> HttpResponse:
    return _amend(request, get_object_or_404(_amendable_demonstrations(request), pk=pk))


def _amendable_answers(request: HttpRequest) -> Any:
    return Answer.objects.amendable_by(person(request)).select_related("current", "completion_set", *RELATED)


def _amendable_demonstrations(request: HttpRequest) -> Any:
    """Those from a task; an import has none, and its text is its source's."""
    return Demonstration.objects.amendable_by(person(request)).filter(slot__isnull=False).select_related(*RELATED)


def _change_page(request: HttpRequest, label: Answer | Demonstration) -> HttpResponse:
    slot = label.slot
    assert slot is not None  # the query asks for it
    newest = label.current if isinstance(label, Answer) else label.newest
    kind = "answer" if isinstance(label, Answer) else "demonstration"
    page = {
        "draftUrl": None,  # what stands on the server is the label itself; unsent changes live in this browser
        "submitUrl": reverse(f"{kind}_amend", args=[label.pk]),
        "taskUrl": label.get_absolute_url(),
        "deskUrl": label.get_absolute_url(),
        "storageKey": f"change-{person(request).pk}-{slot.pk}-{newest.number if newest else 0}",
        "draft": label.as_work(),
        "version": newest.number if newest else 0,
        "requireRatings": isinstance(label, Answer) and slot.requires_ratings,
    }
    last = slot.reviews.first()
    return work_page(request, slot, page, changes=label, comment=last if slot.review_state == "returned" else None)


def _amend(request: HttpRequest, label: Answer | Demonstration) -> JsonResponse:
    sent = read_object(request)
    try:
        key = uuid.UUID(str(sent.get("key")))
    except ValueError as error:
        raise ValidationError(_("The request is not readable. Reload the page.")) from error
    label.amend(person(request), sent.get("payload"), key, sent.get("version"))
    return JsonResponse({"next": label.get_absolute_url()})
