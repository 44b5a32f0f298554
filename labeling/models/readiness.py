"""A look over a project's labels: whether a model can be trained on them. Reckoned by a job, kept, and shown."""

from typing import Any

from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from labeling.models.project import Project
from worker.jobs import Job, JobQuerySet


class ReadinessQuerySet(JobQuerySet):
    def ask(self, project: Project) -> None:
        """Reckon anew. Asked again while one waits, it is the same one."""
        if not self.filter(project=project, state=Job.State.QUEUED).exists():
            self.create(project=project).enqueue()

    def newest(self, project: Project) -> "Readiness | None":
        """The last look that came to its end."""
        found: Readiness | None = self.filter(project=project, state=Job.State.SUCCEEDED).order_by("-pk").first()
        return found

    def under_way(self, project: Project) -> "Readiness | None":
        """The newest look, unless it came to its end."""
        last: Readiness | None = self.filter(project=project).order_by("-pk").defer("report").first()
        return None if last is None or last.state == Job.State.SUCCEEDED else last


class Readiness(Job):
    TASK = "worker.tasks.look_over"
    QUEUE = "default"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="readiness")
    report = models.JSONField(default=dict)
    """`labeling.readiness.look_over`: figures and facts, no words, so that it reads in every language."""

    objects = ReadinessQuerySet.as_manager()

    class Meta:
        verbose_name = _("readiness")
        verbose_name_plural = _("readiness")
        indexes = [models.Index(fields=["project", "state"], name="readiness_by_project_and_state")]

    def __str__(self) -> str:
        return f"readiness of {self.project}"

    @transaction.atomic
    def finish(self, report: dict[str, Any]) -> None:
        """Keep what was found; earlier looks go. Raises LostLease."""
        self.succeed(report=report)
        Readiness.objects.filter(project=self.project_id, pk__lt=self.pk).exclude(state=Job.State.RUNNING).delete()
