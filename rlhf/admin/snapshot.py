"""Snapshots: freeze, look at, check, download."""

import json
from collections import Counter
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from labeling.downloads import Download
from rlhf.admin.base import OpsAdmin, link
from rlhf.forms import FreezeForm
from rlhf.models import DatasetSnapshot
from rlhf.snapshots import Counts, count_labels

KINDS = {
    "rankings": _("rankings"),
    "pairs": _("pairs"),
    "tied_pairs": _("tied pairs"),
    "demonstrations": _("demonstrations"),
    "prompts": _("prompts"),
}


def counts_table(counts: Counts) -> SafeString:
    """Rankings, pairs ... by split, and by language below."""
    train, heldout = Counter(counts.get("train", {})), Counter(counts.get("heldout", {}))
    languages = sorted({key.partition(":")[2] for key in train | heldout if ":" in key})
    rows = []
    for key, name in KINDS.items():
        rows.append({"name": name, "train": train[key], "heldout": heldout[key], "total": train[key] + heldout[key]})
        for language in languages:
            part = f"{key}:{language}"
            if total := train[part] + heldout[part]:
                rows.append({"language": language, "train": train[part], "heldout": heldout[part], "total": total})
    return render_to_string("admin/rlhf/datasetsnapshot/_counts.html", {"rows": rows})


@admin.register(DatasetSnapshot)
class SnapshotAdmin(OpsAdmin[DatasetSnapshot]):
    list_display = ["number", "project", "created_at", "rankings", "pairs", "demonstrations", "run_count", "by"]
    list_filter = ["project"]
    list_select_related = ["project", "by"]
    fieldsets = [
        (None, {"fields": ["project", "created_at", "by", "used_by"]}),
        (_("What is in it"), {"fields": ["contents"]}),
        (_("Files"), {"fields": ["hash", "directory", "files"]}),
    ]
    readonly_fields = ["used_by", "contents", "files"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[DatasetSnapshot]:
        return super().get_queryset(request).annotate(run_total=Count("runs"))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_view_permission(request) and obj is not None and not obj.runs.exists()

    def get_urls(self) -> list[URLPattern]:
        own = [
            path("freeze/", self.guarded(self.freeze_view), name=self.named("freeze")),
            path("<int:pk>/verify/", self.guarded(require_POST(self.verify_view)), name=self.named("verify")),
            path("<int:pk>/files/<str:name>", self.guarded(self.file_view), name=self.named("file")),
        ]
        return own + super().get_urls()

    def freeze_view(self, request: HttpRequest) -> HttpResponse:
        title = _("Freeze a snapshot")
        project = self.chosen_project(request)
        if project is None:
            return self.choose_project_page(request, title)
        form = FreezeForm(request.POST or None)
        if request.method == "POST" and form.is_valid() and (snapshot := form.save(project, request.user)):
            self.log_addition(request, snapshot, "frozen")
            messages.success(request, _("The snapshot is frozen. Training runs can start from it."))
            return redirect(reverse("admin:rlhf_datasetsnapshot_change", args=[snapshot.pk]))
        counts = count_labels(project)
        return self.form_page(
            request,
            form,
            title,
            _("Freeze"),
            template="datasetsnapshot/freeze.html",
            project=project,
            contents=counts_table(counts),
            is_empty=not any(counts.values()),
            train=counts["train"],
            last=DatasetSnapshot.objects.filter(project=project).first(),
        )

    def verify_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        snapshot = get_object_or_404(DatasetSnapshot, pk=pk)
        if complaints := snapshot.complaints():
            text = format_html("{} {}", _("The files are no longer as they were frozen:"), " ".join(complaints))
            messages.error(request, text)
        else:
            messages.success(request, _("Every file is as it was frozen."))
        return redirect(reverse("admin:rlhf_datasetsnapshot_change", args=[pk]))

    def file_view(self, request: HttpRequest, pk: int, name: str) -> Download:
        snapshot = get_object_or_404(DatasetSnapshot, pk=pk)
        if name not in {"manifest.json", *_files(snapshot)}:
            raise Http404
        try:
            file = (snapshot.path / name).open("rb")
        except FileNotFoundError as error:
            raise Http404 from error
        return Download(file, as_attachment=True, filename=f"snapshot-{pk}-{name}")

    @admin.display(description=_("snapshot"), ordering="pk")
    def number(self, snapshot: DatasetSnapshot) -> str:
        return f"#{snapshot.pk}"

    @admin.display(description=_("rankings"))
    def rankings(self, snapshot: DatasetSnapshot) -> int:
        return snapshot.total("rankings")

    @admin.display(description=_("pairs"))
    def pairs(self, snapshot: DatasetSnapshot) -> int:
        return snapshot.total("pairs")

    @admin.display(description=_("demonstrations"))
    def demonstrations(self, snapshot: DatasetSnapshot) -> int:
        return snapshot.total("demonstrations")

    @admin.display(description=_("training runs"), ordering="run_total")
    def run_count(self, snapshot: Any) -> SafeString:
        url = reverse("admin:rlhf_trainingrun_changelist")
        return format_html('<a href="{}?snapshot__id__exact={}">{}</a>', url, snapshot.pk, snapshot.run_total)

    @admin.display(description=_("training runs"))
    def used_by(self, snapshot: DatasetSnapshot) -> SafeString | str:
        runs = [(link(run),) for run in snapshot.runs.all()]
        return format_html_join(", ", "{}", runs) or str(_("none yet"))

    @admin.display(description=_("counts"))
    def contents(self, snapshot: DatasetSnapshot) -> SafeString:
        return counts_table(snapshot.counts)

    @admin.display(description=_("download"))
    def files(self, snapshot: DatasetSnapshot) -> SafeString:
        names = [*_files(snapshot), "manifest.json"]
        links = [(reverse("admin:rlhf_datasetsnapshot_file", args=[snapshot.pk, name]), name) for name in names]
        return format_html_join(" · ", '<a href="{}">{}</a>', links)


def _files(snapshot: DatasetSnapshot) -> list[str]:
    """Names of the files that the manifest lists; none where it is gone or unreadable."""
    try:
        return sorted(json.loads((snapshot.path / "manifest.json").read_bytes())["files"])
    except (OSError, ValueError, KeyError):
        return []
