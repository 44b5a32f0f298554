"""Prompts over the REST API: curators change those of their projects, ops look on."""

from types import SimpleNamespace
from typing import Any

import pytest
from rest_framework.test import APIClient

from labeling.models import Prompt
from labeling.tests import world


@pytest.fixture
def site(db: None) -> SimpleNamespace:
    site = SimpleNamespace(
        labeler=world.person("lena", "labeler"),
        curator=world.person("cora", "curator"),
        ops=world.person("oleg", "ops"),
        stranger=world.person("cleo", "curator"),
    )
    site.project = world.project("Ours", site.labeler, site.curator)
    site.foreign = world.project("Theirs", site.stranger)
    return site


def api(user: Any) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


def written(site: SimpleNamespace, **changes: Any) -> dict[str, Any]:
    return {
        "project": site.project.pk,
        "language": "en",
        "messages": [{"role": "user", "content": "Name three fjords."}],
        "tags": ["geography"],
        **changes,
    }


def test_a_curator_adds_approves_and_retires_a_prompt(site: SimpleNamespace) -> None:
    curator = api(site.curator)
    added = curator.post("/api/prompts/", written(site), format="json")
    assert added.status_code == 201, added.content
    assert added.json()["state"] == "draft"
    assert added.json()["split"] in ("train", "heldout")
    address = f"/api/prompts/{added.json()['id']}/"
    assert curator.post(f"{address}approve/").json()["state"] == "approved"
    assert curator.post(f"{address}approve/").status_code == 409
    assert curator.post(f"{address}retire/").json()["state"] == "retired"
    assert Prompt.objects.get().author == site.curator


def test_the_list_is_filtered_by_state_and_language(site: SimpleNamespace) -> None:
    world.approved_prompt(site.project, site.curator)
    api(site.curator).post("/api/prompts/", written(site), format="json")
    shown = api(site.curator).get("/api/prompts/", {"state": "draft", "language": "en"}).json()["results"]
    assert [prompt["messages"][0]["content"] for prompt in shown] == ["Name three fjords."]
    assert api(site.curator).get("/api/prompts/", {"language": "ko"}).json()["results"] == []
    assert api(site.curator).get("/api/prompts/", {"state": "lost"}).status_code == 400


def test_long_lists_come_in_pages(site: SimpleNamespace) -> None:
    for number in range(60):
        Prompt.objects.add(site.project, [{"role": "user", "content": f"Question {number}"}], language="en")
    first = api(site.curator).get("/api/prompts/").json()
    second = api(site.curator).get(first["next"]).json()
    assert len(first["results"]) == 50 and len(second["results"]) == 10 and second["next"] is None
    assert first["results"][0]["messages"][0]["content"] == "Question 59"


@pytest.mark.parametrize("cursor", ["cD1h", "cD0lMDA=", "bz0x", "!", "cD05OTk5OTk5OTk5OTk5OTk5OTk5OTk5"])
def test_a_cursor_that_is_not_ours_is_not_found(site: SimpleNamespace, cursor: str) -> None:
    assert api(site.curator).get("/api/prompts/", {"cursor": cursor}).status_code in (200, 404)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "non_field_errors"),
        ({"messages": [{"role": "user", "content": "x" * 16_001}]}, "non_field_errors"),
        ({"language": "xx"}, "language"),
        ({"language": None}, "language"),
        ({"k": 3}, "k"),
        ({"k": 10}, "k"),
        ({"project": 10**17}, "project"),
        ({"project": "x"}, "project"),
        ({"tags": "x"}, "tags"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused_by_field(
    site: SimpleNamespace, changes: dict[str, Any], field: str
) -> None:
    refused = api(site.curator).post("/api/prompts/", written(site, **changes), format="json")
    assert refused.status_code == 400
    assert field in refused.json(), refused.json()
    assert not Prompt.objects.exists()


def test_the_same_prompt_twice_is_refused(site: SimpleNamespace) -> None:
    api(site.curator).post("/api/prompts/", written(site), format="json")
    again = api(site.curator).post("/api/prompts/", written(site), format="json")
    assert again.status_code == 400
    assert "already" in again.content.decode()


def test_another_teams_project_looks_like_none(site: SimpleNamespace) -> None:
    foreign = api(site.curator).post("/api/prompts/", written(site, project=site.foreign.pk), format="json")
    missing = api(site.curator).post("/api/prompts/", written(site, project=99_999), format="json")
    assert foreign.status_code == missing.status_code == 400
    assert foreign.json()["project"][0].replace(str(site.foreign.pk), "N") == missing.json()["project"][0].replace(
        "99999", "N"
    )
    prompt = world.approved_prompt(site.foreign, site.stranger)
    for verb in ("approve", "retire"):
        assert api(site.curator).post(f"/api/prompts/{prompt.pk}/{verb}/").status_code == 404
    assert api(site.curator).get(f"/api/prompts/{prompt.pk}/").status_code == 404


def test_ops_read_every_prompt_and_change_none(site: SimpleNamespace) -> None:
    prompt = world.approved_prompt(site.foreign, site.stranger)
    assert api(site.ops).get(f"/api/prompts/{prompt.pk}/").status_code == 200
    assert api(site.ops).post(f"/api/prompts/{prompt.pk}/retire/").status_code == 403
    assert api(site.labeler).get("/api/prompts/").status_code == 403


def test_curators_see_which_model_wrote_each_completion(site: SimpleNamespace) -> None:
    world.sampled(world.approved_prompt(site.project, site.curator))
    shown = api(site.curator).get("/api/completion-sets/", {"project": site.project.pk}).json()["results"]
    assert [completion["model_name"] for completion in shown[0]["completions"]] == ["tiny-base"] * 4
    assert api(site.stranger).get("/api/completion-sets/").json()["results"] == []


def test_lists_ask_the_database_a_fixed_number_of_times(
    site: SimpleNamespace, django_assert_max_num_queries: Any
) -> None:
    for number in range(5):
        world.sampled(world.approved_prompt(site.project, site.curator, f"Question {number}"))
    curator = api(site.curator)
    curator.get("/api/prompts/")  # roles are read once per user object
    with django_assert_max_num_queries(2):
        curator.get("/api/completion-sets/")
