"""Starting runs in the console: what the forms propose, refuse and start."""

import uuid
from typing import Any

import pytest
from django.test import Client

from labeling.models import Project, User
from rlhf.models import DatasetSnapshot, ModelVersion, TrainingRun
from rlhf.tests.console import defaults, recorded, url
from rlhf.tests.world import model_version


@pytest.fixture
def form(snapshot: DatasetSnapshot, policy: ModelVersion) -> dict[str, Any]:
    return {"key": uuid.uuid4(), "snapshot": snapshot.pk, "policy": policy.pk}


def test_form_proposes_the_projects_own_policy_and_newest_snapshot(
    ops: Client, project: Project, snapshot: DatasetSnapshot, policy: ModelVersion
) -> None:
    model_version("tiny-newer")
    fields = ops.get(url("trainingrun_start", "sft", project=project.pk)).context["form"]
    assert fields["policy"].value() == policy.pk
    assert fields["snapshot"].value() == snapshot.pk
    assert "current policy" in str(fields["policy"])


def test_choices_hold_no_archived_and_no_unfit_models(
    ops: Client, project: Project, snapshot: DatasetSnapshot, reward_model: ModelVersion
) -> None:
    old = model_version("tiny-old")
    old.archive()
    fields = ops.get(url("trainingrun_start", "ppo", project=project.pk)).context["form"].fields
    assert [version.name for version in fields["policy"].queryset] == ["tiny-base"]
    assert [version.name for version in fields["reward_model"].queryset] == ["tiny-reward"]


def test_run_is_started_with_its_changes_alone(ops: Client, project: Project, form: dict[str, Any]) -> None:
    answer = ops.post(url("trainingrun_start", "sft", project=project.pk), {**defaults("sft"), **form, "epochs": 5})
    run = TrainingRun.objects.get()
    assert answer.headers["Location"] == url("trainingrun_change", run.pk)
    assert (run.stage, run.params, run.by.username) == ("sft", {"epochs": 5}, "oscar")
    assert recorded(run) == ["started"]


def test_start_pressed_twice_starts_one_run(ops: Client, project: Project, form: dict[str, Any]) -> None:
    answers = [
        ops.post(url("trainingrun_start", "sft", project=project.pk), {**defaults("sft"), **form}) for _ in range(2)
    ]
    assert TrainingRun.objects.count() == 1
    assert answers[0].headers["Location"] == answers[1].headers["Location"]


@pytest.mark.parametrize(
    ("name", "value"), [("learning_rate", "7"), ("epochs", ""), ("batch_size", "2.5"), ("policy", "999"), ("key", "x")]
)
def test_refused_form_names_the_field_and_keeps_what_was_typed(
    ops: Client, project: Project, form: dict[str, Any], name: str, value: str
) -> None:
    sent = {**defaults("sft"), **form, "max_length": 77, name: value}
    answer = ops.post(url("trainingrun_start", "sft", project=project.pk), sent)
    assert answer.status_code == 200
    assert set(answer.context["form"].errors) == {name}
    assert answer.context["form"]["max_length"].value() == "77"
    assert not TrainingRun.objects.exists()


def test_lost_files_are_named_beside_the_model(
    ops: Client, project: Project, form: dict[str, Any], policy: ModelVersion
) -> None:
    (policy.path / "manifest.json").unlink()
    answer = ops.post(url("trainingrun_start", "sft", project=project.pk), {**defaults("sft"), **form})
    assert "missing from the data directory" in str(answer.context["form"].errors["policy"])


def test_snapshot_without_demonstrations_is_named_beside_it(
    ops: Client, project: Project, oscar: User, policy: ModelVersion, rank: Any
) -> None:
    rank()
    bare = DatasetSnapshot.objects.freeze(project, oscar)
    sent = {**defaults("sft"), "key": uuid.uuid4(), "snapshot": bare.pk, "policy": policy.pk}
    answer = ops.post(url("trainingrun_start", "sft", project=project.pk), sent)
    assert "no demonstrations" in str(answer.context["form"].errors["snapshot"])


def test_what_is_missing_is_said_with_a_way_to_it(ops: Client, project: Project) -> None:
    page = ops.get(url("trainingrun_start", "ppo", project=project.pk)).content.decode()
    assert url("datasetsnapshot_freeze", project=project.pk) in page
    assert url("trainingrun_start", "reward", project=project.pk) in page
    assert "<fieldset" not in page


def test_new_run_can_begin_with_the_settings_of_another(
    ops: Client, project: Project, start: Any, reward_model: ModelVersion
) -> None:
    run = start("ppo", reward_model=reward_model, params={"kl_coef": 0.3})
    fields = ops.get(url("trainingrun_start", "ppo", project=project.pk, like=run.pk)).context["form"]
    assert fields["kl_coef"].value() == 0.3
    assert fields["episodes"].value() == 256
    assert fields["reward_model"].value() == reward_model.pk


def test_retrain_form_starts_both_runs(ops: Client, project: Project, policy: ModelVersion, rank: Any) -> None:
    rank(2)
    sent = {**defaults("reward", "reward-"), **defaults("ppo", "ppo-"), "key": uuid.uuid4(), "policy": policy.pk}
    for _ in range(2):
        ops.post(url("trainingrun_retrain", project=project.pk), {**sent, "reward-epochs": 2, "ppo-kl_coef": 0.1})
    ppo, reward = TrainingRun.objects.all()
    assert (reward.params, ppo.params) == ({"epochs": 2}, {"kl_coef": 0.1})
    assert ppo.after == reward


def test_retrain_form_names_bad_fields_of_both_stages(
    ops: Client, project: Project, policy: ModelVersion, rank: Any
) -> None:
    rank()
    sent = {**defaults("reward", "reward-"), **defaults("ppo", "ppo-"), "key": uuid.uuid4(), "policy": policy.pk}
    answer = ops.post(
        url("trainingrun_retrain", project=project.pk), {**sent, "reward-epochs": 0, "ppo-minibatch_size": 7}
    )
    assert set(answer.context["form"].errors) == {"reward-epochs", "ppo-minibatch_size"}


def test_retraining_under_way_is_linked_and_no_second_one_offered(ops: Client, project: Project, start: Any) -> None:
    run = start()
    page = ops.get(url("trainingrun_retrain", project=project.pk)).content.decode()
    assert url("trainingrun_change", run.pk) in page
    assert "<fieldset" not in page
