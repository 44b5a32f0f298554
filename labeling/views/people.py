"""The labelers of a project: how they fare in hidden checks, what they are given, and quarantine."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from labeling.forms import ParticipationForm
from labeling.impact import impact
from labeling.models import Answer, Demonstration, KnownAnswer, Participation, Project, Slot, User
from labeling.models.demonstration import DemonstrationQuerySet
from labeling.quality import Figure, retests
from labeling.roles import curates, person


@dataclass(frozen=True)
class Row:
    participation: Participation
    rankings: int
    demonstrations: int
    gold: Figure
    retest: Figure
    pasted: float | None


@require_GET
@curates
def people(request: HttpRequest, slug: str) -> HttpResponse:
    """Everybody who labels in a project, with what their hidden checks say, and the known answers themselves."""
    project = get_object_or_404(Project.objects.curated_by(person(request)), slug=slug)
    known = KnownAnswer.objects.filter(completion_set__project=project).select_related(
        "completion_set__prompt", "answer__labeler", "by"
    )
    context = {
        "project": project,
        "rows": [_row(project, labeler) for labeler in _labelers(project)],
        "known": known,
        "section": "curate",
        "tab": "people",
    }
    return TemplateResponse(request, "labeling/people.html", context)


@require_http_methods(["GET", "POST"])
@curates
def labeler_page(request: HttpRequest, slug: str, labeler: int) -> HttpResponse:
    """What one labeler is given: languages, tags, screening; and the door to quarantine."""
    participation = _participation(request, slug, labeler)
    form = ParticipationForm(request.POST or None, instance=participation)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("Saved."))
        return redirect("labeler", slug, labeler)
    context = {
        "project": participation.project,
        "participation": participation,
        "row": _row(participation.project, participation.labeler),
        "form": form,
        "impact": impact(participation),
        "section": "curate",
        "tab": "people",
    }
    return TemplateResponse(request, "labeling/labeler.html", context)


@require_POST
@curates
def labeler_quarantine(request: HttpRequest, slug: str, labeler: int) -> HttpResponse:
    """Take out what a labeler said, or put it back in."""
    participation = _participation(request, slug, labeler)
    if request.POST.get("lift"):
        participation.lift_quarantine()
        messages.success(request, _("What they said counts again."))
    else:
        try:
            participation.quarantine(request.POST.get("reason"))
        except ValidationError as error:
            messages.error(request, error.messages[0])
        else:
            messages.success(
                request, _("In quarantine: nothing they said is trained on, and others are asked instead.")
            )
    return redirect("labeler", slug, labeler)


@require_POST
@curates
def answer_known(request: HttpRequest, pk: int) -> HttpResponse:
    """Hold a ranking to be the right one, or withdraw that."""
    curated = Project.objects.curated_by(person(request))
    answer = get_object_or_404(Answer.objects.standing().filter(completion_set__project__in=curated), pk=pk)
    if request.POST.get("withdraw"):
        KnownAnswer.objects.filter(answer=answer).delete()
        messages.success(request, _("No longer a known answer."))
        return redirect(answer)
    try:
        KnownAnswer.objects.declare(answer, request.POST.get("kind"), person(request))
    except ValidationError as error:
        messages.error(request, error.messages[0])
    else:
        messages.success(request, _("This is a known answer now. Labelers are not told."))
    return redirect(answer)


def _labelers(project: Project) -> Any:
    """Members who label, and whoever has labeled there."""
    members = project.members.filter(groups__name="labeler")
    answered = Slot.objects.filter(project=project, state="answered").exclude(purpose=Slot.Purpose.ADJUDICATION)
    worked = User.objects.filter(pk__in=answered.values("labeler"))
    return (members.distinct() | worked.distinct()).order_by("username")


def _participation(request: HttpRequest, slug: str, labeler: int) -> Participation:
    project = get_object_or_404(Project.objects.curated_by(person(request)), slug=slug)
    return Participation.objects.of(project, get_object_or_404(_labelers(project), pk=labeler))


def _row(project: Project, labeler: User) -> Row:
    participation = Participation.objects.of(project, labeler)
    answered = Slot.objects.answered_by(labeler).filter(project=project, purpose=Slot.Purpose.LABEL)
    counts = Counter(dict(answered.order_by().values_list("task_type").annotate(Count("pk"))))
    written: DemonstrationQuerySet = Demonstration.objects.standing().filter(prompt__project=project, author=labeler)
    return Row(
        participation=participation,
        rankings=counts["ranking"],
        demonstrations=counts["demonstration"],
        gold=Figure.of(KnownAnswer.objects.checked(participation)),
        retest=retests(Answer.objects.repeats(participation)),
        pasted=written.pasted_share(),
    )
