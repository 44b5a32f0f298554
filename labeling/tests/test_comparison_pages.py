"""Comparisons in the browser's steps: upload, choices, preview, take; then how far it is."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeling.models import Answer, ComparisonImport, Project
from worker.comparing import import_comparisons

pytestmark = pytest.mark.django_db(transaction=True)
RECORDS: list[dict[str, Any]] = [
    {"prompt": "<script>alert(1)</script>", "chosen": "Good.", "rejected": "Bad."},
    {"prompt": "Same?", "chosen": "x", "rejected": "x"},
]


def upload(client: Client, project: Project, records: list[dict[str, Any]] = RECORDS, name: str = "pairs.jsonl") -> Any:
    data = "\n".join(json.dumps(record) for record in records).encode()
    address = reverse("comparison_upload", args=[project.slug])
    return client.post(address, {"comparisons-file": SimpleUploadedFile(name, data)}, follow=True)


def at(verb: str, batch: ComparisonImport) -> str:
    return reverse(f"comparison_{verb}", args=[batch.pk])


def test_upload_leads_to_a_preview_that_stores_nothing(as_carol: Client, project: Project) -> None:
    text = upload(as_carol, project).content.decode()
    assert "pairs: chosen and rejected" in text and "2 records were read." in text
    assert "1 will be taken" in text and "All completions are the same" in text
    assert "<script>alert" not in text and not Answer.objects.exists()


def test_taking_is_done_once_by_a_job_and_reported(as_carol: Client, project: Project) -> None:
    upload(as_carol, project)
    batch = ComparisonImport.objects.get()
    for _twice in range(2):
        page = as_carol.post(at("take", batch), {"fingerprint": batch.fingerprint, "approve": "1"}, follow=True)
        assert "waits for a worker" in page.content.decode()
    import_comparisons(batch.pk)
    text = as_carol.get(at("state", batch)).content.decode()
    assert "taken over" in text and "All completions are the same" in text and "hx-get" not in text
    assert Answer.objects.get().source == "pairs" and "pairs.jsonl" in as_carol.get(at("page", batch)).content.decode()
    answer = as_carol.get(Answer.objects.get().get_absolute_url()).content.decode()
    assert "Imported from pairs" in answer and "<script>alert" not in answer
    prompt = as_carol.get(reverse("prompt", args=[Answer.objects.get().completion_set.prompt_id])).content.decode()
    assert "Imported from pairs" in prompt and "Sample again" not in prompt


def test_a_file_that_waits_for_a_worker_for_long_says_so(as_carol: Client, project: Project) -> None:
    for name in ("lying.jsonl", "taken.jsonl"):
        upload(as_carol, project, name=name)
        ComparisonImport.objects.update(created_at=timezone.now() - timedelta(minutes=4))
    assert not ComparisonImport.objects.is_stalled(), "nobody has taken either"
    batch = ComparisonImport.objects.get(name="taken.jsonl")
    page = as_carol.post(at("take", batch), {"fingerprint": batch.fingerprint}, follow=True).content.decode()
    assert "every worker is busy" not in page, "it waits from now on"
    ComparisonImport.objects.update(created_at=timezone.now() - timedelta(minutes=4))
    for verb in ("page", "state"):
        assert "every worker is busy" in as_carol.get(at(verb, batch)).content.decode()
    assert ComparisonImport.objects.claim(batch.pk)
    assert "every worker is busy" not in as_carol.get(at("state", batch)).content.decode()


def test_choices_change_the_preview(as_carol: Client, project: Project) -> None:
    items = [{"model": name, "text": name * 3} for name in "ab"]
    upload(as_carol, project, [{"instruction": "Add.", "completions": items}], "models.json")
    batch = ComparisonImport.objects.get()
    chosen = {"use": "labelled", "language": "en", "source": "paper", "licence": "MIT", "tags": "x", "order": ""}
    assert "Nobody has ranked this one" in as_carol.post(at("choices", batch), chosen).content.decode()
    text = as_carol.post(at("choices", batch), chosen | {"order": "b, a"}).content.decode()
    assert "1 ranking comes along, as that of paper." in text
    assert "This field is required" in as_carol.post(at("choices", batch), chosen | {"source": ""}).content.decode()
    batch.refresh_from_db()
    assert (batch.order, batch.tags, batch.source) == (["b", "a"], ["x"], "paper")


def test_choices_changed_in_another_tab_are_looked_at_again(as_carol: Client, project: Project) -> None:
    upload(as_carol, project)
    batch = ComparisonImport.objects.get()
    ComparisonImport.objects.update(source="elsewhere")
    page = as_carol.post(at("take", batch), {"fingerprint": batch.fingerprint}, follow=True)
    assert "changed in another tab" in page.content.decode() and ComparisonImport.objects.get().is_waiting


def test_stopped_goes_on_where_it_was(as_carol: Client, project: Project) -> None:
    upload(as_carol, project)
    batch = ComparisonImport.objects.get()
    as_carol.post(at("take", batch), {"fingerprint": batch.fingerprint})
    as_carol.post(at("cancel", batch))
    import_comparisons(batch.pk)
    assert not Answer.objects.exists()
    assert "Go on" in as_carol.get(at("page", batch)).content.decode()
    as_carol.post(at("resume", batch))
    import_comparisons(batch.pk)
    assert Answer.objects.count() == 1


def test_a_file_that_is_gone_is_named_and_can_be_discarded(as_carol: Client, project: Project) -> None:
    upload(as_carol, project)
    batch = ComparisonImport.objects.get()
    batch.file.storage.delete(batch.file.name)
    assert "gone from the server" in as_carol.get(at("page", batch)).content.decode()
    batch.take(ComparisonImport.objects.get().by)  # type: ignore[arg-type]
    import_comparisons(batch.pk)
    assert "gone from the server" in as_carol.get(at("state", batch)).content.decode()
    as_carol.post(at("discard", batch))
    assert not ComparisonImport.objects.exists()


def test_an_unusable_file_is_refused_beside_its_field(as_carol: Client, project: Project) -> None:
    text = upload(as_carol, project, [{"text": "x"}]).content.decode()
    assert "No comparisons were found" in text and "Upload prompts" in text and not ComparisonImport.objects.exists()
    assert "Only JSONL" in upload(as_carol, project, name="x.csv").content.decode()
