"""The labeler's desk: the way to the next task, and what a project asks for."""

import math
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from labeling import markdown
from labeling.models import Outlook, Project, Slot, User
from labeling.models.queue import UNDO
from labeling.roles import labels, person

RECENT = 8


@require_GET
@labels
def desk(request: HttpRequest) -> HttpResponse:
    """Every project the labeler works in, with one button for the next task."""
    projects = Project.objects.labeled_by(person(request))
    recent = Slot.objects.answered_by(person(request)).with_labels()[:RECENT]
    outlooks = [Outlook.of(project, person(request)) for project in projects]
    outlooks.sort(key=lambda outlook: not outlook.has_work)
    context = {
        "outlooks": outlooks,
        "recent": recent,
        "returned": Slot.objects.returned_to(person(request)).with_labels().prefetch_related("reviews"),
        "undo": undoable(person(request)),
        "section": "desk",
    }
    return TemplateResponse(request, "labeling/desk.html", context)


@require_GET
@labels
def desk_project(request: HttpRequest, slug: str) -> HttpResponse:
    """What one project has for the labeler: asked for again and again while there is nothing, or more is coming."""
    project = get_object_or_404(Project.objects.labeled_by(person(request)), slug=slug)
    context = {"outlook": Outlook.of(project, person(request))}
    return TemplateResponse(request, "labeling/_desk_project.html", context)


@require_POST
@labels
def next_task(request: HttpRequest, slug: str) -> HttpResponse:
    """Lease the next task of a project, of one kind only where asked for, and go to it."""
    project = get_object_or_404(Project.objects.labeled_by(person(request)), slug=slug)
    only = request.POST.get("only")
    slot = Slot.objects.claim_next(project, person(request), only if only in Slot.TaskType.values else None)
    if slot:
        return redirect(task_address(slot, only))
    messages.info(request, _("Nothing is left for you there at the moment."))
    return redirect("desk")


def undoable(labeler: User) -> dict[str, Any] | None:
    """What the labeler handed in a moment ago, and for how many seconds they can still take it back."""
    last = Slot.objects.just_answered_by(labeler).values_list("pk", "answered_at").first()
    if last is None:
        return None
    slot, answered_at = last
    left = (answered_at + UNDO - timezone.now()).total_seconds()
    return {"url": reverse("task_undo", args=[slot]), "seconds": max(1, math.ceil(left))}


def task_address(slot: Slot, only: str | None) -> str:
    """The task's page; `only` keeps later ones to the same kind."""
    address = reverse("task", args=[slot.pk])
    return f"{address}?{urlencode({'only': only})}" if only in Slot.TaskType.values else address


@require_GET
@login_required
def instructions(request: HttpRequest, slug: str, number: int | None = None) -> HttpResponse:
    """What counts as a good answer in a project: the newest version, or the one that a label was made under."""
    project = get_object_or_404(Project.objects.all().visible_to(person(request)), slug=slug)
    version = get_object_or_404(project.instruction_versions, number=number) if number else project.instructions
    language = get_language() or "en"
    context = {
        "project": project,
        "version": version,
        "newest": project.instructions,
        "body": markdown.render(version.body(language), below=1) if version else "",
        "section": "desk",
    }
    return TemplateResponse(request, "labeling/instructions.html", context)
