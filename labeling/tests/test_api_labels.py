"""Rankings and demonstrations over the REST API: labelers read their own, curators those of their projects."""

from types import SimpleNamespace
from typing import Any

import pytest
from rest_framework.test import APIClient

from labeling.tests import world

PAGES = ("/api/rankings/", "/api/demonstrations/")


@pytest.fixture
def site(db: None) -> SimpleNamespace:
    site = SimpleNamespace(
        alice=world.person("alice", "labeler"),
        bob=world.person("bob", "labeler"),
        curator=world.person("cora", "curator"),
        stranger=world.person("cleo", "curator"),
        ops=world.person("oleg", "ops"),
    )
    site.project = world.project("Ours", site.alice, site.bob, site.curator)
    site.foreign = world.project("Theirs", site.stranger)
    site.labels = world.labelled(site.project, site.curator, site.alice)
    return site


def api(user: Any) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


@pytest.mark.parametrize("page", PAGES)
def test_a_labeler_reads_their_own_and_nobody_elses(site: SimpleNamespace, page: str) -> None:
    mine = api(site.alice).get(page).json()["results"]
    assert len(mine) == 1
    assert api(site.bob).get(page).json()["results"] == []
    assert api(site.bob).get(f"{page}{mine[0]['id']}/").status_code == 404


@pytest.mark.parametrize("page", PAGES)
def test_a_curator_reads_those_of_their_projects_and_ops_all(site: SimpleNamespace, page: str) -> None:
    assert len(api(site.curator).get(page, {"project": site.project.pk}).json()["results"]) == 1
    assert api(site.stranger).get(page).json()["results"] == []
    assert api(site.stranger).get(page, {"project": site.project.pk}).status_code == 400
    assert len(api(site.ops).get(page).json()["results"]) == 1


@pytest.mark.parametrize("page", PAGES)
def test_labels_are_read_only(site: SimpleNamespace, page: str) -> None:
    label = api(site.alice).get(page).json()["results"][0]
    for method in ("put", "patch", "delete"):
        assert getattr(api(site.alice), method)(f"{page}{label['id']}/", {}, format="json").status_code == 405


def test_a_ranking_holds_what_was_judged(site: SimpleNamespace) -> None:
    ranking = api(site.alice).get("/api/rankings/").json()["results"][0]
    assert ranking["labeler"] == "alice"
    assert ranking["revision"]["tiers"] == [1, 2, 2, 3]
    assert ranking["completions"][0] == {"index": 0, "text": "A long narrow inlet.", "finish_reason": "stop"}
    assert ranking["messages"] == [{"role": "user", "content": "What is a fjord?"}]
