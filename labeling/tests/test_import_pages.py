"""Importing in the browser's steps: upload, columns, preview, take. What is wrong is said where the person is."""

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from labeling.models import Import, Project, Prompt

CSV = "Q,A,label\nWhy?,Because.,0\nHow?,,1\nwhy? ,again,2\n,nothing,3\n"


def upload(client: Client, project: Project, data: str | bytes = CSV, name: str = "rows.csv") -> Any:
    content = data.encode() if isinstance(data, str) else data
    address = reverse("import_list", args=[project.slug])
    return client.post(address, {"file": SimpleUploadedFile(name, content)}, follow=True)


def choose(client: Client, batch: Import, **changes: str) -> str:
    data = {
        "prompt": "Q",
        "input": "",
        "demonstration": "A",
        "language": "en",
        "source": "rows",
        "licence": "",
        "tags": "",
    }
    return client.post(reverse("import_mapping", args=[batch.pk]), data | changes).content.decode()


def take(client: Client, batch: Import, **data: str) -> Any:
    batch = Import.objects.get(pk=batch.pk)
    return client.post(reverse("import_take", args=[batch.pk]), {"fingerprint": batch.fingerprint, **data}, follow=True)


def test_upload_leads_to_a_preview_that_stores_nothing(as_carol: Client, project: Project) -> None:
    page = upload(as_carol, project)
    text = page.content.decode()
    assert page.redirect_chain and "4 rows were read." in text
    assert "2 will be taken" in text and "1 duplicates" in text and "1 refused" in text
    assert not Prompt.objects.exists()


@pytest.mark.parametrize(("show", "words"), [("duplicate", "line 2 of the file"), ("refused", "The prompt is empty.")])
def test_preview_says_why_row_by_row(as_carol: Client, project: Project, show: str, words: str) -> None:
    upload(as_carol, project)
    page = as_carol.get(f"{reverse('import_page', args=[Import.objects.get().pk])}?show={show}")
    assert words in page.content.decode()
    assert [row.line for row in page.context["page"].object_list] == [{"duplicate": 4, "refused": 5}[show]]


def test_columns_can_be_chosen_anew(as_carol: Client, project: Project) -> None:
    upload(as_carol, project)
    batch = Import.objects.get()
    text = choose(as_carol, batch, prompt="A", demonstration="", tags="faq, short", language="ko")
    assert "3 will be taken" in text
    take(as_carol, batch)
    taken = Prompt.objects.order_by("pk")
    assert [prompt.text for prompt in taken] == ["Because.", "again", "nothing"]
    assert (taken[0].tags, taken[0].language) == (["faq", "short"], "ko")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": ""}, "This field is required."),
        ({"prompt": "gone"}, "not one of the available choices"),
        ({"demonstration": "Q"}, "One column cannot be two things."),
        ({"language": "fr"}, "not one of the available choices"),
        ({"source": ""}, "This field is required."),
        ({"tags": '"'}, "A tag holds no commas"),
    ],
)
def test_wrong_choices_are_refused_beside_them(
    as_carol: Client, project: Project, changes: dict[str, str], words: str
) -> None:
    upload(as_carol, project)
    text = choose(as_carol, Import.objects.get(), **changes)
    assert words in text and "Take 2 prompts" not in text


def test_taking_reports_and_is_done_once(as_carol: Client, project: Project) -> None:
    upload(as_carol, project)
    batch = Import.objects.get()
    page = take(as_carol, batch)
    assert "2 prompts were taken." in page.content.decode() and "Look at the drafts" in page.content.decode()
    take(as_carol, batch)
    assert project.prompts.count() == 2


def test_approving_at_once_is_a_choice(as_carol: Client, project: Project) -> None:
    upload(as_carol, project)
    take(as_carol, Import.objects.get(), approve="1")
    assert project.prompts.approved().count() == 2


def test_choices_changed_in_another_tab_are_looked_at_again(as_carol: Client, project: Project) -> None:
    upload(as_carol, project)
    batch = Import.objects.get()
    seen = batch.fingerprint
    choose(as_carol, batch, source="elsewhere")
    page = as_carol.post(reverse("import_take", args=[batch.pk]), {"fingerprint": seen}, follow=True)
    assert "changed in another tab" in page.content.decode() and not Prompt.objects.exists()


def test_a_nested_field_can_be_mapped(as_carol: Client, project: Project) -> None:
    record = {"instruction": "Add.", "instances": [{"input": "1 + 1", "output": "2"}]}
    text = upload(as_carol, project, json.dumps(record), "tasks.jsonl").content.decode()
    assert "instances.0.input: 1 + 1" in text
    take(as_carol, Import.objects.get())
    assert project.prompts.get().text == "Add.\n\n1 + 1"


def test_korean_windows_text_is_shown_before_it_is_used(as_carol: Client, project: Project) -> None:
    page = upload(as_carol, project, "Q,A\n안녕,반가워요\n".encode("cp949"))
    assert "Does it read well?" in page.content.decode() and "안녕,반가워요" in page.content.decode()
    page = as_carol.post(reverse("import_encoding", args=[Import.objects.get().pk]), follow=True)
    assert "1 will be taken" in page.content.decode()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.xlsx", b"PK\x03\x04", "Only JSONL"),
        ("a.csv", b"", "The file is empty."),
        ("a.csv", b"PK\x03\x04", "no text file (zip, xlsx)"),
        ("a.csv", b"Q,A\n", "no rows"),
        ("a.jsonl", b"hello\n", "No line of the file is a JSON object"),
        ("a.csv", b"\xe9\xe9,\xff", "no encoding that is known here"),
    ],
)
def test_an_unusable_file_is_refused_on_the_page(
    as_carol: Client, project: Project, name: str, data: bytes, words: str
) -> None:
    page = upload(as_carol, project, data, name)
    assert page.status_code == 200 and words in page.content.decode()
    assert not Import.objects.exists()


def test_a_file_too_large_is_refused_on_the_page(as_carol: Client, project: Project, settings: Any) -> None:
    settings.MAX_IMPORT_BYTES = 2000
    assert "the limit is" in upload(as_carol, project, "Q\n" + "x" * 2000).content.decode()


def test_no_file_at_all_is_noticed(as_carol: Client, project: Project) -> None:
    page = as_carol.post(reverse("import_list", args=[project.slug]))
    assert "Choose a file first." in page.content.decode()


def test_a_lost_file_is_named_and_can_be_discarded(as_carol: Client, project: Project) -> None:
    upload(as_carol, project)
    batch = Import.objects.get()
    batch.file.storage.delete(batch.file.name)
    page = as_carol.get(reverse("import_page", args=[batch.pk])).content.decode()
    assert "gone from the server" in page and "Discard this upload" in page
    assert "gone from the server" in take(as_carol, batch).content.decode()
    as_carol.post(reverse("import_discard", args=[batch.pk]))
    assert not Import.objects.exists()


def test_cells_are_shown_as_text(as_carol: Client, project: Project) -> None:
    text = upload(as_carol, project, "Q,A\n<script>alert(1)</script>,x\n").content.decode()
    assert "<script>alert" not in text
