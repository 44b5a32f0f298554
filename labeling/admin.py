"""Projects, prompts and labels in the admin: for admins and ops to look at; what changes them is a verb of theirs."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from labeling.languages import OFFERED, language_choices
from labeling.models import Answer, CompletionSet, Demonstration, InstructionVersion, Project, Prompt, Role, User
from labeling.models.project import SETTINGS


class Readable(admin.ModelAdmin):  # type: ignore[type-arg]
    """Admins and ops look; nobody changes."""

    list_per_page = 50
    show_full_result_count = False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return isinstance(request.user, User) and request.user.has_role(Role.ADMIN, Role.OPS)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def is_admin(request: HttpRequest) -> bool:
    return isinstance(request.user, User) and request.user.has_role(Role.ADMIN)


class ProjectForm(forms.ModelForm):  # type: ignore[type-arg]
    languages = forms.MultipleChoiceField(label=_("languages"), widget=forms.CheckboxSelectMultiple)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "languages" in self.fields:
            offered = [*OFFERED, *(code for code in self.instance.languages if code not in OFFERED)]
            self.fields["languages"].choices = language_choices(offered)  # type: ignore[attr-defined]


@admin.register(Project)
class ProjectAdmin(Readable):
    form = ProjectForm
    list_display = ["name", "policy_name", "k", "ranking_overlap", "demonstration_overlap", "pages"]
    fields = [*SETTINGS, "members", "slug", "policy_name", "pages"]
    readonly_fields = ["slug", "policy_name", "pages"]
    filter_horizontal = ["members"]
    search_fields = ["name"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_admin(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_admin(request)

    def save_model(self, request: HttpRequest, obj: Project, form: Any, change: bool) -> None:
        if change:
            obj.reconfigure()
        else:
            obj.slug = Project.objects.free_slug(obj.name)
            obj.save()

    @admin.display(description=_("pages"))
    def pages(self, obj: Project) -> str:
        return format_html('<a href="{}">{}</a>', reverse("project", args=[obj.slug]), _("prompts")) if obj.pk else ""


@admin.register(InstructionVersion)
class InstructionVersionAdmin(Readable):
    list_display = ["project", "number", "author", "created_at"]
    list_filter = ["project"]
    list_select_related = ["project", "author"]


@admin.register(Prompt)
class PromptAdmin(Readable):
    list_display = ["text", "project", "language", "state", "split", "source", "created_at"]
    list_filter = ["project", "state", "language", "split"]
    list_select_related = ["project"]
    search_fields = ["searchable"]
    fields = ["page", "messages", "project", "language", "state", "split", "k", "tags", "source", "licence"]
    readonly_fields = ["page", "messages", "project", "language", "state", "split"]
    actions = ["approve", "retire"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_admin(request)

    @admin.display(description=_("prompt"))
    def text(self, obj: Prompt) -> str:
        return obj.text[:80]

    @admin.display(description=_("page"))
    def page(self, obj: Prompt) -> str:
        return format_html('<a href="{}">{}</a>', reverse("prompt", args=[obj.pk]), obj.text[:80])

    @admin.action(description=_("Approve the prompts chosen"), permissions=["change"])
    def approve(self, request: HttpRequest, queryset: QuerySet[Prompt]) -> None:
        assert isinstance(request.user, User)
        self._tell(request, _prompts(queryset).approve(request.user))

    @admin.action(description=_("Retire the prompts chosen"), permissions=["change"])
    def retire(self, request: HttpRequest, queryset: QuerySet[Prompt]) -> None:
        self._tell(request, _prompts(queryset).retire())

    def _tell(self, request: HttpRequest, count: int) -> None:
        words = ngettext("%(count)s prompt was changed.", "%(count)s prompts were changed.", count)
        self.message_user(request, words % {"count": count}, messages.SUCCESS)


def _prompts(chosen: QuerySet[Prompt]) -> Any:
    """The rows ticked, without the ordering and joins of the list they were ticked in."""
    return Prompt.objects.filter(pk__in=list(chosen.values_list("pk", flat=True)))


@admin.register(CompletionSet)
class CompletionSetAdmin(Readable):
    list_display = ["prompt", "project", "k", "policy_name", "state", "created_at"]
    list_filter = ["project", "state", "policy_name"]
    list_select_related = ["prompt", "project"]


@admin.register(Answer)
class AnswerAdmin(Readable):
    list_display = ["completion_set", "labeler", "tiers", "created_at"]
    list_filter = ["completion_set__project", "created_at"]
    list_select_related = ["completion_set__prompt", "labeler", "current"]
    fields = ["completion_set", "labeler", "tiers", "created_at"]

    @admin.display(description=_("tiers"))
    def tiers(self, obj: Answer) -> str:
        return ", ".join(map(str, obj.current.tiers)) if obj.current else ""


@admin.register(Demonstration)
class DemonstrationAdmin(Readable):
    list_display = ["prompt", "author", "origin", "source", "created_at"]
    list_filter = ["prompt__project", "origin"]
    list_select_related = ["prompt", "author"]
    search_fields = ["text"]
