"""Two teams that must not see each other's rows, and people of every role."""

import json
import uuid
from types import SimpleNamespace
from typing import Any

from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.core.files.base import ContentFile

from labeling.models import (
    Answer,
    ComparisonImport,
    Demonstration,
    Export,
    Import,
    Project,
    Prompt,
    Slot,
    Translation,
    User,
    Webhook,
)
from labeling.tests import world
from rlhf.models import Promotion, Schedule
from rlhf.tests.world import model_version, trained

FOREIGN = "zzforeign"
"""Stands in every text of the other team."""


def people() -> SimpleNamespace:
    """Labelers lena and luis and curator cora of one team, sam and cleo of another; oleg runs, ada governs."""
    site = SimpleNamespace(
        labeler=world.person("lena", "labeler"),
        second=world.person("luis", "labeler"),
        curator=world.person("cora", "curator"),
        ops=world.person("oleg", "ops"),
        admin=world.person("ada", "admin"),
        stranger=world.person("sam", "labeler"),
        other_curator=world.person("cleo", "curator"),
        version=model_version("tiny-base"),
    )
    site.project = world.project("Ours", site.labeler, site.second, site.curator)
    site.foreign = world.project("Theirs", site.stranger, site.other_curator)
    for project in (site.project, site.foreign):
        Promotion.objects.promote(project, site.version, site.ops)
    return site


def populate() -> SimpleNamespace:
    """`people()` with a row of everything: `ours`, `colleagues` (the same team, another labeler) and `theirs`."""
    site = people()
    AccessAttempt.objects.create(username="mallory", ip_address="127.0.0.1", failures_since_start=1)
    AccessFailureLog.objects.create(username="mallory", ip_address="127.0.0.1")
    AccessLog.objects.create(username="mallory", ip_address="127.0.0.1")
    site.ours = _rows(site.project, site.curator, site.labeler, site.ops, "ours")
    site.colleagues = site.ours | labels(site.project, site.curator, site.second, "ours too")
    site.theirs = _rows(site.foreign, site.other_curator, site.stranger, site.ops, FOREIGN)
    return site


def _rows(project: Project, curator: User, labeler: User, ops: User, words: str) -> dict[str, Any]:
    rows = labels(project, curator, labeler, words)
    draft = Prompt.objects.add(project, [{"role": "user", "content": f"A draft, {words}"}], language="en")
    batch = Import.objects.create(project=project, name=f"{words}.csv", format="csv", language="en", author=curator)
    batch.file.save("", ContentFile(f"prompt\nWhat is a sound, {words}?\n".encode()))
    comparisons = ComparisonImport.objects.create(project=project, name=f"{words}.jsonl", source=words, language="en")
    record = {"prompt": f"What is a strait, {words}?", "chosen": "Narrow water.", "rejected": "A road."}
    comparisons.file.save("", ContentFile(json.dumps(record).encode()))
    webhook = Webhook.objects.create(project=project, url=f"https://{words.replace(' ', '')}.example.com/", by=curator)
    training = trained(project, ops)
    export = Export.objects.create(project=project, by=curator, state=Export.State.SUCCEEDED)
    export.file.save(f"exports/{export.pk}.jsonl", ContentFile(f"{words}\n".encode()))
    return rows | {
        "prompt": draft,
        "translation": Translation.objects.begin(rows["prompt"], "ko", curator).source,
        "import": batch,
        "comparison": comparisons,
        "export": export,
        "webhook": webhook,
        "delivery": webhook.deliver("test", {}),
        "snapshot": training["snapshot"],
        "run": training["run"],
        "promotion": project.promotions.get(),
        "schedule": Schedule.objects.create(project=project, every_rankings=10, by=ops),
    }


def labels(project: Project, curator: User, labeler: User, words: str) -> dict[str, Any]:
    """A ranking and a demonstration by `labeler`, and one more ranking that they are at work on."""
    prompt = world.approved_prompt(project, curator, f"What is a fjord, {words}?")
    ranked = world.sampled(prompt)
    slot = Slot.objects.claim_next(project, labeler, "ranking")
    assert slot
    answer = Answer.objects.submit(slot, labeler, {**world.RANKING, "note": words}, uuid.uuid4())
    slot = Slot.objects.claim_next(project, labeler, "demonstration")
    assert slot
    demonstration = Demonstration.objects.submit(slot, labeler, {"text": f"An inlet, {words}"}, uuid.uuid4())
    world.sampled(world.approved_prompt(project, curator, f"What is a skerry, {words}?"))
    task = Slot.objects.claim_next(project, labeler, "ranking")
    return {
        "project": project,
        "prompt": prompt,
        "completion": ranked,
        "set": ranked,
        "answer": answer,
        "review": answer.slot,
        "demonstration": demonstration,
        "task": task,
    }
