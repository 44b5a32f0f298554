"""Schedules: when a project is retrained by itself."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from labeling import export
from rlhf.admin.base import OpsAdmin, is_ops
from rlhf.forms import ScheduleForm
from rlhf.models import Schedule


@admin.register(Schedule)
class ScheduleAdmin(OpsAdmin[Schedule]):
    form = ScheduleForm
    list_display = ["__str__", "project", "rule", "so_far", "next_time", "last_run_at", "trouble", "enabled"]
    list_filter = ["project", "enabled"]
    list_select_related = ["project"]
    readonly_fields = ["so_far", "next_time", "last_run_at", "last_error"]

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return is_ops(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_ops(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_ops(request)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> type[ScheduleForm]:
        return ScheduleForm  # it adds the parameters of both stages by itself

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        standing = [(_("Now"), {"fields": self.readonly_fields})] if obj else []
        return [*standing, *ScheduleForm.fieldsets()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        return super().get_queryset(request).select_related("project")

    def get_list_display(self, request: HttpRequest) -> Any:
        counts = export.ranking_counts()

        @admin.display(description=gettext_lazy("so far"))
        def so_far(schedule: Schedule) -> str:
            return _progress(schedule, counts[schedule.project_id] - schedule.rankings_seen)

        return [so_far if column == "so_far" else column for column in self.list_display]

    def save_model(self, request: HttpRequest, obj: Schedule, form: forms.Form, change: bool) -> None:
        if not change:
            obj.by_id = request.user.pk
        super().save_model(request, obj, form, change)

    @admin.display(description=gettext_lazy("rule"))
    def rule(self, schedule: Schedule) -> str:
        number = schedule.every_rankings
        parts = [
            ngettext("after every %(count)s new ranking", "after every %(count)s new rankings", number)
            % {"count": number}
            if number
            else "",
            schedule.cron,
        ]
        return _(" or ").join(part for part in parts if part)

    @admin.display(description=gettext_lazy("so far"))
    def so_far(self, schedule: Schedule) -> str:
        return _progress(schedule, schedule.new_rankings())

    @admin.display(description=gettext_lazy("next time"))
    def next_time(self, schedule: Schedule) -> str:
        due = schedule.next_due()
        zone = timezone.get_default_timezone_name()
        return f"{date_format(due, 'DATETIME_FORMAT')} ({zone})" if due else "–"

    @admin.display(description=gettext_lazy("trouble"))
    def trouble(self, schedule: Schedule) -> SafeString | str:
        return format_html('<span class="ops-trouble">{}</span>', schedule.last_error) if schedule.last_error else "–"


def _progress(schedule: Schedule, new: int) -> str:
    if not schedule.every_rankings:
        return "–"
    return _("%(new)s of %(every)s") % {"new": max(0, new), "every": schedule.every_rankings}
