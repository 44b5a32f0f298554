"""How good the labels are: for curators a page of figures, for a labeler a page of their own."""

from datetime import timedelta
from typing import Any

from django.db.models import Count, Max, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from labeling import quality as figures
from labeling.languages import language_name
from labeling.models import Answer, CompletionSet, Demonstration, Project, Slot
from labeling.roles import curates, labels, person

NEWEST = 5000  # rankings that a page reckons with
DISPUTED = 20  # sets that a page names


@require_GET
@curates
def quality(request: HttpRequest, slug: str) -> HttpResponse:
    """How far labelers agree, and what each of them goes by, over the newest rankings."""
    project = get_object_or_404(Project.objects.curated_by(person(request)), slug=slug)
    judgements = Answer.objects.filter(completion_set__project=project).judgements(NEWEST)
    languages = figures.by_group(judgements, lambda each: [each.language])
    context = {
        "project": project,
        "total": Answer.objects.trainable().filter(completion_set__project=project).count(),
        "reckoned": len(judgements),
        "whole": figures.whole(judgements),
        "languages": [(language_name(code), figure) for code, figure in languages.items()],
        "tags": figures.by_group(judgements, lambda each: each.tags).items(),
        "weeks": figures.by_group(judgements, figures.week).items(),
        "disputed": _disputed(judgements),
        "labelers": figures.labelers(judgements),
        "pairs": [(" · ".join(pair), figure) for pair, figure in figures.labeler_pairs(judgements).items()],
        "section": "curate",
        "tab": "quality",
    }
    return TemplateResponse(request, "labeling/quality.html", context)


def _disputed(judgements: list[figures.Judgement]) -> list[tuple[CompletionSet, float]]:
    """The sets to talk about first, each with how far its labelers are apart."""
    far = dict(figures.disputed(judgements, DISPUTED))
    sets = CompletionSet.objects.filter(pk__in=far).select_related("prompt").in_bulk()
    return [(sets[key], distance) for key, distance in far.items()]


@require_GET
@labels
def own_work(request: HttpRequest) -> HttpResponse:
    """What one has done, how long it took, how far others say the same, and what came back."""
    user = person(request)
    projects = [_own(project, user) for project in Project.objects.labeled_by(user)]
    context = {"projects": projects, "returned": Slot.objects.returned_to(user).count(), "section": "desk"}
    return TemplateResponse(request, "labeling/own_work.html", context)


def _own(project: Project, user: Any) -> dict[str, Any]:
    answered = Slot.objects.answered_by(user).filter(project=project)
    counts = dict(answered.order_by().values_list("task_type").annotate(Count("pk")))
    reviewed = dict(answered.order_by().values_list("review_state").annotate(Count("pk")))
    mine = Answer.objects.standing().filter(completion_set__project=project, labeler=user)
    written = Demonstration.objects.standing().filter(prompt__project=project, author=user)
    seconds = mine.aggregate(total=Sum("current__active_seconds"))["total"] or 0
    # Time goes on being counted from revision to revision.
    seconds += written.annotate(spent=Max("revisions__active_seconds")).aggregate(total=Sum("spent"))["total"] or 0
    shared = Answer.objects.filter(completion_set__in=mine.values("completion_set"))
    return {
        "project": project,
        "rankings": counts.get("ranking", 0),
        "demonstrations": counts.get("demonstration", 0),
        "this_week": answered.filter(answered_at__gte=timezone.now() - timedelta(days=7)).count(),
        "time": timedelta(seconds=round(seconds)),
        "agreement": figures.with_others(shared.judgements(NEWEST), user.username),
        "accepted": reviewed.get("accepted", 0),
        "returned": reviewed.get("returned", 0),
    }
