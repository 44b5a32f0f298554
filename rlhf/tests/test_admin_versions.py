"""Model versions and promotions in the console."""

from typing import Any

from django.test import Client

from labeling.models import Project, User
from rlhf.models import ModelVersion, Promotion
from rlhf.tests.conftest import carried_out
from rlhf.tests.console import recorded, said, url
from rlhf.tests.world import model_version


def test_promote_page_promotes(ops: Client, project: Project) -> None:
    version = model_version("tiny-2")
    answer = ops.post(url("modelversion_promote", version.pk), {"project": project.pk, "reason": "better at capitals"})
    assert answer.status_code == 302
    promotion = Promotion.objects.first()
    assert (promotion.version, promotion.reason, promotion.by.username) == (version, "better at capitals", "oscar")
    assert recorded(version) == ["promoted in Capitals"]


def test_promote_page_says_why_not(ops: Client, project: Project, reward_model: ModelVersion) -> None:
    answer = ops.post(url("modelversion_promote", reward_model.pk), {"project": project.pk, "reason": ""})
    assert "Choose a policy" in answer.content.decode()
    assert Promotion.objects.count() == 1


def test_archive_button_refuses_the_current_policy(ops: Client, policy: ModelVersion) -> None:
    assert "current policy" in said(ops.post(url("modelversion_archive", policy.pk)))
    policy.refresh_from_db()
    assert policy.archived_at is None


def test_archive_button_archives_and_takes_back(ops: Client, project: Project) -> None:
    version = model_version("tiny-2")
    ops.post(url("modelversion_archive", version.pk))
    version.refresh_from_db()
    assert version.archived_at
    ops.post(url("modelversion_unarchive", version.pk))
    version.refresh_from_db()
    assert version.archived_at is None
    assert recorded(version) == ["archived", "taken out of the archive"]


def test_version_page_shows_where_it_came_from(ops: Client, start: Any) -> None:
    run = start()
    version = carried_out(run)
    page = ops.get(url("modelversion_change", version.pk)).content.decode()
    for row, name in ((run.policy, "modelversion"), (run, "trainingrun"), (run.snapshot, "datasetsnapshot")):
        assert url(f"{name}_change", row.pk) in page
    assert run.snapshot.hash in page


def test_rollback_page_names_both_policies_and_goes_back(ops: Client, project: Project, oscar: User) -> None:
    Promotion.objects.promote(project, model_version("tiny-2"), oscar)
    page = ops.get(url("promotion_roll_back", project.pk))
    assert "tiny-2" in page.content.decode()
    assert "tiny-base" in page.content.decode()
    shown = {"from": page.context["current"].pk}
    for _ in range(2):  # pressed twice
        ops.post(url("promotion_roll_back", project.pk), shown)
    project.refresh_from_db()
    assert project.policy_name == "tiny-base"
    assert Promotion.objects.count() == 3
