"""Rows for tests, made by the models' own verbs."""

import uuid
from typing import Any

from labeling.models import (
    Answer,
    Completion,
    CompletionSet,
    Demonstration,
    Project,
    Prompt,
    Revision,
    SamplingJob,
    Slot,
    User,
)
from labeling.models.prompt import BATCH

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
    assert job
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
    ratings: list[dict[str, Any]] = [{"overall": overall, "flags": [], "note": ""} for _ in tiers]
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


def many_ranked(project: Project, labeler: User, count: int, k: int = 4, words: str = "rain and wind ") -> None:
    """`count` rankings without ties at once, each of a prompt of its own; texts are `words` about 20 times over."""
    _rank_all(project, labeler, _many_sets(project, count, k, words, CompletionSet.State.CLOSED))


def many_open(project: Project, count: int, k: int = 4, words: str = "rain and wind ") -> None:
    """`count` sets at once that wait for a ranking each, their places open as the sampler would have opened them."""
    sets = _many_sets(project, count, k, words, CompletionSet.State.READY)
    Slot.objects.bulk_create(
        (
            Slot(
                project=project,
                task_type=Slot.TaskType.RANKING,
                prompt_id=made.prompt_id,
                completion_set=made,
                ordinal=n,
            )
            for made in sets
            for n in range(project.ranking_overlap)
        ),
        batch_size=BATCH,
    )
    SamplingJob.objects.bulk_create(
        (SamplingJob(completion_set=made, state=SamplingJob.State.SUCCEEDED) for made in sets), batch_size=BATCH
    )


def _many_sets(project: Project, count: int, k: int, words: str, state: str) -> list[CompletionSet]:
    """Approved prompts, and a set of `k` completions of each."""
    known = project.prompts.count()
    prompts = []
    for number in range(known, known + count):
        prompt = Prompt(project=project, language="en", state=Prompt.State.APPROVED, split=Prompt.Split.TRAIN)
        prompt.set_messages([{"role": "user", "content": f"{number}: {words * 5}?"}])
        prompts.append(prompt)
    Prompt.objects.bulk_create(prompts, batch_size=BATCH)
    settings: dict[str, Any] = {
        "k": k,
        "policy_name": "tiny-1",
        "temperature": 1.0,
        "top_p": 0.95,
        "max_new_tokens": 128,
    }
    sets = CompletionSet.objects.bulk_create(
        (CompletionSet(project=project, prompt=prompt, state=state, **settings) for prompt in prompts),
        batch_size=BATCH,
    )
    said: dict[str, Any] = {"model_name": "tiny-1", "logprob_sum": -10.0, "token_count": 80, "finish_reason": "stop"}
    Completion.objects.bulk_create(
        (
            Completion(completion_set=made, index=index, text=f"{index} of {made.pk}: {words * 20}", **said)
            for made in sets
            for index in range(k)
        ),
        batch_size=BATCH,
    )
    return sets


def _rank_all(project: Project, labeler: User, sets: list[CompletionSet]) -> None:
    filled: dict[str, Any] = {
        "project": project,
        "task_type": Slot.TaskType.RANKING,
        "ordinal": 0,
        "state": Slot.State.ANSWERED,
    }
    slots = Slot.objects.bulk_create(
        (Slot(prompt_id=made.prompt_id, completion_set=made, labeler=labeler, **filled) for made in sets),
        batch_size=BATCH,
    )
    answers = Answer.objects.bulk_create(
        (Answer(slot=slot, completion_set=made, labeler=labeler) for slot, made in zip(slots, sets, strict=True)),
        batch_size=BATCH,
    )
    k = sets[0].k
    judged: dict[str, Any] = {
        "tiers": list(range(1, k + 1)),
        "ratings": [{"overall": 1 + index % 7, "flags": [], "note": ""} for index in range(k)],
        "shown_order": list(range(k)),
        "active_seconds": 30.0,
    }
    revisions = Revision.objects.bulk_create(
        (Revision(answer=answer, number=1, key=uuid.uuid4(), **judged) for answer in answers), batch_size=BATCH
    )
    for answer, revision in zip(answers, revisions, strict=True):
        answer.current = revision
    Answer.objects.bulk_update(answers, ["current"], batch_size=BATCH)
