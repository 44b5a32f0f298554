"""What labelers are told: every change is a new version, and every label carries the number of its own."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from labeling.forms import InstructionsForm
from labeling.models import Project
from labeling.roles import curates, person


@require_http_methods(["GET", "POST"])
@curates
def instructions_edit(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    latest = project.instructions
    form = InstructionsForm(project, latest, request.POST or None)
    if request.method == "POST" and form.is_valid():
        if latest and form.bodies() == latest.bodies:
            messages.info(request, _("Nothing was changed, so there is no new version."))
            return redirect("instructions_edit", slug)
        version = project.revise_instructions(form.bodies(), person(request))
        messages.success(request, _("Version %(number)s is published.") % {"number": version.number})
        return redirect("instruction_version", slug, version.number)
    context = {"project": project, "form": form, "latest": latest, "section": "curate", "tab": "instructions"}
    return TemplateResponse(request, "labeling/instructions_edit.html", context)


@require_GET
@curates
def instruction_version(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """One version as labelers read it, and the list of all."""
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    version = get_object_or_404(project.instruction_versions, number=number)
    context = {
        "project": project,
        "version": version,
        "versions": project.instruction_versions.select_related("author").defer("bodies"),
        "section": "curate",
        "tab": "instructions",
    }
    return TemplateResponse(request, "labeling/instruction_version.html", context)
