"""The registry: names and files that stay as they are."""

import pytest
from django.core.exceptions import ValidationError

from labeling.models import Project, User
from modelzoo.checkpoint import verify
from rlhf.models import ModelVersion, Promotion, TrainingRun
from rlhf.tests.world import model_version


def test_version_is_never_renamed(policy: ModelVersion) -> None:
    policy.name = "better-name"
    with pytest.raises(TypeError, match="never renamed"):
        policy.save()


def test_version_is_never_deleted(policy: ModelVersion) -> None:
    with pytest.raises(TypeError, match="archived, never deleted"):
        policy.delete()


def test_current_policy_cannot_be_archived(policy: ModelVersion, project: Project) -> None:
    with pytest.raises(ValidationError, match="current policy of “Capitals”"):
        policy.archive()


def test_former_policy_can_be_archived_and_taken_back(policy: ModelVersion, project: Project, oscar: User) -> None:
    Promotion.objects.promote(project, model_version("tiny-2"), oscar)
    policy.archive()
    assert policy not in ModelVersion.objects.active()
    policy.unarchive()
    assert policy in ModelVersion.objects.active()


def test_model_that_a_run_needs_cannot_be_archived(
    start: "type[TrainingRun]", reward_model: ModelVersion, project: Project, oscar: User
) -> None:
    run = start("ppo", reward_model=reward_model)
    with pytest.raises(ValidationError, match="under way"):
        reward_model.archive()
    assert run.request_cancel()
    reward_model.archive()
    assert reward_model.archived_at


def test_files_that_the_trainers_accept_bring_no_complaints(policy: ModelVersion) -> None:
    assert verify(policy.path)["kind"] == "base"
    assert policy.complaints() == []


def test_altered_weights_are_named(policy: ModelVersion) -> None:
    (policy.path / "config.json").write_text("{}")
    assert policy.complaints() == ["config.json was altered."]


def test_altered_manifest_is_named_even_where_it_fits_its_files(policy: ModelVersion) -> None:
    manifest = policy.path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    verify(policy.path)  # consistent in itself, but no longer the one that was registered
    assert policy.complaints() == ["manifest.json was altered."]
