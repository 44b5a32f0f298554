"""Every curator's page: closed to labelers, and to curators of other projects as if it were not there."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from labeling.models import Import, Project, Prompt, User

PROJECT = ["project", "sampling", "project_settings", "instructions_edit", "prompt_list", "prompt_new", "import_list"]
PROMPT = ["prompt", "prompt_sets", "prompt_edit"]
PROMPT_POST = ["prompt_approve", "prompt_retire", "prompt_restore", "prompt_sample", "prompt_k"]
IMPORT_POST = ["import_mapping", "import_encoding", "import_take", "import_discard"]


@pytest.fixture
def addresses(project: Project, draft: Prompt, carol: User) -> list[tuple[str, str]]:
    """(method, address) of every page about the project of Carol."""
    batch = Import.objects.upload(project, carol, SimpleUploadedFile("rows.csv", b"Q\nWhy?\n"))
    version = project.revise_instructions({"en": "Be kind."}, carol)
    found = [("get", reverse(name, args=[project.slug])) for name in PROJECT]
    found += [("post", reverse("prompts_change", args=[project.slug]))]
    found += [("get", reverse("instruction_version", args=[project.slug, version.number]))]
    found += [("get", reverse(name, args=[draft.pk])) for name in PROMPT]
    found += [("get", reverse("translation", args=[draft.pk, "ko"]))]
    found += [("get", reverse("import_page", args=[batch.pk]))]
    found += [("post", reverse(name, args=[draft.pk])) for name in PROMPT_POST]
    found += [("post", reverse("translation_draft", args=[draft.pk, "ko"]))]
    found += [("post", reverse(name, args=[batch.pk])) for name in IMPORT_POST]
    return found


def statuses(client: Client, addresses: list[tuple[str, str]], **headers: Any) -> set[int]:
    return {getattr(client, method)(address, **headers).status_code for method, address in addresses}


def test_logged_out_people_are_sent_to_the_login_page(addresses: list[tuple[str, str]]) -> None:
    for method, address in addresses:
        response = getattr(Client(), method)(address)
        assert response.status_code == 302 and response["Location"].startswith("/login/?next="), address


def test_a_fragment_never_shows_the_login_page_inside_another(addresses: list[tuple[str, str]]) -> None:
    assert statuses(Client(), addresses, headers={"HX-Request": "true"}) == {401}


def test_labelers_are_refused(addresses: list[tuple[str, str]], alice: User) -> None:
    client = Client()
    client.force_login(alice)
    assert statuses(client, [*addresses, ("get", "/projects/"), ("get", "/projects/new/")]) == {403}


def test_curators_of_another_project_find_nothing(addresses: list[tuple[str, str]], as_cleo: Client) -> None:
    assert statuses(as_cleo, addresses) == {404}
    assert Prompt.objects.get().state == Prompt.State.DRAFT
    assert Import.objects.count() == 1


def test_changes_are_not_made_by_following_a_link(addresses: list[tuple[str, str]], as_carol: Client) -> None:
    posts = [address for method, address in addresses if method == "post"]
    assert {as_carol.get(address).status_code for address in posts} == {302, 405}
    assert as_carol.get("/projects/everyday/prompts/change/?action=approve&scope=all&confirmed=1").status_code == 302
    assert Prompt.objects.get().state == Prompt.State.DRAFT


def test_a_curator_sees_only_her_own_projects(as_cleo: Client, project: Project) -> None:
    page = as_cleo.get("/projects/").content.decode()
    assert "Another team" in page and project.name not in page
