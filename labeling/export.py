"""Labels as plain rows: the one door through which training reads what people said. Row shapes: `docs/files.md`."""

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.db.models import Max

from labeling.models import Answer, Demonstration, Project, Prompt

CHUNK = 500


def pseudonym(user_id: int) -> str:
    """The same for one person everywhere in this installation, and not to be turned back without its secret key."""
    digest = hmac.new(settings.SECRET_KEY.encode(), f"labeler:{user_id}".encode(), hashlib.sha256)
    return f"labeler-{digest.hexdigest()[:12]}"


def rankings(project: Project) -> Iterator[dict[str, Any]]:
    """The current revision of every ranking, oldest first."""
    answers = (
        Answer.objects.filter(completion_set__project=project, current__isnull=False)
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
            "ratings": revision.ratings,
            "labeler": pseudonym(answer.labeler_id),
            "instruction_version": revision.instruction_version,
        }


def demonstrations(project: Project) -> Iterator[dict[str, Any]]:
    """The newest text of every demonstration, oldest first."""
    rows = (
        Demonstration.objects.filter(prompt__project=project)
        .exclude(prompt__state=Prompt.State.DRAFT)
        .select_related("prompt")
        .annotate(revision=Max("revisions__pk"), under=Max("revisions__instruction_version"))
        .order_by("pk")
    )
    for row in rows.iterator(chunk_size=CHUNK):
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
    return Answer.objects.filter(completion_set__project=project).count()


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "split": prompt.split,
        "prompt_id": str(prompt.pk),
        "language": prompt.language,
        "messages": prompt.messages,
    }
