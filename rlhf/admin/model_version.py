"""Model versions: where each came from, what it can do, and which project samples from it."""

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from labeling import export
from rlhf import parameters
from rlhf.admin.base import OpsAdmin, link
from rlhf.curves import name_of
from rlhf.forms import PromoteForm
from rlhf.models import DatasetSnapshot, ModelVersion

HEADLINES = ("reward", "heldout_accuracy", "accuracy", "heldout_loss", "loss")
"""Of these, the first that a version has is shown in the list."""


class ArchivedFilter(admin.SimpleListFilter):
    title = gettext_lazy("archived")
    parameter_name = "archived"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("no", _("no")), ("yes", _("yes"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(archived_at__isnull=self.value() == "no") if self.value() else queryset


@admin.register(ModelVersion)
class ModelVersionAdmin(OpsAdmin[ModelVersion]):
    list_filter = ["kind", ArchivedFilter]
    search_fields = ["name"]
    fieldsets = [
        (None, {"fields": ["name", "kind", "spoken", "policy_of", "created_at", "archived_at"]}),
        (gettext_lazy("Where it came from"), {"fields": ["made_from", "led_to", "made_by", "frozen_labels"]}),
        (gettext_lazy("Metrics"), {"fields": ["measured"]}),
        (gettext_lazy("Parameters"), {"fields": ["settings"]}),
        (gettext_lazy("Files"), {"fields": ["directory", "manifest_hash"]}),
    ]
    readonly_fields = ["spoken", "policy_of", "made_from", "led_to", "made_by", "frozen_labels", "measured", "settings"]

    def get_list_display(self, request: HttpRequest) -> list[str | Callable[[ModelVersion], str | bool]]:
        projects: dict[str, list[Any]] = defaultdict(list)
        for project in export.projects(request.user):
            projects[project.policy_name].append(project)

        @admin.display(description=gettext_lazy("current policy of"))
        def policy_of(version: ModelVersion) -> str:
            return ", ".join(str(project) for project in projects[version.name]) or "–"

        return ["name", "kind", policy_of, "spoken", "headline", "created_at", "archived_at"]

    def get_urls(self) -> list[URLPattern]:
        own = [
            path("<int:pk>/promote/", self.guarded(self.promote_view), name=self.named("promote")),
            path("<int:pk>/archive/", self.guarded(require_POST(self.archive_view)), name=self.named("archive")),
            path("<int:pk>/unarchive/", self.guarded(require_POST(self.unarchive_view)), name=self.named("unarchive")),
            path("<int:pk>/verify/", self.guarded(require_POST(self.verify_view)), name=self.named("verify")),
        ]
        return own + super().get_urls()

    def promote_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        version = get_object_or_404(ModelVersion, pk=pk)
        form = PromoteForm(request.POST or None, user=request.user, initial={"project": self.chosen_project(request)})
        if request.method == "POST" and form.is_valid() and (promotion := form.save(version, request.user)):
            project = promotion.project
            self.log_change(request, version, f"promoted in {project}")
            messages.success(
                request,
                _("“%(project)s” samples from “%(name)s” from now on.") % {"project": project, "name": version},
            )
            return redirect(reverse("admin:rlhf_promotion_changelist") + f"?project__id__exact={project.pk}")
        return self.form_page(
            request,
            form,
            _("Promote “%(name)s”") % {"name": version},
            _("Promote"),
            template="modelversion/promote.html",
            version=version,
        )

    def archive_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        version = get_object_or_404(ModelVersion, pk=pk)
        if self.attempt(request, version.archive):
            self.log_change(request, version, "archived")
            messages.success(request, _("“%(name)s” is archived.") % {"name": version})
        return self._back(pk)

    def unarchive_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        version = get_object_or_404(ModelVersion, pk=pk)
        version.unarchive()
        self.log_change(request, version, "taken out of the archive")
        messages.success(request, _("“%(name)s” can be used again.") % {"name": version})
        return self._back(pk)

    def verify_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        version = get_object_or_404(ModelVersion, pk=pk)
        if complaints := version.complaints():
            messages.error(request, format_html("{} {}", _("The files cannot be used:"), " ".join(complaints)))
        else:
            messages.success(request, _("Every file is as it was written."))
        return self._back(pk)

    def _back(self, pk: int) -> HttpResponse:
        return redirect(reverse("admin:rlhf_modelversion_change", args=[pk]))

    @admin.display(description=gettext_lazy("languages"))
    def spoken(self, version: ModelVersion) -> str:
        return ", ".join(version.languages) or "–"

    @admin.display(description=gettext_lazy("current policy of"))
    def policy_of(self, version: ModelVersion) -> str:
        projects = {str(promotion.project) for promotion in version.current_promotions().select_related("project")}
        return ", ".join(sorted(projects)) or "–"

    @admin.display(description=gettext_lazy("result"))
    def headline(self, version: ModelVersion) -> str:
        for name in HEADLINES:
            if isinstance(value := version.metrics.get(name), int | float):
                return f"{name_of(name)} {value:.4g}"
        return "–"

    @admin.display(description=gettext_lazy("made from"))
    def made_from(self, version: ModelVersion) -> SafeString | str:
        return format_html_join(", ", "{}", [(link(parent),) for parent in version.parents.all()]) or "–"

    @admin.display(description=gettext_lazy("led to"))
    def led_to(self, version: ModelVersion) -> SafeString | str:
        return format_html_join(", ", "{}", [(link(child),) for child in version.children.all()]) or "–"

    @admin.display(description=gettext_lazy("training run"))
    def made_by(self, version: ModelVersion) -> SafeString | str:
        return link(getattr(version, "run", None))

    @admin.display(description=gettext_lazy("dataset snapshot"))
    def frozen_labels(self, version: ModelVersion) -> SafeString | str:
        if not version.snapshot_hash:
            return "–"
        snapshot = DatasetSnapshot.objects.filter(hash=version.snapshot_hash).select_related("project").first()
        return format_html("{} <code>{}</code>", link(snapshot), version.snapshot_hash)

    @admin.display(description=gettext_lazy("at the end"))
    def measured(self, version: ModelVersion) -> SafeString | str:
        rows = [(name_of(name), _plain(value)) for name, value in version.metrics.items()]
        return _rows(rows) or _("nothing was measured")

    @admin.display(description=gettext_lazy("values"))
    def settings(self, version: ModelVersion) -> SafeString | str:
        run = getattr(version, "run", None)
        if run is not None:
            context = {"parameters": parameters.table(run.stage, run.params)}
            return render_to_string("admin/rlhf/_parameters.html", context)
        return _rows([(parameters.label(name), _plain(value)) for name, value in version.params.items()]) or "–"


def _rows(rows: list[tuple[Any, str]]) -> SafeString:
    inner = format_html_join("", '<tr><th scope="row">{}</th><td>{}</td></tr>', rows)
    return format_html('<div class="ops-scroll"><table class="ops-table">{}</table></div>', inner) if rows else inner


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
