"""A small world for tests: people with roles, a project, and one row of everything that people say in it."""

import functools
import uuid
from itertools import count
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group

from labeling.models import (
    Answer,
    CompletionSet,
    Demonstration,
    Project,
    Prompt,
    Role,
    SamplingJob,
    Slot,
    User,
)
from labeling.models.prompt import draw_split

PASSWORD = "correct horse battery staple"
RANKING = {"tiers": [1, 2, 2, 3], "ratings": [{"overall": 5, "flags": [], "note": ""}] * 4, "active_seconds": 12.5}


@functools.cache
def hashed_password() -> str:
    """Hashing is slow on purpose; once is enough for all people of a test run."""
    return make_password(PASSWORD)


def person(name: str, *roles: str) -> User:
    user = User.objects.create(
        username=name,
        password=hashed_password(),
        is_superuser=Role.ADMIN in roles,
        is_staff=bool({Role.OPS, Role.ADMIN} & set(roles)),
    )
    user.groups.set([Group.objects.get_or_create(name=role)[0] for role in roles])
    return user


def project(name: str, *members: User) -> Project:
    made = Project.objects.create(name=name, slug=name.lower().replace(" ", "-"), languages=["en", "ko"])
    made.members.set(members)
    made.set_policy("tiny-base", ["en"])
    made.revise_instructions({"en": "Prefer what is true.", "ko": "참인 것을 고르세요."}, None)
    return made


def train_family(text: str) -> uuid.UUID:
    """A family on the training side, the same for the same text: tests must not depend on a draw."""
    families = (uuid.uuid5(uuid.NAMESPACE_URL, f"{text} {number}") for number in count())
    return next(family for family in families if draw_split(family) == Prompt.Split.TRAIN)


def approved_prompt(project: Project, by: User, text: str = "What is a fjord?") -> Prompt:
    messages = [{"role": "user", "content": text}]
    prompt = Prompt.objects.add(project, messages, language="en", family=train_family(text))
    prompt.approve(by)
    prompt.refresh_from_db()
    return prompt


def sampled(prompt: Prompt) -> CompletionSet:
    """The completions of `prompt`'s set, as the worker would hand them in."""
    job = SamplingJob.objects.get(completion_set__prompt=prompt)
    held = SamplingJob.objects.claim(job.pk)
    texts = ["A long narrow inlet.", "A kind of boat.", "A Norwegian bread.", "I cannot say."]
    held.finish([{"text": t, "logprob_sum": -3.5, "token_count": 5, "finish_reason": "stop"} for t in texts])
    return CompletionSet.objects.get(pk=job.completion_set_id)


def labelled(project: Project, curator: User, labeler: User) -> dict[str, Any]:
    """A prompt of `project` with a ranking and a demonstration by `labeler`, and one task of each kind left."""
    prompt = approved_prompt(project, curator)
    sampled(prompt)
    slot = Slot.objects.claim_next(project, labeler, "ranking")
    assert slot
    answer = Answer.objects.submit(slot, labeler, RANKING, uuid.uuid4())
    slot = Slot.objects.claim_next(project, labeler, "demonstration")
    assert slot
    demonstration = Demonstration.objects.submit(slot, labeler, {"text": "A fjord is an inlet."}, uuid.uuid4())
    waiting = approved_prompt(project, curator, "What is a skerry?")
    sampled(waiting)
    return {"prompt": prompt, "answer": answer, "demonstration": demonstration, "waiting": waiting}
