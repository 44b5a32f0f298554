"""Sets in dispute: what each labeler said side by side, and a curator's decision, which is then what models learn."""

import uuid
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from labeling.consensus import davidson, dispute, ranked_pairs
from labeling.models import Answer, Completion, CompletionSet, Project, Slot
from labeling.quality import disputed
from labeling.rankings import LETTERS
from labeling.roles import curates, person

NEWEST = 5000  # rankings of sets with several that the queue is made from
LONGEST = 100  # sets that it names
DONE = 50


@dataclass(frozen=True)
class Judged:
    """A completion and what was said of it."""

    letter: str
    completion: Completion
    tiers: list[int]
    """By labeler."""
    consensus: int
    strength: float
    """Davidson's log-worth: 1 more is e times the odds to be preferred."""


@require_GET
@curates
def adjudication(request: HttpRequest, slug: str) -> HttpResponse:
    """The queue: sets whose labelers are furthest apart, and those decided last."""
    project = get_object_or_404(Project.objects.curated_by(person(request)), slug=slug)
    decided = Answer.objects.decisions().filter(completion_set__project=project)
    # Whether they count, too, is looked at where they are read.
    others = Answer.objects.filter(completion_set=OuterRef("completion_set")).exclude(pk=OuterRef("pk"))
    said = Answer.objects.filter(Exists(others), completion_set__project=project).exclude(
        completion_set__in=decided.values("completion_set")
    )
    far = dict(disputed(said.judgements(NEWEST), LONGEST))
    sets = CompletionSet.objects.filter(pk__in=far).select_related("prompt").in_bulk()
    context = {
        "project": project,
        "disputed": [(sets[key], distance) for key, distance in far.items()],
        "decided": decided.select_related("completion_set__prompt", "labeler").order_by("-pk")[:DONE],
        "section": "curate",
        "tab": "adjudication",
    }
    return TemplateResponse(request, "labeling/adjudication.html", context)


@require_GET
@curates
def disputed_set(request: HttpRequest, pk: int) -> HttpResponse:
    """One set: every ranking of it beside what they come to."""
    chosen = _set(request, pk)
    answers = _answers(chosen)
    rankings = _rankings(answers)
    context = {
        "project": chosen.project,
        "set": chosen,
        "prompt": chosen.prompt,
        "answers": answers,
        "rows": _judged(chosen, rankings) if rankings else [],
        "dispute": dispute(rankings) if len(rankings) > 1 else None,
        "decision": Answer.objects.decisions().filter(completion_set=chosen).first(),
        "section": "curate",
        "tab": "adjudication",
    }
    return TemplateResponse(request, "labeling/disputed_set.html", context)


@require_POST
@curates
def set_adjudicate(request: HttpRequest, pk: int) -> HttpResponse:
    """Go and rank the set oneself, or take what the rankings come to."""
    chosen = _set(request, pk)
    place = Slot.objects.claim_adjudication(chosen, person(request))
    if place is None or (place.state == Slot.State.LEASED and place.labeler != person(request)):
        messages.info(
            request, _("Another curator is deciding on this set, or you hold another ranking: finish it first.")
        )
        return redirect("set_dispute", pk)
    if place.state == Slot.State.ANSWERED:
        messages.info(request, _("This set has been decided. The decision can be changed."))
        return redirect(place.label)
    if not request.POST.get("consensus"):
        return redirect("task", place.pk)
    answers = _answers(chosen)
    rankings = _rankings(answers)
    try:
        if not rankings:
            raise ValidationError(_("Nobody has ranked this set yet."))
        tiers = ranked_pairs(rankings, chosen.k)
        payload: dict[str, Any] = {"tiers": tiers, "ratings": [None] * chosen.k, "note": ""}
        if chosen.is_pair:
            strengths = [answer.current.strength or 1 for answer in answers if answer.current]
            payload["strength"] = median_low(strengths) if tiers[0] != tiers[1] else 0
        Answer.objects.submit(place, person(request), payload, uuid.uuid4())
    except ValidationError as error:
        messages.error(request, error.messages[0])
        return redirect("set_dispute", pk)
    messages.success(request, _("Decided: models learn what most labelers say of each pair."))
    return redirect("adjudication", chosen.project.slug)


def _set(request: HttpRequest, pk: int) -> CompletionSet:
    sets = CompletionSet.objects.filter(project__in=Project.objects.curated_by(person(request)))
    return get_object_or_404(sets.select_related("project", "prompt"), pk=pk)


def _answers(chosen: CompletionSet) -> list[Answer]:
    independent = Answer.objects.independent().filter(completion_set=chosen)
    return list(independent.select_related("current", "labeler").order_by("pk"))


def _rankings(answers: list[Answer]) -> list[list[int]]:
    return [answer.current.tiers for answer in answers if answer.current]


def _judged(chosen: CompletionSet, rankings: list[list[int]]) -> list[Judged]:
    """The completions, the best by consensus first."""
    tiers, strengths = ranked_pairs(rankings, chosen.k), davidson(rankings, chosen.k)
    rows = [
        Judged(LETTERS[each.index], each, [said[each.index] for said in rankings], tiers[each.index], worth)
        for each, worth in zip(chosen.completions.all(), strengths.log_worths, strict=True)
    ]
    return sorted(rows, key=lambda row: (row.consensus, -row.strength))
