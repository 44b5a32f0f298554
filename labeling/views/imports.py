"""Prompts out of a file: upload, say which column holds what, look at the preview, take."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from labeling.forms import ComparisonsForm, MappingForm, UploadForm
from labeling.models import Import, Project
from labeling.roles import curates, person

PAGE = 50


@require_http_methods(["GET", "POST"])
@curates
def import_list(request: HttpRequest, slug: str) -> HttpResponse:
    """The project's imports, and the form that starts one."""
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    form = UploadForm(request.POST, request.FILES) if request.method == "POST" else UploadForm()
    if request.method == "POST" and form.is_valid():
        try:
            batch = Import.objects.upload(project, person(request), form.cleaned_data["file"])
        except ValidationError as error:
            form.add_error("file", error)
        else:
            return redirect("import_page", batch.pk)
    return import_list_page(request, project, form=form)


def import_list_page(request: HttpRequest, project: Project, **forms: Any) -> TemplateResponse:
    context = {
        "project": project,
        "form": UploadForm(),
        "comparisons_form": ComparisonsForm(prefix="comparisons"),
        "imports": project.imports.select_related("author")[:100],
        "comparisons": project.comparison_imports.select_related("by")[:100],
        "section": "curate",
        "tab": "imports",
        **forms,
    }
    return TemplateResponse(request, "labeling/import_list.html", context)


@require_GET
@curates
def import_page(request: HttpRequest, pk: int) -> HttpResponse:
    batch = _import(request, pk)
    context: dict[str, Any] = {"project": batch.project, "batch": batch, "section": "curate", "tab": "imports"}
    try:
        if batch.state == Import.State.TAKEN:
            return TemplateResponse(request, "labeling/import_taken.html", context)
        if not batch.encoding:
            context["lines"] = batch.first_lines_in_korean()
            return TemplateResponse(request, "labeling/import_encoding.html", context)
        context |= {"form": MappingForm(instance=batch)} | _preview(request, batch)
    except ValidationError as error:
        context["problem"] = error.messages[0]
    return TemplateResponse(request, "labeling/import_page.html", context)


@require_POST
@curates
def import_mapping(request: HttpRequest, pk: int) -> HttpResponse:
    """Keep what was chosen and show what would become of every row: the part of the page below its title."""
    batch = _import(request, pk)
    context: dict[str, Any] = {"project": batch.project, "batch": batch}
    try:
        form = context["form"] = MappingForm(request.POST, instance=batch)
        if batch.state == Import.State.UPLOADED and form.is_valid():
            form.save()
            context |= _preview(request, batch)
    except ValidationError as error:
        context["problem"] = error.messages[0]
    return TemplateResponse(request, "labeling/_import.html", context)


@require_POST
@curates
def import_encoding(request: HttpRequest, pk: int) -> HttpResponse:
    batch = _import(request, pk)
    try:
        batch.accept_encoding()
    except ValidationError as error:
        messages.error(request, error.messages[0])
    return redirect("import_page", pk)


@require_POST
@curates
def import_take(request: HttpRequest, pk: int) -> HttpResponse:
    batch = _import(request, pk)
    if request.POST.get("fingerprint") != batch.fingerprint and batch.state == Import.State.UPLOADED:
        messages.warning(
            request, _("The choices were changed in another tab. Look at the preview again, then take it.")
        )
        return redirect("import_page", pk)
    try:
        taken = batch.take(person(request), approve="approve" in request.POST)["taken"]
    except ValidationError as error:
        messages.error(request, error.messages[0])
    else:
        messages.success(
            request, ngettext("%(count)s prompt was taken.", "%(count)s prompts were taken.", taken) % {"count": taken}
        )
    return redirect("import_page", pk)


@require_POST
@curates
def import_discard(request: HttpRequest, pk: int) -> HttpResponse:
    batch = _import(request, pk)
    slug = batch.project.slug
    batch.discard()
    messages.success(request, _("The upload is gone. What was taken from it before stays."))
    return redirect("import_list", slug)


def _import(request: HttpRequest, pk: int) -> Import:
    return get_object_or_404(Import.objects.curated_by(request.user).select_related("project"), pk=pk)


def _preview(request: HttpRequest, batch: Import) -> dict[str, Any]:
    """Counts, and one page of the rows of one kind. Nothing where the prompt's column is not chosen yet."""
    if not batch.mapping.get("prompt"):
        return {}
    rows = batch.preview()
    by_kind = {kind: [row for row in rows if row.kind == kind] for kind in ("taken", "duplicate", "refused")}
    shown = request.GET.get("show", "")
    if shown not in by_kind:
        shown = next((kind for kind, found in by_kind.items() if found), "taken")
    return {
        "total": len(rows),
        "counts": {kind: len(found) for kind, found in by_kind.items()},
        "demonstrations": sum(bool(row.demonstration) for row in by_kind["taken"]),
        "shown": shown,
        "page": Paginator(by_kind[shown], PAGE).get_page(request.GET.get("page")),
    }
