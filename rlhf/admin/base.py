"""What all pages of the ops console share: who may see them, and how a page or a refusal is shown."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from labeling import export

M = TypeVar("M", bound=models.Model)
View = Callable[..., HttpResponseBase]


def is_ops(request: HttpRequest) -> bool:
    """Model names would unblind labelers and curators: the registry is for ops and admins alone."""
    return bool(request.user.is_authenticated and request.user.has_role("ops", "admin"))


def link(target: models.Model | None) -> SafeString | str:
    """The name of a row, leading to its page."""
    if target is None:
        return "–"
    url = reverse(f"admin:{target._meta.app_label}_{target._meta.model_name}_change", args=[target.pk])
    return format_html('<a href="{}">{}</a>', url, target)


class OpsAdmin(admin.ModelAdmin[M]):
    """Rows are read here; what changes them is a verb with a page or a button of its own."""

    actions = None
    list_per_page = 50

    class Media:
        css = {"all": ["rlhf/ops.css"]}
        js = ["rlhf/ops.js"]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_ops(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_ops(request)

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        title = capfirst(str(self.opts.verbose_name_plural))
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def guarded(self, view: View) -> View:
        """`view` for ops and admins; everybody else is sent to the login page, or refused."""

        @wraps(view)
        def guarded_view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not is_ops(request):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return self.admin_site.admin_view(guarded_view)

    def named(self, verb: str) -> str:
        """The name of this model's URL for `verb`."""
        return f"{self.opts.app_label}_{self.opts.model_name}_{verb}"

    def page(self, request: HttpRequest, template: str, title: Any, **context: Any) -> TemplateResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": title, "media": self.media}
        return TemplateResponse(request, f"admin/rlhf/{template}", shared | context)

    def form_page(self, request: HttpRequest, form: Any, title: Any, submit: Any, **context: Any) -> TemplateResponse:
        """A form in the admin's own fieldsets."""
        adminform = AdminForm(form, form.fieldsets, {}, model_admin=self)
        template = context.pop("template", "form_page.html")
        return self.page(request, template, title, form=form, adminform=adminform, submit=submit, **context)

    def attempt(self, request: HttpRequest, verb: Callable[[], Any]) -> bool:
        """Whether `verb` was done; what it refuses is shown as a message on the next page."""
        try:
            verb()
        except ValidationError as error:
            for message in error.messages:
                messages.error(request, message)
            return False
        return True

    def chosen_project(self, request: HttpRequest) -> Any | None:
        """The project that the address names (`?project=3`), or the only one there is; None where there are several."""
        projects = export.projects(request.user)
        key = request.GET.get("project", "")
        if key:
            return get_object_or_404(projects, pk=key if key.isdecimal() else None)
        found = list(projects[:2])
        return found[0] if len(found) == 1 else None

    def choose_project_page(self, request: HttpRequest, title: Any) -> TemplateResponse:
        return self.page(request, "choose_project.html", title, projects=export.projects(request.user))
