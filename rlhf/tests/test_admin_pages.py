"""What ops do in the console: freeze, start, cancel, resume, promote, roll back, archive, schedule."""

import json
import uuid
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from labeling.models import Project, User
from rlhf import parameters
from rlhf.models import DatasetSnapshot, Metric, ModelVersion, Promotion, Schedule, TrainingRun
from rlhf.tests.conftest import carried_out
from rlhf.tests.world import model_version

State = TrainingRun.State


def url(name: str, *args: Any, **query: Any) -> str:
    address = reverse(f"admin:rlhf_{name}", args=args)
    return address + "?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else address


def defaults(stage: str, prefix: str = "") -> dict[str, Any]:
    """The parameters of `stage` as a browser sends an untouched form."""
    values = {prefix + name: spec.default for name, spec in parameters.specs(stage).items()}
    return {name: value for name, value in values.items() if value is not False}


def said(answer: Any) -> str:
    return " ".join(str(message) for message in get_messages(answer.wsgi_request))


def recorded(row: Any) -> list[str]:
    return [entry.get_change_message() for entry in LogEntry.objects.filter(object_id=str(row.pk)).order_by("pk")]


@pytest.fixture
def form(snapshot: DatasetSnapshot, policy: ModelVersion) -> dict[str, Any]:
    return {"key": uuid.uuid4(), "snapshot": snapshot.pk, "policy": policy.pk}


# --- Snapshots -------------------------------------------------------------------------------------------------------


def test_freeze_page_shows_what_would_be_in_it_and_freezes(ops: Client, project: Project, rank: Any) -> None:
    rank(2)
    address = url("datasetsnapshot_freeze", project=project.pk)
    page = ops.get(address).content.decode()
    assert "No demonstrations for training" in page
    answer = ops.post(address, {"key": uuid.uuid4()})
    snapshot = DatasetSnapshot.objects.get()
    assert answer.headers["Location"] == url("datasetsnapshot_change", snapshot.pk)
    assert recorded(snapshot) == ["frozen"]
    assert snapshot.by.username == "oscar"


def test_freeze_button_pressed_twice_freezes_once(ops: Client, project: Project, rank: Any) -> None:
    rank()
    key = uuid.uuid4()
    for _ in range(2):
        ops.post(url("datasetsnapshot_freeze", project=project.pk), {"key": key})
    assert DatasetSnapshot.objects.count() == 1


def test_empty_project_cannot_be_frozen(ops: Client, project: Project) -> None:
    address = url("datasetsnapshot_freeze", project=project.pk)
    assert "nothing to freeze yet" in ops.get(address).content.decode()
    assert "nothing to freeze yet" in ops.post(address, {"key": uuid.uuid4()}).content.decode()


def test_project_is_asked_for_where_there_are_several(ops: Client, project: Project) -> None:
    other = Project.objects.create(name="Another", slug="another", languages=["en"])
    page = ops.get(url("datasetsnapshot_freeze")).content.decode()
    assert f"?project={project.pk}" in page
    assert f"?project={other.pk}" in page


@pytest.mark.parametrize("query", ["project=999", "project=x", "project=-1"])
def test_unknown_project_is_not_found(ops: Client, project: Project, query: str) -> None:
    assert ops.get(url("trainingrun_retrain") + "?" + query).status_code == 404


def test_verify_button_names_the_altered_file(ops: Client, snapshot: DatasetSnapshot) -> None:
    assert "Every file is as it was frozen" in said(ops.post(url("datasetsnapshot_verify", snapshot.pk)))
    (snapshot.path / "prompts.jsonl").write_text("")
    assert "prompts.jsonl was altered" in said(ops.post(url("datasetsnapshot_verify", snapshot.pk)))


def test_files_are_downloaded_by_their_names_alone(ops: Client, snapshot: DatasetSnapshot) -> None:
    answer = ops.get(url("datasetsnapshot_file", snapshot.pk, "rankings.jsonl"))
    assert answer.getvalue() == (snapshot.path / "rankings.jsonl").read_bytes()
    assert "attachment" in answer.headers["Content-Disposition"]
    (snapshot.path / "notes.txt").write_text("put there later")
    assert ops.get(url("datasetsnapshot_file", snapshot.pk, "notes.txt")).status_code == 404


def test_used_snapshot_offers_no_delete(ops: Client, start: Any) -> None:
    run = start()
    assert ops.post(url("datasetsnapshot_delete", run.snapshot_id), {"post": "yes"}).status_code == 403
    assert DatasetSnapshot.objects.filter(pk=run.snapshot_id).exists()


# --- Starting --------------------------------------------------------------------------------------------------------


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


# --- Watching --------------------------------------------------------------------------------------------------------


def live(ops: Client, run: TrainingRun, **query: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ops.get(url("trainingrun_live", run.pk, **query)).content)
    return answer


def test_live_answer_follows_the_run(ops: Client, start: Any) -> None:
    run = start()
    assert "queued" in live(ops, run)["fragments"]["standing"]
    held = TrainingRun.objects.claim(run.pk)
    held.heartbeat(progress={"step": 2, "total": 8})
    Metric.objects.create(run=held, step=2, name="loss", value=1.5)
    first = live(ops, run)
    assert "step 2 of 8" in first["fragments"]["standing"]
    assert first["curves"][0]["series"][0]["values"] == [1.5]
    assert not first["finished"]
    again = live(ops, run, step=first["step"])
    assert again["curves"] is None  # nothing new to draw
    held.fail("The disk is full; free some space and resume.")
    last = live(ops, run)
    assert last["finished"]
    assert "The disk is full" in last["fragments"]["outcome"]
    assert url("trainingrun_resume", run.pk) in last["fragments"]["verbs"]


