"""From rows to prompts: what is taken, what is a duplicate, what is refused; all or nothing, and once."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.files.storage import FileSystemStorage
from django.core.files.uploadedfile import SimpleUploadedFile
from pytest_django import DjangoAssertNumQueries

from labeling.models import CompletionSet, Demonstration, Import, Project, Prompt, Slot, User
from labeling.models.prompt import MAX_PROMPT_CHARACTERS
from labeling.tests.test_races import at_once

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def upload(project: Project, by: User, text: str | bytes, name: str = "rows.csv") -> Import:
    data = text.encode() if isinstance(text, str) else text
    return Import.objects.upload(project, by, SimpleUploadedFile(name, data))


def real(name: str) -> bytes:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path.read_bytes()


def jsonl(*records: dict[str, Any]) -> str:
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records)


def kinds(batch: Import) -> list[tuple[int, str]]:
    return [(row.line, row.kind) for row in batch.preview()]


def test_columns_and_language_are_guessed(project: Project, carol: User) -> None:
    batch = upload(project, carol, "Q,A,label\n날씨 어때?,맑아요,0\n", "대화.csv")
    assert batch.mapping == {"prompt": "Q", "demonstration": "A"}
    assert (batch.language, batch.source, batch.encoding) == ("ko", "대화", "utf-8")


def test_every_row_is_taken_duplicate_or_refused(project: Project, carol: User, draft: Prompt) -> None:
    long = "x" * (MAX_PROMPT_CHARACTERS + 1)
    batch = upload(project, carol, f"Q,A\nNew?,yes\n  {draft.text.upper()},x\nnew?,again\n,no\n{long},y\nNul\0,z\n")
    assert kinds(batch) == [
        (2, "taken"),
        (3, "duplicate"),
        (4, "duplicate"),
        (5, "refused"),
        (6, "refused"),
        (7, "refused"),
    ]
    words = [str(row.problem or row.duplicate_of) for row in batch.preview()]
    assert words[1:5] == [
        "a prompt of the project",
        "line 2 of the file",
        "The prompt is empty.",
        "The prompt has 16001 characters, the limit is 16000. Shorten it or split it.",
    ]
    assert "NUL" in words[5]


def test_the_same_text_in_another_language_is_no_duplicate(project: Project, carol: User, draft: Prompt) -> None:
    batch = upload(project, carol, f"Q\n{draft.text}\n")
    batch.language = "ko"
    assert kinds(batch) == [(2, "taken")]


def test_prompts_arrive_as_drafts_with_what_holds_for_the_file(project: Project, carol: User) -> None:
    batch = upload(project, carol, "Q,A\nWhy?,Because.\n")
    batch.source, batch.licence, batch.tags = "a book", "MIT", ["qa"]
    batch.take(carol)
    prompt = project.prompts.get()
    assert (prompt.state, prompt.source, prompt.licence, prompt.tags) == ("draft", "a book", "MIT", ["qa"])
    assert (prompt.author, prompt.language, prompt.split in ("train", "heldout")) == (carol, "en", True)


def test_an_imported_demonstration_has_the_source_for_its_author(project: Project, carol: User) -> None:
    batch = upload(project, carol, "Q,A\nWhy?,Because.\nHow?,\n")
    batch.take(carol)
    demonstration = Demonstration.objects.get()
    assert (demonstration.origin, demonstration.author, demonstration.source) == ("imported", None, "rows")
    assert demonstration.revisions.get().text == demonstration.text == "Because."


def test_an_imported_demonstration_is_not_asked_for_again(project: Project, carol: User) -> None:
    batch = upload(project, carol, "Q,A\nWhy?,Because.\nHow?,\n")
    assert batch.take(carol, approve=True)["approved"] == 2
    assert [slot.prompt.text for slot in Slot.objects.all()] == ["How?"]
    assert CompletionSet.objects.count() == 2


def test_input_stands_below_the_prompt(project: Project, carol: User) -> None:
    upload(project, carol, "prompt,input\nSummarise.,A long text.\nHi,\n").take(carol)
    assert sorted(prompt.text for prompt in project.prompts.all()) == ["Hi", "Summarise.\n\nA long text."]


def test_a_dialogue_column_is_taken_whole(project: Project, carol: User) -> None:
    turns = [
        {"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"))
    ]
    answered = [*turns, {"role": "assistant", "content": "See you"}]
    batch = upload(project, carol, jsonl({"messages": turns[:1]}, {"messages": answered}), "d.jsonl")
    batch.take(carol)
    assert [len(prompt.messages) for prompt in project.prompts.order_by("pk")] == [1, 3]
    assert Demonstration.objects.get().text == "See you"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "assistant", "content": "Hi"}], "last message must be the user's"),
        ([{"role": "robot", "content": "Hi"}], "needs a role"),
        ([{"role": "user", "content": None}], "empty"),
        ([{"role": "user", "content": {"a": 1}}], "empty"),
        ([{"role": "user", "content": "\ud800"}], "surrogate"),
    ],
)
def test_a_broken_dialogue_is_refused(project: Project, carol: User, messages: list[Any], words: str) -> None:
    batch = upload(project, carol, json.dumps({"messages": messages}), "d.jsonl")
    assert words in str(batch.preview()[0].problem)


def test_a_value_that_is_no_text_is_refused(project: Project, carol: User) -> None:
    batch = upload(
        project, carol, jsonl({"prompt": 12, "a": {"b": {"c": {"d": {"e": 1}}}}}, {"prompt": "ok"}), "d.jsonl"
    )
    assert kinds(batch) == [(1, "taken"), (2, "taken")]
    batch.mapping = {"prompt": "a.b.c.d"}
    assert [str(row.problem) for row in batch.preview()][0].startswith("The value is a list or an object")


def test_taking_twice_takes_once(project: Project, carol: User) -> None:
    batch = upload(project, carol, "Q\nWhy?\n")
    again = Import.objects.get(pk=batch.pk)
    first = batch.take(carol)
    assert again.take(carol) == first
    assert project.prompts.count() == 1


def test_the_same_file_again_brings_nothing_new(project: Project, carol: User) -> None:
    upload(project, carol, "Q\nWhy?\n").take(carol)
    again = upload(project, carol, "Q\nWhy?\n")
    with pytest.raises(ValidationError, match="nothing to take"):
        again.take(carol)
    again.refresh_from_db()
    assert again.state == Import.State.UPLOADED


def test_what_fails_half_way_takes_nothing(project: Project, carol: User, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = upload(project, carol, "Q,A\nWhy?,Because.\n")

    def no_room(*args: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(type(Demonstration.objects.all()), "import_all", no_room)
    with pytest.raises(OSError, match="no space"):
        batch.take(carol)
    batch.refresh_from_db()
    assert (project.prompts.count(), batch.state) == (0, Import.State.UPLOADED)


def test_a_full_disk_is_said(project: Project, carol: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*args: Any, **kwargs: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileSystemStorage, "_save", no_room)
    with pytest.raises(ValidationError, match="No space left on device"):
        upload(project, carol, "Q\nWhy?\n")
    assert not Import.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_curators_who_take_at_once_take_once(project: Project, carol: User) -> None:
    first, second = upload(project, carol, "Q\nWhy?\nHow?\n"), upload(project, carol, "Q\nWhy?\nHow?\n")
    attempts = [lambda batch=batch: batch.take(carol) for batch in (first, second)]
    attempts += [lambda: Import.objects.get(pk=first.pk).take(carol)]
    outcomes = at_once(attempts)
    assert project.prompts.count() == 2
    assert all(isinstance(outcome, dict | ValidationError) for outcome in outcomes)


@pytest.mark.django_db(transaction=True)
def test_approval_and_promotion_at_once_leave_one_set_of_the_new_policy(project: Project, carol: User) -> None:
    upload(project, carol, "Q\n" + "".join(f"Question {number}?\n" for number in range(30))).take(carol)
    at_once(
        [
            lambda: project.prompts.all().approve(carol),
            lambda: Project.objects.get(pk=project.pk).set_policy("tiny-2", ["en"]),
            lambda: project.prompts.all().approve(carol),
        ]
    )
    assert project.prompts.approved().count() == 30
    live = CompletionSet.objects.live().values_list("prompt", "policy_name")
    assert sorted(live) == [(pk, "tiny-2") for pk in sorted(project.prompts.values_list("pk", flat=True))]


def test_korean_windows_text_waits_for_a_person(project: Project, carol: User) -> None:
    batch = upload(project, carol, "Q,A\n안녕,반가워요\n".encode("cp949"))
    assert (batch.encoding, batch.mapping) == ("", {})
    assert batch.first_lines_in_korean() == ["Q,A", "안녕,반가워요"]
    with pytest.raises(ValidationError):
        batch.take(carol)
    batch.accept_encoding()
    batch.take(carol)
    assert project.prompts.get().text == "안녕"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.xlsx", b"PK\x03\x04", "Only JSONL"),
        ("a.csv", b"", "empty"),
        ("a.csv", b"Q,A\n", "no rows"),
        ("a.jsonl", b"hello", "JSON object"),
        ("a.csv", bytes(range(1, 32)), "no text file"),
    ],
)
def test_an_unusable_file_leaves_nothing_behind(
    project: Project, carol: User, uploads: Path, name: str, data: bytes, words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        upload(project, carol, data, name)
    assert not Import.objects.exists()
    assert not uploads.exists() or not list(uploads.rglob("*.*"))


def test_a_file_over_the_limit_is_refused(project: Project, carol: User, settings: Any) -> None:
    settings.MAX_IMPORT_BYTES = 1000
    with pytest.raises(ValidationError, match="limit is"):
        upload(project, carol, "Q\n" + "x" * 1000)


def test_a_file_that_is_gone_is_named(project: Project, carol: User) -> None:
    batch = upload(project, carol, "Q\nWhy?\n")
    batch.file.storage.delete(batch.file.name)
    with pytest.raises(ValidationError, match="Upload it again"):
        Import.objects.get(pk=batch.pk).take(carol)


def test_discarding_removes_the_file(project: Project, carol: User, uploads: Path) -> None:
    batch = upload(project, carol, "Q\nWhy?\n")
    batch.discard()
    assert not Import.objects.exists()
    assert [path for path in uploads.rglob("*") if path.is_file()] == []


def test_an_uploaded_name_is_no_path(project: Project, carol: User, uploads: Path) -> None:
    batch = upload(project, carol, "Q\nWhy?\n", "../../etc/passwd.csv")
    assert batch.name == "passwd.csv"
    assert Path(batch.file.path).parent == uploads / "imports"


def test_seed_tasks_are_taken_with_input_and_demonstration(project: Project, carol: User) -> None:
    batch = upload(project, carol, real("seed_tasks.jsonl"), "seed_tasks.jsonl")
    assert batch.mapping == {
        "prompt": "instruction",
        "input": "instances.0.input",
        "demonstration": "instances.0.output",
    }
    report = batch.take(carol)
    assert report == {"taken": 175, "duplicate": 0, "refused": 0, "demonstrations": 175}
    assert project.prompts.filter(searchable__contains="given pairs?\n\nNight : Day :: Right : Left").exists()


def test_eleven_thousand_korean_rows_take_few_queries(
    project: Project, carol: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    batch = upload(project, carol, real("chatbot_ko.csv"), "chatbot_ko.csv")
    with django_assert_max_num_queries(1):
        assert len(batch.preview()) == 11_823
    with django_assert_max_num_queries(400):
        report = batch.take(carol)
    assert (report["taken"], report["duplicate"]) == (11_662, 161)
    with django_assert_max_num_queries(600):
        assert project.prompts.all().approve(carol) == 11_662
