"""Can I train on this? What a job has found out about a project's labels, with a verdict in words."""

from dataclasses import asdict
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST
from django_htmx.http import HttpResponseClientRefresh

from labeling import advice, readiness
from labeling.languages import language_name
from labeling.learning import ceiling
from labeling.models import Answer, Project, Prompt, Readiness, ScoringJob
from labeling.plots import learning_plot
from labeling.roles import curates, exports, person


@require_GET
@exports
def readiness_page(request: HttpRequest, slug: str) -> HttpResponse:
    """The last report that was reckoned, read anew in the light of what was mended since."""
    project = _project(request, slug)
    last = Readiness.objects.newest(project)
    is_curator = Project.objects.curated_by(person(request)).filter(pk=project.pk).exists()
    context: dict[str, Any] = {
        "project": project,
        "section": "curate",
        "tab": "readiness",
        "is_guest": not is_curator,
        "is_curator": is_curator,
        **_standing(project),
    }
    if last:
        context |= {"last": last, **_shown(last.report)}
    return TemplateResponse(request, "labeling/readiness.html", context)


@require_GET
@exports
def readiness_progress(request: HttpRequest, slug: str) -> HttpResponse:
    """How far the jobs are; once they are through, the page is loaded anew."""
    project = _project(request, slug)
    standing = _standing(project)
    if not standing["is_busy"]:
        return HttpResponseClientRefresh()
    return TemplateResponse(request, "labeling/_readiness_progress.html", {"project": project, **standing})


@require_POST
@exports
def readiness_reckon(request: HttpRequest, slug: str) -> HttpResponse:
    """Look over the labels anew, and score what has no scores yet."""
    project = _project(request, slug)
    ScoringJob.objects.ask(project)
    Readiness.objects.ask(project)
    return redirect("readiness", slug)


@require_POST
@curates
def prompt_join_training(request: HttpRequest, pk: int) -> HttpResponse:
    """Mend a leak: a held-out prompt that stands in training, too, no longer measures anything."""
    prompt = get_object_or_404(Prompt.objects.curated_by(person(request)).select_related("project"), pk=pk)
    if Prompt.objects.filter(pk=prompt.pk).join_training():
        messages.success(request, _("The prompt and its translations are in training now."))
    return redirect("readiness", prompt.project.slug)


def _project(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.exported_by(person(request)), slug=slug)


def _standing(project: Project) -> dict[str, Any]:
    """The jobs that are under way or have failed."""
    look = Readiness.objects.under_way(project)
    scoring = ScoringJob.objects.filter(project=project).order_by("-pk").first()
    under_way = [
        jobs for job, jobs in ((look, Readiness.objects), (scoring, ScoringJob.objects)) if job and job.is_unfinished
    ]
    is_stalled = any(jobs.is_stalled() for jobs in under_way)
    return {"look": look, "scoring": scoring, "is_busy": bool(under_way), "is_stalled": is_stalled}


def _shown(report: dict[str, Any]) -> dict[str, Any]:
    leaks = readiness.still_there(report["leaks"])
    mended = len(report["leaks"]) - len(leaks)
    people, curve = report["agreement"], report["curve"]
    return {
        "report": report,
        "verdict": advice.verdict(report, report["leaks_total"] - mended),
        "ceiling": ceiling(people["rate"]) if people["rate"] is not None else None,
        "ceiling_advice": advice.ceiling_advice(report),
        "purchases": advice.purchases(report),
        "plot": learning_plot(report["runs"], curve["line"]) if curve else None,
        "suspects": _suspects(report["suspects"]),
        "leaks": [asdict(leak) | {"one": one, "other": other} for leak, one, other in leaks],
        "splits": [(Prompt.Split(split).label, row) for split, row in report["volume"]["splits"].items()],
        "languages": [(language_name(code), row) for code, row in report["volume"]["languages"].items()],
        "tags": report["volume"]["tags"].items(),
        "instructgpt": advice.INSTRUCTGPT,
    }


def _suspects(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that nobody has looked at since, each with its ranking and the two completions that it is clearest in."""
    waiting = Answer.objects.trainable().filter(slot__review_state="")
    answers = (
        waiting.select_related("completion_set__prompt", "labeler")
        .prefetch_related("completion_set__completions")
        .in_bulk([row["answer"] for row in rows])
    )
    shown = []
    for row in rows:
        if answer := answers.get(row["answer"]):
            texts = answer.completion_set.texts
            voters = row["others"] + row["alike"]
            texts_of = {"answer": answer, "better": texts[row["better"]], "worse": texts[row["worse"]]}
            shown.append({**row, **texts_of, "voters": voters})
    return shown