def test_what_a_trainer_prints_is_never_markup(ops: Client, start: Any) -> None:
    run = start()
    held = TrainingRun.objects.claim(run.pk)
    held.attempt_folder.mkdir(parents=True)
    (held.attempt_folder / "log.txt").write_text("<script>alert(1)</script>")
    held.fail("<img src=x onerror=alert(1)>")
    page = ops.get(url("trainingrun_change", run.pk)).content.decode()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<img" not in live(ops, run)["fragments"]["outcome"]


def test_waiting_run_says_what_it_waits_for(
    ops: Client, project: Project, policy: ModelVersion, oscar: User, snapshot: DatasetSnapshot
) -> None:
    reward, ppo = TrainingRun.objects.retrain(project, oscar, policy=policy)
    assert url("trainingrun_change", reward.pk) in live(ops, ppo)["fragments"]["standing"]


def test_run_whose_worker_fell_silent_says_so(ops: Client, start: Any) -> None:
    run = start()
    TrainingRun.objects.claim(run.pk)
    assert "silent" not in live(ops, run)["fragments"]["standing"]
    TrainingRun.objects.filter(pk=run.pk).update(lease_until="2020-01-01T00:00Z")
    assert "the worker is silent" in live(ops, run)["fragments"]["standing"]


def test_finished_run_offers_its_policy_for_promotion(ops: Client, start: Any, project: Project) -> None:
    run = start()
    version = carried_out(run)
    assert url("modelversion_promote", version.pk) in live(ops, run)["fragments"]["verbs"]


def test_reward_model_is_not_offered_for_promotion(ops: Client, start: Any) -> None:
    run = start("reward")
    version = carried_out(run)
    assert url("modelversion_promote", version.pk) not in live(ops, run)["fragments"]["verbs"]


# --- Cancel and resume -----------------------------------------------------------------------------------------------


def test_cancel_button_cancels_and_is_recorded(ops: Client, start: Any) -> None:
    run = start()
    ops.post(url("trainingrun_cancel", run.pk))
    run.refresh_from_db()
    assert run.state == State.CANCELLED
    assert recorded(run) == ["cancelled"]
    assert "already ended" in said(ops.post(url("trainingrun_cancel", run.pk)))


def test_resume_button_queues_again(ops: Client, start: Any) -> None:
    run = start()
    assert "Only a failed or cancelled run" in said(ops.post(url("trainingrun_resume", run.pk)))
    TrainingRun.objects.claim(run.pk).fail("The disk is full.")
    ops.post(url("trainingrun_resume", run.pk))
    run.refresh_from_db()
    assert run.state == State.QUEUED


# --- Versions and promotions -----------------------------------------------------------------------------------------


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


# --- Schedules -------------------------------------------------------------------------------------------------------


def schedule_form(of: Project, **changes: Any) -> dict[str, Any]:
    sent = {"project": of.pk, "every_rankings": 50, "cron": "", "enabled": "on"}
    return {**defaults("reward", "reward-"), **defaults("ppo", "ppo-"), **sent, **changes}


def test_schedule_is_made_and_changed_with_its_parameters(ops: Client, project: Project) -> None:
    ops.post(url("schedule_add"), schedule_form(project, **{"ppo-kl_coef": 0.2}))
    schedule = Schedule.objects.get()
    assert (schedule.every_rankings, schedule.ppo_params, schedule.by.username) == (50, {"kl_coef": 0.2}, "oscar")
    shown = ops.get(url("schedule_change", schedule.pk)).context["adminform"].form
    assert shown["ppo-kl_coef"].value() == 0.2
    ops.post(url("schedule_change", schedule.pk), schedule_form(project, cron="0 3 * * 1"))
    schedule.refresh_from_db()
    assert (schedule.cron, schedule.ppo_params) == ("0 3 * * 1", {})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cron": "soon"}, "cron"),
        ({"every_rankings": "", "cron": ""}, "every_rankings"),
        ({"every_rankings": "-3"}, "every_rankings"),
        ({"reward-epochs": "0"}, "reward-epochs"),
        ({"ppo-minibatch_size": "7"}, "ppo-minibatch_size"),
        ({"project": ""}, "project"),
    ],
)
def test_schedule_form_refuses_beside_the_field(
    ops: Client, project: Project, changes: dict[str, str], named: str
) -> None:
    answer = ops.post(url("schedule_add"), schedule_form(project, **changes))
    assert answer.status_code == 200
    assert set(answer.context["adminform"].form.errors) == {named}
    assert not Schedule.objects.exists()


def test_schedule_page_says_how_far_it_is_and_what_went_wrong(ops: Client, project: Project, rank: Any) -> None:
    schedule = Schedule.objects.create(project=project, every_rankings=5, cron="0 3 * * 1")
    rank(2)
    Schedule.objects.filter(pk=schedule.pk).update(last_error="The project has no policy yet.")
    page = ops.get(url("schedule_change", schedule.pk)).content.decode()
    assert "2 of 5" in page
    assert "3 a.m. (UTC)" in page
    assert "The project has no policy yet." in page
