"""The first page of the ops console: where each project stands. A handful of queries, however many projects."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from django.db.models import Max

from labeling import export
from rlhf.models import DatasetSnapshot, Promotion, Schedule, TrainingRun


@dataclass(frozen=True)
class Overview:
    project: Any
    promotion: Promotion | None
    snapshot: DatasetSnapshot | None
    collected: Counter[str]
    """Rankings, pairs and demonstrations by now."""
    fresh: Counter[str]
    """The same since the last snapshot, or since the beginning."""
    sampling: Counter[str]
    """Sampling jobs by state."""
    runs: list[TrainingRun]
    """Those under way."""
    schedules: list[tuple[Schedule, int]]
    """Those switched on, each with the rankings that came since it last started something."""


def overviews(user: Any) -> list[Overview]:
    """One for each project that `user` may see."""
    collected, sampling = export.collected(), export.sampling()
    promotions = {row.project_id: row for row in _newest(Promotion.objects.select_related("version", "by"))}
    snapshots = {row.project_id: row for row in _newest(DatasetSnapshot.objects.all())}
    runs, schedules = defaultdict(list), defaultdict(list)
    for run in TrainingRun.objects.unfinished().select_related("after").order_by("pk"):
        runs[run.project_id].append(run)
    for schedule in Schedule.objects.filter(enabled=True).order_by("pk"):
        new = collected[schedule.project_id]["rankings"] - schedule.rankings_seen
        schedules[schedule.project_id].append((schedule, max(0, new)))
    return [
        Overview(
            project=project,
            promotion=promotions.get(project.pk),
            snapshot=snapshots.get(project.pk),
            collected=collected[project.pk],
            fresh=_fresh(collected[project.pk], snapshots.get(project.pk)),
            sampling=sampling[project.pk],
            runs=runs[project.pk],
            schedules=schedules[project.pk],
        )
        for project in export.projects(user)
    ]


def _newest(rows: Any) -> Any:
    """Of `rows`, the newest of each project."""
    return rows.filter(pk__in=rows.order_by().values("project").annotate(newest=Max("pk")).values("newest"))


def _fresh(collected: Counter[str], snapshot: DatasetSnapshot | None) -> Counter[str]:
    if snapshot is None:
        return collected
    return collected - Counter({what: snapshot.total(what) for what in collected})
