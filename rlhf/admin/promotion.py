"""Promotions: the history of each project's policy, and the way back."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling import export
from rlhf.admin.base import OpsAdmin, link
from rlhf.models import Promotion


@admin.register(Promotion)
class PromotionAdmin(OpsAdmin[Promotion]):
    list_display = ["created_at", "project", "policy", "what", "reason", "by"]
    list_display_links = ["created_at"]
    list_filter = ["project"]
    list_select_related = ["project", "version", "by"]
    fields = ["project", "policy", "what", "reason", "by", "created_at"]
    readonly_fields = ["policy", "what"]

    def get_urls(self) -> list[URLPattern]:
        own = [path("roll-back/<int:project_id>/", self.guarded(self.roll_back_view), name=self.named("roll_back"))]
        return own + super().get_urls()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        current = Promotion.objects.filter(version__name=F("project__policy_name")).select_related("project")
        projects = {promotion.project for promotion in current}
        return super().changelist_view(request, {**(extra_context or {}), "with_policy": sorted(projects, key=str)})

    def roll_back_view(self, request: HttpRequest, project_id: int) -> HttpResponse:
        """Asks once, naming both policies; the button goes back from exactly the policy that was shown."""
        project = get_object_or_404(export.projects(request.user), pk=project_id)
        history = reverse("admin:rlhf_promotion_changelist") + f"?project__id__exact={project.pk}"
        if request.method == "POST":
            if self.attempt(request, lambda: self._roll_back(request, project)):
                messages.success(request, _("“%(project)s” samples from the policy before.") % {"project": project})
            return redirect(history)
        return self.page(
            request,
            "promotion/roll_back.html",
            _("Roll back “%(project)s”") % {"project": project},
            project=project,
            current=Promotion.objects.filter(project=project).select_related("version").first(),
            target=Promotion.objects.rollback_target(project),
            history=history,
        )

    def _roll_back(self, request: HttpRequest, project: Any) -> None:
        shown = request.POST.get("from", "")
        promotion = Promotion.objects.roll_back(
            project, request.user, from_promotion=int(shown) if shown.isdecimal() else 0
        )
        self.log_addition(request, promotion, "rolled back")

    @admin.display(description=gettext_lazy("policy"), ordering="version__name")
    def policy(self, promotion: Promotion) -> SafeString | str:
        return link(promotion.version)

    @admin.display(description=gettext_lazy("what"))
    def what(self, promotion: Promotion) -> str:
        return _("rolled back") if promotion.is_rollback else _("promoted")
