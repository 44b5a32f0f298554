"""A curator's projects: overview, settings, and how the sampling goes."""

from typing import Any

from django.contrib import messages
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from labeling.forms import ProjectForm
from labeling.models import Project, Prompt, SamplingJob
from labeling.roles import curates, person


@require_GET
@curates
def project_list(request: HttpRequest) -> HttpResponse:
    projects = Project.objects.curated_by(request.user).annotate(
        approved=_count(Prompt.objects.approved()), waiting=_count(Prompt.objects.awaiting_approval())
    )
    return TemplateResponse(request, "labeling/project_list.html", {"projects": projects, "section": "curate"})


@require_http_methods(["GET", "POST"])
@curates
def project_new(request: HttpRequest) -> HttpResponse:
    by = person(request)
    initial = {"languages": ["en", "ko"], "members": [by.pk]}
    form = ProjectForm(request.POST or None, by=by, initial=initial)
    if request.method == "POST" and form.is_valid():
        project = form.start()
        messages.success(request, _("The project is there. Next, write its instructions and add prompts."))
        return redirect("project", project.slug)
    return TemplateResponse(request, "labeling/project_new.html", {"form": form, "section": "curate"})


@require_GET
@curates
def project(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    counts = project.prompt_counts()
    context = {
        "project": project,
        "section": "curate",
        "tab": "overview",
        "rows": [
            (state, [(code, counts.get((state.value, code), 0)) for code in project.languages])
            for state in Prompt.State
        ],
        "has_prompts": bool(counts),
        "waiting": sum(number for (state, _code), number in counts.items() if state in ("draft", "in_review")),
        "members": project.members.order_by("username").prefetch_related("groups"),
    }
    return TemplateResponse(request, "labeling/project.html", context | _sampling(project))


@require_GET
@curates
def sampling(request: HttpRequest, slug: str) -> HttpResponse:
    """How far the current policy is with the approved prompts: asked for again and again by the overview."""
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    return TemplateResponse(request, "labeling/_sampling.html", {"project": project} | _sampling(project))


@require_http_methods(["GET", "POST"])
@curates
def project_settings(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    form = ProjectForm(request.POST or None, instance=project, by=person(request))
    if request.method == "POST" and form.is_valid():
        form.reconfigure()
        messages.success(request, _("Saved. The number of completions and the sampling hold for sets to come."))
        return redirect("project_settings", slug)
    context = {"project": project, "form": form, "section": "curate", "tab": "settings"}
    return TemplateResponse(request, "labeling/project_settings.html", context)


def _count(prompts: QuerySet[Prompt]) -> Coalesce:
    """How many of `prompts` each project has, out of an index."""
    counts = prompts.filter(project=OuterRef("pk")).order_by().values("project").annotate(number=Count("pk"))
    return Coalesce(Subquery(counts.values("number")), 0)


def _sampling(project: Project) -> dict[str, Any]:
    sets = project.completion_sets.filter(policy_name=project.policy_name)
    counts = {"in_work": sets.in_work().count(), "sampled": sets.sampled().count(), "failed": sets.failed().count()}
    return {
        **counts,
        "wanted": sum(counts.values()),
        "is_stalled": bool(counts["in_work"]) and SamplingJob.objects.is_stalled(),
    }
