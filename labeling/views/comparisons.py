"""Comparisons out of a file: upload, say how to take them, look at the preview, take; then watch the job."""

from collections import Counter
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from labeling.forms import ComparisonChoicesForm, ComparisonsForm
from labeling.models import ComparisonImport, Project
from labeling.models.comparing import LOOKED_AT
from labeling.roles import curates, person
from labeling.views.imports import import_list_page

SHOWN = 30


@require_POST
@curates
def comparison_upload(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    form = ComparisonsForm(request.POST, request.FILES, prefix="comparisons")
    if form.is_valid():
        try:
            batch = ComparisonImport.objects.upload(project, person(request), form.cleaned_data["file"])
        except ValidationError as error:
            form.add_error("file", error)
        else:
            return redirect("comparison_page", batch.pk)
    return import_list_page(request, project, comparisons_form=form)


@require_GET
@curates
def comparison_page(request: HttpRequest, pk: int) -> HttpResponse:
    batch = _import(request, pk)
    context = {"project": batch.project, "batch": batch, "section": "curate", "tab": "imports"}
    if not batch.is_waiting:
        return TemplateResponse(request, "labeling/comparison_taken.html", context | _state(batch))
    context |= {"form": ComparisonChoicesForm(instance=batch)} | _preview(request, batch)
    return TemplateResponse(request, "labeling/comparison_page.html", context)


@require_POST
@curates
def comparison_choices(request: HttpRequest, pk: int) -> HttpResponse:
    """Keep what was chosen and show what would become of the records: the part of the page below its title."""
    batch = _import(request, pk)
    form = ComparisonChoicesForm(request.POST, instance=batch)
    context: dict[str, Any] = {"project": batch.project, "batch": batch, "form": form}
    if batch.is_waiting and form.is_valid():
        form.save()
        context |= _preview(request, batch)
    return TemplateResponse(request, "labeling/_comparison.html", context)


@require_POST
@curates
def comparison_take(request: HttpRequest, pk: int) -> HttpResponse:
    batch = _import(request, pk)
    if batch.is_waiting and request.POST.get("fingerprint") != batch.fingerprint:
        messages.warning(
            request, _("The choices were changed in another tab. Look at the preview again, then take it.")
        )
    else:
        batch.take(person(request), approve="approve" in request.POST)
    return redirect("comparison_page", pk)


@require_GET
@curates
def comparison_state(request: HttpRequest, pk: int) -> HttpResponse:
    """How far the job is: asked for again and again while it works."""
    batch = _import(request, pk)
    context = {"project": batch.project, "batch": batch} | _state(batch)
    return TemplateResponse(request, "labeling/_comparison_state.html", context)


@require_POST
@curates
def comparison_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    _import(request, pk).request_cancel()
    return redirect("comparison_page", pk)


@require_POST
@curates
def comparison_resume(request: HttpRequest, pk: int) -> HttpResponse:
    """Go on where an import was cancelled or failed."""
    _import(request, pk).requeue()
    return redirect("comparison_page", pk)


@require_POST
@curates
def comparison_discard(request: HttpRequest, pk: int) -> HttpResponse:
    batch = _import(request, pk)
    slug = batch.project.slug
    batch.discard()
    messages.success(request, _("The upload is gone. What was taken from it before stays."))
    return redirect("import_list", slug)


def _import(request: HttpRequest, pk: int) -> ComparisonImport:
    found: ComparisonImport = get_object_or_404(
        ComparisonImport.objects.curated_by(request.user).select_related("project", "by", "taken_by"), pk=pk
    )
    return found


def _preview(request: HttpRequest, batch: ComparisonImport) -> dict[str, Any]:
    """Counts and reasons of the first records, and some of those of one kind."""
    try:
        rows = batch.preview()
    except ValidationError as error:
        return {"problem": error.messages[0]}
    by_kind = {kind: [row for row in rows if row.kind == kind] for kind in ("taken", "duplicate", "refused")}
    shown = request.GET.get("show", "")
    if shown not in by_kind:
        shown = next((kind for kind, found in by_kind.items() if found), "taken")
    return {
        "total": len(rows),
        "is_part": len(rows) == LOOKED_AT,
        "counts": {kind: len(found) for kind, found in by_kind.items()},
        "reasons": Counter(str(row.problem) for row in by_kind["refused"]).most_common(20),
        "rankings": sum(len(row.comparison.said) for row in by_kind["taken"] if row.comparison),
        "shown": shown,
        "rows": by_kind[shown][:SHOWN],
    }


def _state(batch: ComparisonImport) -> dict[str, Any]:
    """Why records were refused, and whether the job waits for want of a worker."""
    is_stalled = batch.state == batch.State.QUEUED and ComparisonImport.objects.is_stalled()
    reasons = sorted(batch.report.get("reasons", {}).items(), key=lambda pair: -pair[1])
    return {"reasons": reasons, "is_stalled": is_stalled}
