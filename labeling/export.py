"""Labels as plain rows: the one door through which training reads what people said. Row shapes: `docs/files.md`."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db.models import Count, Max

from labeling.models import Answer, Demonstration, Project, Prompt, SamplingJob
from labeling.models.project import ProjectQuerySet
from labeling.pairs import preferred_pairs
from labeling.pseudonyms import pseudonym, pseudonym_of

CHUNK = 500


def rankings(project: Project) -> Iterator[dict[str, Any]]:
    """The current revision of every ranking that says what is better, oldest first."""
    answers = (
        Answer.objects.trainable()
        .filter(completion_set__project=project)
        .select_related("current", "completion_set__prompt")
        .prefetch_related("completion_set__completions")
        .order_by("pk")
    )
    for answer in answers.iterator(chunk_size=CHUNK):
        completions = list(answer.completion_set.completions.all())
        revision = answer.current
        assert revision is not None  # the query asks for it
        yield {
            "id": str(revision),
            **_prompt(answer.completion_set.prompt),
            "completions": [completion.text for completion in completions],
            "finish_reasons": [completion.finish_reason for completion in completions],
            "models": [completion.model_name for completion in completions],
            "tiers": revision.tiers,
            "strength": revision.strength,
            "ratings": revision.ratings,
            "labeler": pseudonym_of(answer),
            "source": answer.source,
            "instruction_version": revision.instruction_version,
            "arm": answer.completion_set.arm,
        }


def demonstrations(project: Project) -> Iterator[dict[str, Any]]:
    """The newest text of every demonstration that may be trained on, oldest first."""
    rows: Iterator[Any] = (
        Demonstration.objects.usable()
        .filter(prompt__project=project)
        .select_related("prompt")
        .annotate(revision=Max("revisions__pk"), under=Max("revisions__instruction_version"))
        .order_by("pk")
        .iterator(chunk_size=CHUNK)
    )
    for row in rows:
        yield {
            "id": f"demo-{row.pk}-{row.revision}",
            **_prompt(row.prompt),
            "completion": row.text,
            "origin": row.origin,
            "labeler": pseudonym(row.author_id) if row.author_id else None,
            "source": row.source,
            "instruction_version": row.under,
        }


def prompts(project: Project) -> Iterator[dict[str, Any]]:
    """Every approved prompt, oldest first."""
    for prompt in Prompt.objects.filter(project=project).approved().order_by("pk").iterator(chunk_size=CHUNK):
        row = _prompt(prompt)
        yield {"id": row.pop("prompt_id"), **row}


def ranking_count(project: Project) -> int:
    """How many rankings the project has so far: what schedules count."""
    return Answer.objects.trainable().filter(completion_set__project=project).count()


def ranking_counts() -> dict[int, int]:
    """How many rankings each project (by key) has so far."""
    rankings = Answer.objects.trainable().order_by()
    counts = rankings.values_list("completion_set__project").annotate(Count("pk"))
    return defaultdict(int, counts)


def projects(user: Any) -> ProjectQuerySet:
    """The projects that `user` may see."""
    return Project.objects.all().visible_to(user)


def collected() -> dict[int, Counter[str]]:
    """What each project (by key) holds by now: how many "rankings", preferred "pairs" and "demonstrations"."""
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    tiers = Answer.objects.trainable().values_list("completion_set__project", "current__tiers")
    for project, row in tiers.order_by().iterator(chunk_size=CHUNK):
        counts[project]["rankings"] += 1
        counts[project]["pairs"] += len(preferred_pairs(row))
    demonstrated = Demonstration.objects.usable().order_by()
    for project, number in demonstrated.values_list("prompt__project").annotate(Count("pk")):
        counts[project]["demonstrations"] = number
    return counts


def sampling() -> dict[int, Counter[str]]:
    """How many sampling jobs each project (by key) has in each state."""
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    states = SamplingJob.objects.order_by().values_list("completion_set__project", "state").annotate(Count("pk"))
    for project, state, number in states:
        counts[project][state] = number
    return counts


def sampler_seen_at() -> datetime | None:
    """When a sampler last gave a sign of life while it worked."""
    seen: datetime | None = SamplingJob.objects.aggregate(Max("heartbeat_at"))["heartbeat_at__max"]
    return seen


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "split": prompt.split,
        "prompt_id": str(prompt.pk),
        "language": prompt.language,
        "messages": prompt.messages,
    }
