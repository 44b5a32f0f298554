"""Labels as files for other programs: ask for one, watch it being written, download it."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from labeling.downloads import Download
from labeling.forms import ExportForm
from labeling.models import Export, Project
from labeling.roles import exports, person

SHOWN = 50


@require_http_methods(["GET", "POST"])
@exports
def export_list(request: HttpRequest, slug: str) -> HttpResponse:
    """The project's exports, and the form that asks for one."""
    project = _project(request, slug)
    form = ExportForm(request.POST or None, project=project, by=person(request))
    if request.method == "POST" and form.is_valid():
        form.start()
        messages.success(request, _("The file is being written. It appears below."))
        return redirect("export_list", slug)
    context = {
        "project": project,
        "form": form,
        "section": "curate",
        "tab": "exports",
        "is_guest": not form.is_curator,
        **_rows(request, project),
    }
    return TemplateResponse(request, "labeling/export_list.html", context)


@require_GET
@exports
def export_rows(request: HttpRequest, slug: str) -> HttpResponse:
    """The list alone: asked for again and again while something is being written."""
    project = _project(request, slug)
    return TemplateResponse(request, "labeling/_export_rows.html", {"project": project, **_rows(request, project)})


@require_GET
@exports
def export_file(request: HttpRequest, pk: int) -> HttpResponse:
    export = _export(request, pk)
    try:
        file = export.file.open("rb")
    except (ValueError, FileNotFoundError) as error:  # none yet, or none any more
        raise Http404 from error
    return Download(  # type: ignore[return-value]  # a response, if not one that is an HttpResponse
        file, as_attachment=True, filename=export.download_name, content_type=export.content_type
    )


@require_POST
@exports
def export_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    export = _export(request, pk)
    export.request_cancel()
    return redirect("export_list", export.project.slug)


@require_POST
@exports
def export_discard(request: HttpRequest, pk: int) -> HttpResponse:
    export = _export(request, pk)
    export.discard()
    messages.success(request, _("The file is gone. The labels stay."))
    return redirect("export_list", export.project.slug)


def _project(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.exported_by(request.user), slug=slug)


def _export(request: HttpRequest, pk: int) -> Export:
    export: Export = get_object_or_404(Export.objects.visible_to(request.user).select_related("project"), pk=pk)
    return export


def _rows(request: HttpRequest, project: Project) -> dict[str, Any]:
    rows = list(Export.objects.visible_to(request.user).filter(project=project).select_related("by", "project")[:SHOWN])
    is_busy = any(export.is_unfinished for export in rows)
    return {"exports": rows, "is_busy": is_busy, "is_stalled": is_busy and Export.objects.is_stalled()}
