"""Exporting on the pages: ask for a file, see how far it is, download it. Others are refused."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from labeling.downloads import Download
from labeling.models import Export, Project, Role, User
from labeling.tests.rows import ranked, ranking
from webapp.tests.browser import Visit
from worker import exporting

PAIRS = {"kind": "pairs", "format": "csv", "ties": "keep", "margin": "tiers", "identities": "pseudonyms"}


@pytest.fixture
def oscar(db: None) -> User:
    oscar = User.objects.create_user("oscar")
    oscar.set_roles([Role.OPS])
    return oscar


@pytest.fixture
def as_oscar(oscar: User) -> Client:
    client = Client()
    client.force_login(oscar)
    return client


def page(project: Project) -> str:
    return reverse("export_list", args=[project.slug])


def finished(project: Project, by: User, **fields: Any) -> Export:
    export = Export.objects.create(project=project, by=by, state=Export.State.SUCCEEDED, **fields)
    export.file.save(f"exports/{export.pk}.{export.format}", ContentFile("비가 온다\n".encode()))
    return export


def test_asking_for_a_file_queues_it_and_shows_it(as_carol: Client, project: Project, carol: User) -> None:
    answer = as_carol.post(page(project), PAIRS, follow=True)
    export = Export.objects.get()
    assert (export.by, export.state, export.margin) == (carol, Export.State.QUEUED, "tiers")
    text = answer.content.decode()
    assert "waits for a worker" in text and "with ties" in text
    assert f'hx-get="{reverse("export_rows", args=[project.slug])}"' in text


def test_a_file_that_waits_for_long_says_why(as_carol: Client, project: Project, carol: User) -> None:
    export = Export.objects.create(project=project, by=carol)
    address = reverse("export_rows", args=[project.slug])
    assert "every worker is busy" not in as_carol.get(address).content.decode()
    Export.objects.update(created_at=timezone.now() - timedelta(minutes=4))
    assert "every worker is busy" in as_carol.get(address).content.decode()
    assert Export.objects.claim(export.pk)
    assert "every worker is busy" not in as_carol.get(address).content.decode()


def test_progress_is_shown_and_asked_for_until_the_file_is_there(
    as_carol: Client, project: Project, carol: User
) -> None:
    export = Export.objects.create(
        project=project, by=carol, state=Export.State.RUNNING, progress={"step": 30, "total": 40}
    )
    address = reverse("export_rows", args=[project.slug])
    assert '<progress max="100" value="75"' in as_carol.get(address).content.decode()
    Export.objects.filter(pk=export.pk).update(state=Export.State.FAILED, error="No room.")
    text = as_carol.get(address).content.decode()
    assert "No room." in text and "hx-get" not in text


def test_download_is_streamed_with_its_type_and_name(as_carol: Client, project: Project, carol: User) -> None:
    export = finished(project, carol, format="csv")
    answer: Any = as_carol.get(reverse("export_file", args=[export.pk]))
    assert answer.streaming and answer.getvalue().decode() == "비가 온다\n"
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    name = re.escape(f"{project.slug}-pairs-") + r"\d{8}-\d{4}\.csv"
    assert re.fullmatch(rf'attachment; filename="{name}"', answer.headers["Content-Disposition"])


def test_an_asgi_server_gets_a_file_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(1_000_000))

    async def pieces() -> list[int]:
        return [len(piece) async for piece in Download(path.open("rb"))]

    with ThreadPoolExecutor() as pool:  # a browser test before this one leaves an event loop in the thread
        sizes = pool.submit(asyncio.run, pieces()).result()
    assert sum(sizes) == 1_000_000
    assert max(sizes) == Download.block_size


@pytest.mark.parametrize("why", ["none yet", "expired", "lost"])
def test_no_file_is_not_found(as_carol: Client, project: Project, carol: User, why: str) -> None:
    export = finished(project, carol) if why != "none yet" else Export.objects.create(project=project, by=carol)
    if why == "expired":
        export.drop_file()
    elif why == "lost":
        Path(export.file.path).unlink()
    assert as_carol.get(reverse("export_file", args=[export.pk])).status_code == 404


def test_cancel_and_delete(
    as_carol: Client, project: Project, carol: User, django_capture_on_commit_callbacks: Any
) -> None:
    queued, done = Export.objects.create(project=project, by=carol), finished(project, carol)
    path = Path(done.file.path)
    assert path.exists()
    as_carol.post(reverse("export_cancel", args=[queued.pk]))
    with django_capture_on_commit_callbacks(execute=True):
        as_carol.post(reverse("export_discard", args=[done.pk]))
    assert not path.exists()
    assert Export.objects.get().state == Export.State.CANCELLED


@pytest.mark.parametrize("name", ["export_file", "export_cancel", "export_discard"])
def test_another_teams_curator_is_refused(as_cleo: Client, project: Project, carol: User, name: str) -> None:
    export = finished(project, carol)
    method = as_cleo.get if name == "export_file" else as_cleo.post
    assert method(reverse(name, args=[export.pk])).status_code == 404
    assert as_cleo.post(page(project), PAIRS).status_code == 404
    assert Export.objects.get() == export


def test_labelers_are_refused_also_where_they_curate_elsewhere(project: Project, alice: User, carol: User) -> None:
    export, client = finished(project, carol), Client()
    client.force_login(alice)
    assert client.get(page(project)).status_code == 403
    assert client.get(reverse("export_file", args=[export.pk])).status_code == 403


def test_ops_export_every_project_without_names(
    as_oscar: Client, as_carol: Client, project: Project, carol: User
) -> None:
    named = finished(project, carol, identities="usernames")
    text = as_oscar.get(page(project)).content.decode()
    assert "id_identities" not in text and f'href="{reverse("project", args=[project.slug])}"' not in text
    assert "No files yet." in text
    assert as_oscar.get(reverse("export_file", args=[named.pk])).status_code == 404
    as_oscar.post(page(project), PAIRS | {"identities": "usernames"})
    assert Export.objects.first().identities == "pseudonyms"  # type: ignore[union-attr]
    assert "id_identities" in as_carol.get(page(project)).content.decode()


@pytest.mark.parametrize("wrong", [{"kind": "x"}, {"format": ""}, {"language": "fr"}, {"split": "test"}])
def test_wrong_choices_are_refused_beside_them(as_carol: Client, project: Project, wrong: dict[str, str]) -> None:
    text = as_carol.post(page(project), PAIRS | wrong).content.decode()
    assert "errorlist" in text
    assert not Export.objects.exists()


def test_the_list_costs_the_same_however_long_it_is(as_carol: Client, project: Project, carol: User) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            as_carol.get(page(project))
        return len(asked)

    finished(project, carol)
    before = queries()
    for _ in range(5):
        finished(project, carol)
    assert queries() == before


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_a_file_is_asked_for_watched_and_downloaded(visit: Visit, project: Project, alice: User, carol: User) -> None:
    ranked(project, alice, ranking([1, 2, 3, 3]))
    opened = visit(carol, f"/projects/{project.slug}/")
    opened.get_by_role("link", name="Export").click()
    opened.get_by_label("What").select_option("pairs")
    opened.get_by_role("button", name="Write the file").click()
    expect(opened.get_by_text("waits for a worker")).to_be_visible()
    exporting.export(Export.objects.get().pk)
    expect(opened.get_by_role("link", name="Download")).to_be_visible()  # without a reload
    with opened.expect_download() as download:
        opened.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.endswith(".jsonl")
    assert len(Path(download.value.path()).read_text().splitlines()) == 5
    opened.get_by_role("button", name="Delete").click()
    expect(opened.get_by_text("No files yet.")).to_be_visible()
