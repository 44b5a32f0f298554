"""Rows for tests, made by the models' own verbs."""

import uuid
from typing import Any

from labeling.models import Answer, Completion, CompletionSet, Demonstration, Project, Prompt, SamplingJob, Slot, User

HAIKU = "Write a haiku about rain."
ANSWERS = ["Rain on the roof tiles", "Grey sky, quiet street", "rain rain rain rain", "I cannot write poems."]


def approved(project: Project, text: str = HAIKU, language: str = "en", by: User | None = None) -> Prompt:
    prompt = Prompt.objects.add(project, [{"role": "user", "content": text}], language=language)
    curator = by or User.objects.get(username="carol")
    assert prompt.approve(curator)
    return prompt


def sampled(prompt: Prompt, texts: list[str] = ANSWERS, cut: tuple[int, ...] = ()) -> CompletionSet:
    """The live set of `prompt`, with `texts` as what the policy said; those at `cut` ended at the limit."""
    completion_set = CompletionSet.objects.live().get(prompt=prompt)
    job = SamplingJob.objects.claim(completion_set.job.pk)
    job.finish(
        [
            {
                "text": text,
                "logprob_sum": -10.0,
                "token_count": 8,
                "finish_reason": Completion.FinishReason.LENGTH if i in cut else Completion.FinishReason.STOP,
            }
            for i, text in enumerate(texts)
        ]
    )
    completion_set.refresh_from_db()
    return completion_set


def ranking(tiers: list[int | None], overall: int | None = 4, **fields: Any) -> dict[str, Any]:
    """A payload as the page sends it, with the same mark for every completion."""
    ratings = [{"overall": overall, "flags": [], "note": ""} for _ in tiers]
    return {"tiers": tiers, "ratings": ratings, "note": "", "active_seconds": 12.5, **fields}


def ranked(project: Project, labeler: User, payload: dict[str, Any], text: str = HAIKU, **about: Any) -> Answer:
    """`payload` as `labeler`'s ranking of a new set; `about`: texts and cuts of `sampled`, language of the prompt."""
    prompt = approved(project, text, about.pop("language", "en"))
    sampled(prompt, **about)
    slot = Slot.objects.claim_next(project, labeler, Slot.TaskType.RANKING)
    assert slot
    return Answer.objects.submit(slot, labeler, payload, uuid.uuid4())


def demonstrated(project: Project, labeler: User, answer: str, text: str = HAIKU) -> Demonstration:
    approved(project, text)
    slot = Slot.objects.claim_next(project, labeler, Slot.TaskType.DEMONSTRATION)
    assert slot
    return Demonstration.objects.submit(slot, labeler, {"text": answer}, uuid.uuid4())
