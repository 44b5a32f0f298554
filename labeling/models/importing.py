"""An import: an uploaded file on its way from columns to prompts."""

import uuid
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from labeling.models.project import Project


class ImportQuerySet(models.QuerySet["Import"]):
    def curated_by(self, user: Any) -> Self:
        return self.filter(project__in=Project.objects.curated_by(user))


def upload_path(batch: "Import", name: str) -> str:
    """A name of our own: the uploaded one is kept as data, never as a path."""
    return f"imports/{uuid.uuid4()}"


class Import(models.Model):
    class State(models.TextChoices):
        UPLOADED = "uploaded", _("uploaded")
        TAKEN = "taken", _("taken over")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="imports")
    file = models.FileField(upload_to=upload_path)
    name = models.CharField(_("file name"), max_length=255)
    format = models.CharField(max_length=5, choices=[("jsonl", "JSONL"), ("csv", "CSV")])
    encoding = models.CharField(_("encoding"), max_length=12, blank=True)
    """Empty while the file is not UTF-8 and nobody has looked whether it reads well in another encoding."""
    mapping = models.JSONField(default=dict, help_text="prompt, input, demonstration -> name of a column.")
    language = models.CharField(_("language"), max_length=8, blank=True)
    source = models.CharField(_("source"), max_length=200)
    licence = models.CharField(_("licence"), max_length=100, blank=True)
    tags = models.JSONField(_("tags"), default=list, blank=True)
    state = models.CharField(max_length=8, choices=State, default=State.UPLOADED)
    report = models.JSONField(default=dict)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ImportQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.name
