"""Comparisons into rows: as labelled or as work, nothing twice, and everybody sees what is theirs."""

import json
import uuid
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError

from labeling import export
from labeling.exporting import labels
from labeling.models import (
    Answer,
    ComparisonImport,
    CompletionSet,
    Export,
    Project,
    Prompt,
    Slot,
    User,
)
from labeling.tests.rows import ranked, ranking
from worker.comparing import import_comparisons

PAIRS = [{"prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}."} for n in range(3)]
THREE = {"prompt": "Which?", "completions": ["one", "two", "three"]}


def upload(project: Project, by: User, records: list[dict[str, Any]], name: str = "rows.jsonl") -> ComparisonImport:
    text = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    return ComparisonImport.objects.upload(project, by, SimpleUploadedFile(name, text.encode()))


def take(batch: ComparisonImport, by: User, approve: bool = True, **choices: Any) -> dict[str, Any]:
    for name, value in choices.items():
        setattr(batch, name, value)
    batch.save()
    assert batch.take(by, approve=approve)
    import_comparisons(batch.pk)
    batch.refresh_from_db()
    assert batch.state == batch.State.SUCCEEDED, batch.error
    return dict(batch.report)


def test_what_the_file_is_is_guessed(project: Project, carol: User) -> None:
    batch = upload(project, carol, [{"prompt": "왜?", "chosen": "네", "rejected": "아니요"}], "hh.train.jsonl")
    assert (batch.found["shapes"], batch.use, batch.language, batch.source) == (["pair"], "labelled", "ko", "hh")
    batch = upload(project, carol, [{"instruction": "?", "completions": [{"model": "m", "text": "a"}] * 2}])
    assert (batch.found, batch.use) == ({"shapes": ["several"], "models": ["m"]}, "work")


@pytest.mark.django_db(transaction=True)
def test_as_labelled_each_record_is_a_closed_set_with_its_ranking(project: Project, carol: User) -> None:
    report = take(upload(project, carol, PAIRS), carol)
    assert (report["taken"], report["prompts"], report["rankings"]) == (3, 3, 3)
    answer = Answer.objects.earliest("pk")
    assert (answer.labeler, answer.source, answer.annotator, answer.by) == (None, "rows", "", "rows")
    made = answer.completion_set
    assert (made.origin, made.state, made.k, made.policy_name) == ("labelled", "closed", 2, "")
    assert answer.current and answer.current.tiers[made.texts.index("Good 0.")] == 1
    assert not Slot.objects.exists() and CompletionSet.objects.count() == 3  # nobody labels twice, nothing is sampled


@pytest.mark.django_db(transaction=True)
def test_a_snapshot_learns_from_approved_imports_alone(project: Project, carol: User) -> None:
    take(upload(project, carol, PAIRS), carol, approve=False)
    assert list(export.rankings(project)) == [] and export.ranking_count(project) == 0
    Prompt.objects.filter(project=project).approve(carol)
    rows = list(export.rankings(project))
    assert [sorted(zip(row["tiers"], row["completions"], strict=True)) for row in rows][0] == [
        (1, "Good 0."),
        (2, "Bad 0."),
    ]
    assert {row["source"] for row in rows} == {"rows"} and len({row["labeler"] for row in rows}) == 1
    assert rows[0]["labeler"].startswith("import-") and "rows" not in rows[0]["labeler"]


@pytest.mark.django_db(transaction=True)
def test_each_annotator_of_the_source_has_a_ranking(project: Project, carol: User) -> None:
    one, other = {**THREE, "tiers": [1, 2, 2], "labeler": "ann"}, {**THREE, "tiers": [3, 2, 1], "labeler": "ben"}
    report = take(upload(project, carol, [one, other, one]), carol)
    assert (report["taken"], report["duplicate"], report["sets"], report["rankings"]) == (2, 1, 1, 2)
    assert {answer.by for answer in Answer.objects.all()} == {"rows: ann", "rows: ben"}
    assert len({row["labeler"] for row in export.rankings(project)}) == 2


@pytest.mark.django_db(transaction=True)
def test_the_same_file_again_adds_nothing(project: Project, carol: User) -> None:
    take(upload(project, carol, PAIRS), carol)
    report = take(upload(project, carol, PAIRS), carol)
    assert (report.get("taken", 0), report["duplicate"]) == (0, 3)
    assert (Prompt.objects.count(), CompletionSet.objects.count(), Answer.objects.count()) == (3, 3, 3)
    assert [row.kind for row in upload(project, carol, PAIRS).preview()] == ["duplicate"] * 3


def test_an_annotator_cannot_say_two_things(project: Project, carol: User) -> None:
    swapped = {"prompt": PAIRS[0]["prompt"], "chosen": PAIRS[0]["rejected"], "rejected": PAIRS[0]["chosen"]}
    rows = upload(project, carol, [PAIRS[0], swapped, PAIRS[0]]).preview()
    assert [row.kind for row in rows] == ["taken", "refused", "duplicate"]
    assert str(rows[1].problem).endswith("otherwise: record 1 of the file.")


@pytest.mark.django_db(transaction=True)
def test_as_work_labelers_rank_what_was_imported(project: Project, carol: User, alice: User) -> None:
    report = take(upload(project, carol, [THREE]), carol, use="work")
    assert (report["taken"], report.get("rankings", 0)) == (1, 0)
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
    assert slot and slot.completion_set and slot.completion_set.k == 3
    answer = Answer.objects.submit(slot, alice, ranking([1, 2, 2]), uuid.uuid4())
    assert answer.completion_set.state == "ready" and CompletionSet.objects.get().state == "closed"
    assert [row["source"] for row in export.rankings(project)] == [""]


