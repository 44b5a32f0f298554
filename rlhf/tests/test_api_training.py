"""Snapshots, runs and models over the REST API: for ops and admins alone."""

import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rest_framework.test import APIClient

from labeling.tests import world
from rlhf.models import DatasetSnapshot, Metric, ModelVersion, Promotion, TrainingRun
from rlhf.tests.world import model_version, trained


@pytest.fixture
def site(db: None, settings: Any, tmp_path: Path) -> SimpleNamespace:
    settings.DATA_DIR = tmp_path
    site = SimpleNamespace(
        labeler=world.person("lena", "labeler"),
        curator=world.person("cora", "curator"),
        ops=world.person("oleg", "ops"),
        version=model_version("tiny-base"),
    )
    site.project = world.project("Ours", site.labeler, site.curator)
    Promotion.objects.promote(site.project, site.version, site.ops)
    world.labelled(site.project, site.curator, site.labeler)
    site.project.prompts.update(split="train")  # it is drawn by chance
    return site


def api(user: Any) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


def test_freezing_twice_under_one_key_makes_one_snapshot(site: SimpleNamespace) -> None:
    body = {"project": site.project.pk, "key": str(uuid.uuid4())}
    frozen = [api(site.ops).post("/api/snapshots/", body, format="json") for _ in range(2)]
    assert [answer.status_code for answer in frozen] == [201, 201]
    assert frozen[0].json()["id"] == frozen[1].json()["id"]
    assert DatasetSnapshot.objects.get().total("rankings") == 1


def test_an_empty_project_cannot_be_frozen(site: SimpleNamespace) -> None:
    empty = world.project("Empty", site.curator)
    refused = api(site.ops).post("/api/snapshots/", {"project": empty.pk}, format="json")
    assert refused.status_code == 400
    assert "nothing to freeze" in refused.content.decode()


def test_a_run_is_started_cancelled_and_resumed(site: SimpleNamespace) -> None:
    snapshot = DatasetSnapshot.objects.freeze(site.project, site.ops)
    body = {"project": site.project.pk, "stage": "sft", "snapshot": snapshot.pk, "policy": site.version.pk}
    started = api(site.ops).post("/api/runs/", {**body, "params": {"epochs": 1}}, format="json")
    assert started.status_code == 201, started.content
    address = f"/api/runs/{started.json()['id']}/"
    assert api(site.ops).post(f"{address}resume/").status_code == 409
    assert api(site.ops).post(f"{address}cancel/").json()["state"] == "cancelled"
    assert api(site.ops).post(f"{address}cancel/").status_code == 409
    assert api(site.ops).post(f"{address}resume/").json()["state"] == "queued"


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {"no_such": 1}},
        {"params": {"learning_rate": -1}},
        {"params": {"epochs": "many"}},
        {"params": []},
        {"stage": "dance"},
        {"stage": "ppo"},
        {"snapshot": 10**12},
        {"policy": None},
    ],
)
def test_a_run_with_unusable_parameters_is_refused(site: SimpleNamespace, changes: dict[str, Any]) -> None:
    snapshot = DatasetSnapshot.objects.freeze(site.project, site.ops)
    body = {"project": site.project.pk, "stage": "sft", "snapshot": snapshot.pk, "policy": site.version.pk, **changes}
    refused = api(site.ops).post("/api/runs/", body, format="json")
    assert refused.status_code == 400, refused.content
    assert not TrainingRun.objects.exists()


def test_retraining_starts_a_reward_model_and_then_ppo(site: SimpleNamespace) -> None:
    body = {"project": site.project.pk, "policy": site.version.pk}
    runs = api(site.ops).post("/api/runs/retrain/", body, format="json")
    assert runs.status_code == 201, runs.content
    reward, ppo = runs.json()
    assert (reward["stage"], ppo["stage"]) == ("reward", "ppo")
    assert ppo["after"] == reward["id"]
    assert api(site.ops).post("/api/runs/retrain/", body, format="json").status_code == 400


def test_curves_are_given_from_a_step_on(site: SimpleNamespace) -> None:
    run = trained(site.project, site.ops)["run"]
    Metric.objects.bulk_create(Metric(run=run, step=step, name="loss", value=1 / step) for step in (1, 2, 4))
    address = f"/api/runs/{run.pk}/metrics/"
    assert api(site.ops).get(address).json() == {"metrics": {"loss": [[1, 1.0], [2, 0.5], [4, 0.25]]}}
    assert api(site.ops).get(address, {"since": 2}).json() == {"metrics": {"loss": [[4, 0.25]]}}
    for since in ("-1", "x", "9" * 30, "\x00"):
        assert api(site.ops).get(address, {"since": since}).status_code == 400


def test_a_version_is_promoted_and_rolled_back(site: SimpleNamespace) -> None:
    model_version("tiny-better")
    body = {"project": site.project.pk, "reason": "better"}
    promoted = api(site.ops).post("/api/models/tiny-better/promote/", body, format="json")
    assert promoted.status_code == 201, promoted.content
    site.project.refresh_from_db()
    assert site.project.policy_name == "tiny-better"
    back = api(site.ops).post("/api/promotions/roll_back/", {"project": site.project.pk}, format="json")
    assert back.json()["version"] == "tiny-base"
    again = api(site.ops).post("/api/promotions/roll_back/", {"project": site.project.pk}, format="json")
    assert again.status_code == 400


def test_the_current_policy_cannot_be_archived(site: SimpleNamespace) -> None:
    spare = model_version("tiny-spare")
    assert api(site.ops).post("/api/models/tiny-base/archive/").status_code == 400
    assert api(site.ops).post("/api/models/tiny-spare/archive/").json()["archived_at"]
    refused = api(site.ops).post("/api/models/tiny-spare/promote/", {"project": site.project.pk}, format="json")
    assert refused.status_code == 400
    assert ModelVersion.objects.get(pk=spare.pk).archived_at


def test_nobody_else_gets_in(site: SimpleNamespace) -> None:
    for user in (site.labeler, site.curator):
        for page in ("snapshots", "runs", "models", "promotions"):
            assert api(user).get(f"/api/{page}/").status_code == 403
        assert api(user).post("/api/runs/retrain/", {}, format="json").status_code == 403