@pytest.mark.django_db(transaction=True)
def test_work_waits_for_approval_and_outlives_promotion_and_retiring(
    project: Project, carol: User, alice: User
) -> None:
    take(upload(project, carol, [THREE]), carol, approve=False, use="work")
    assert Slot.objects.claim_next(project, alice) is None
    project.set_policy("tiny-2", ["en"])
    prompts = Prompt.objects.filter(project=project)
    prompts.approve(carol)
    prompts.retire()
    assert Slot.objects.claim_next(project, alice) is None
    prompts.restore()
    prompts.approve(carol)
    slot = Slot.objects.claim_next(project, alice)
    assert slot and slot.completion_set and slot.completion_set.source == "rows"
    assert CompletionSet.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_change_of_overlap_opens_work_and_leaves_what_is_labelled(project: Project, carol: User) -> None:
    take(upload(project, carol, PAIRS), carol)
    take(upload(project, carol, [THREE]), carol, use="work")
    project.ranking_overlap = 2
    project.reconfigure()
    assert [slot.prompt.text for slot in Slot.objects.all()] == ["Which?"] * 2


@pytest.mark.django_db(transaction=True)
def test_a_prompt_that_is_there_gets_the_set_and_stays_as_it_is(project: Project, carol: User, draft: Prompt) -> None:
    record = {"prompt": f" {draft.text} ", "chosen": "Yes.", "rejected": "No."}
    report = take(upload(project, carol, [record]), carol, approve=False)
    assert report["prompts"] == 0 and draft.completion_sets.get().origin == "labelled"
    draft.refresh_from_db()
    assert (draft.source, draft.state, draft.came_with_completions) == ("tests", "draft", False)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["rankings", "pairs"])
def test_our_own_export_comes_back_as_it_was(project: Project, carol: User, alice: User, kind: str) -> None:
    payload = ranking([2, 1, 2, 3])
    payload["ratings"] = [{"overall": n, "flags": ["opinion"] * (n == 3), "note": "x"} for n in (4, 6, 3, 1)]
    answer = ranked(project, alice, payload)
    rows = [row for said in labels(Export(project=project, kind=kind, ties="keep")) for row in said]
    again = upload(project, carol, rows).preview()
    assert {row.kind for row in again} == ({"duplicate"} if kind == "rankings" else {"taken"})
    elsewhere = Project.objects.start(carol, "Elsewhere", languages=["en"])
    take(upload(elsewhere, carol, rows), carol)
    stored = Answer.objects.filter(completion_set__project=elsewhere).order_by("pk")
    texts = answer.completion_set.texts
    for each in stored:
        assert each.current
        before = [payload["tiers"][texts.index(text)] for text in each.completion_set.texts]
        ranks = sorted(set(before))
        assert each.current.tiers == [ranks.index(tier) + 1 for tier in before]
        overall = [rating and rating["overall"] for rating in each.current.ratings]
        assert overall == [payload["ratings"][texts.index(text)]["overall"] for text in each.completion_set.texts]
        assert each.annotator == rows[0]["labeler"] and each.completion_set.prompt.split == rows[0]["split"]
        assert {c.model_name for c in each.completion_set.completions.all()} == {"tiny-1"}
    assert len(stored) == {"rankings": 1, "pairs": 6}[kind]
    if kind == "rankings":
        assert stored[0].current and {tuple(r["flags"]) for r in stored[0].current.ratings} == {(), ("opinion",)}


@pytest.mark.django_db(transaction=True)
def test_quality_and_labelers_do_not_see_imports(project: Project, carol: User, alice: User) -> None:
    take(upload(project, carol, PAIRS), carol)
    assert Answer.objects.judgements(100) == []
    assert not Answer.objects.visible_to(alice).exists()
    assert Answer.objects.visible_to(carol).count() == 3 and not Answer.objects.amendable_by(carol).exists()


@pytest.mark.django_db(transaction=True)
def test_bad_records_are_counted_and_named(project: Project, carol: User) -> None:
    bad = [{"prompt": "?", "chosen": "a", "rejected": "a"}, {"x": 1}, {"fields": 1, "data": {}, "annotations": [1]}]
    report = take(upload(project, carol, [PAIRS[0], *bad, PAIRS[1]]), carol)
    assert (report["taken"], report["refused"], report["records"]) == (2, 3, 5)
    assert [place for place, _words in report["listed"]] == [2, 3, 4] and sum(report["reasons"].values()) == 3


def test_files_without_comparisons_are_refused(project: Project, carol: User) -> None:
    for name, text, words in (
        ("a.jsonl", '{"text": "x"}', "No comparisons were found"),
        ("a.csv", "a,b", "Only JSONL"),
        ("a.json", "[]", "No comparisons were found"),
        ("a.jsonl", " ", "empty"),
    ):
        with pytest.raises(ValidationError, match=words):
            ComparisonImport.objects.upload(project, carol, SimpleUploadedFile(name, text.encode()))
    assert not ComparisonImport.objects.exists()


def test_the_database_keeps_labelers_and_sources_apart(project: Project, carol: User, alice: User) -> None:
    answer = ranked(project, alice, ranking([1, 2, 3, 4]))
    with pytest.raises(IntegrityError):
        Answer.objects.create(completion_set=answer.completion_set, labeler=alice, source="x", repeat=1)
