"""A run's rules: what may start, what follows what, what is kept of it."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.core.exceptions import ValidationError
from django.db import connection

from labeling.models import Project, User
from rlhf.models import DatasetSnapshot, ModelVersion, TrainingRun
from rlhf.tests.conftest import carried_out
from rlhf.tests.world import model_version
from worker.jobs import MAX_ATTEMPTS

State = TrainingRun.State


def claimed(run: TrainingRun) -> TrainingRun:
    held: TrainingRun | None = TrainingRun.objects.claim(run.pk)
    assert held is not None
    return held


@pytest.fixture
def chain(project: Project, policy: ModelVersion, oscar: User, snapshot: Any) -> tuple[TrainingRun, TrainingRun]:
    return TrainingRun.objects.retrain(project, oscar, policy=policy)


# --- Starting --------------------------------------------------------------------------------------------------------


def test_double_click_starts_one_run(start: Any) -> None:
    key = uuid.uuid4()
    assert start(key=key) == start(key=key)
    assert TrainingRun.objects.count() == 1


@pytest.mark.parametrize(
    ("stage", "params", "named"),
    [
        ("sft", {"learning_rate": 2}, "learning_rate: must be at most 1"),
        ("sft", {"kl_coef": 0.1}, "kl_coef: is not a parameter"),
        ("reward", {"ties": "shrug"}, "ties: must be one of drop, model"),
        ("reward", {"epochs": 1.5}, "epochs: must be a whole number"),
        ("ppo", {"batch_size": 30, "minibatch_size": 16}, "minibatch_size: must divide the batch of 30"),
    ],
)
def test_bad_parameter_is_refused_before_a_run_exists(
    start: Any, reward_model: ModelVersion, stage: str, params: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        start(stage, params=params, reward_model=reward_model if stage == "ppo" else None)
    assert not TrainingRun.objects.exists()


def test_ppo_needs_a_reward_model(start: Any, policy: ModelVersion) -> None:
    with pytest.raises(ValidationError, match="PPO needs a reward model"):
        start("ppo")
    with pytest.raises(ValidationError, match="is not a reward model"):
        start("ppo", reward_model=policy)


def test_run_does_not_start_from_a_reward_model(start: Any, reward_model: ModelVersion) -> None:
    with pytest.raises(ValidationError, match="start from a policy"):
        start("sft", policy=reward_model)


def test_run_does_not_start_from_archived_or_lost_models(start: Any) -> None:
    archived, lost = model_version("tiny-old"), model_version("tiny-lost")
    archived.archive()
    (lost.path / "manifest.json").unlink()
    for version, words in ((archived, "is archived"), (lost, "are missing from the data directory")):
        with pytest.raises(ValidationError, match=words):
            start("sft", policy=version)


def test_snapshot_too_small_for_the_stage_is_refused(
    project: Project, oscar: User, policy: ModelVersion, rank: Any
) -> None:
    rank(1, tiers=(1, 1, 1, 1))
    bare = DatasetSnapshot.objects.freeze(project, oscar)
    for stage, words in (
        ("sft", "no demonstrations"),
        ("reward", "no ranking that prefers"),
        ("dpo", "no ranking that prefers"),
    ):
        with pytest.raises(ValidationError, match=words):
            TrainingRun.objects.start(stage=stage, project=project, snapshot=bare, policy=policy, by=oscar)


def test_snapshot_of_another_project_is_refused(start: Any, alice: User) -> None:
    other = Project.objects.create(name="Other", slug="other", languages=["en"])
    with pytest.raises(ValidationError, match="another project"):
        start("sft", project=other)


def test_pretraining_mix_needs_a_text(start: Any, reward_model: ModelVersion, data_dir: Path) -> None:
    with pytest.raises(ValidationError, match="needs a text"):
        start("ppo", reward_model=reward_model, params={"ptx_coef": 27.8})
    with pytest.raises(ValidationError, match="no such file"):
        start("ppo", reward_model=reward_model, params={"ptx_coef": 27.8}, corpus="../../etc/passwd")
    (data_dir / "corpora").mkdir()
    (data_dir / "corpora" / "news.jsonl").write_text('{"text": "Rain."}\n')
    run = start("ppo", reward_model=reward_model, params={"ptx_coef": 27.8}, corpus="news.jsonl")
    assert run.corpus_path == data_dir / "corpora" / "news.jsonl"


# --- Retraining ------------------------------------------------------------------------------------------------------


def test_ppo_waits_for_the_reward_model(chain: tuple[TrainingRun, TrainingRun]) -> None:
    reward, ppo = chain
    assert TrainingRun.objects.claim(ppo.pk) is None
    version = carried_out(reward)
    ppo = claimed(ppo)
    assert ppo.inputs() == (ppo.policy, version)


def test_ppo_is_cancelled_when_the_reward_model_fails(chain: tuple[TrainingRun, TrainingRun]) -> None:
    reward, ppo = chain
    claimed(reward).fail("There was not enough memory.")
    ppo.refresh_from_db()
    assert ppo.state == State.CANCELLED


def test_ppo_is_cancelled_when_workers_die_on_the_reward_model(chain: tuple[TrainingRun, TrainingRun]) -> None:
    reward, ppo = chain
    for _ in range(MAX_ATTEMPTS):
        claimed(reward)
        TrainingRun.objects.filter(pk=reward.pk).update(lease_until="2020-01-01T00:00Z")
        TrainingRun.objects.reap()
    reward.refresh_from_db()
    ppo.refresh_from_db()
    assert (reward.state, ppo.state) == (State.FAILED, State.CANCELLED)


def test_cancelling_the_reward_model_cancels_ppo(chain: tuple[TrainingRun, TrainingRun]) -> None:
    reward, ppo = chain
    reward = claimed(reward)
    assert reward.request_cancel()
    ppo.refresh_from_db()
    assert ppo.state == State.CANCELLED
    assert reward.heartbeat()  # the worker is told, and stops
    reward.end_cancelled()
    assert not TrainingRun.objects.unfinished().exists()


def test_resuming_the_reward_model_brings_ppo_back(chain: tuple[TrainingRun, TrainingRun]) -> None:
    reward, ppo = chain
    claimed(reward).fail("There was not enough memory.")
    ppo.refresh_from_db()
    with pytest.raises(ValidationError, match="Resume that one"):
        ppo.requeue()
    reward.refresh_from_db()
    assert reward.requeue()
    carried_out(reward)
    assert claimed(ppo).state == State.RUNNING


def test_retraining_is_refused_while_one_is_under_way(
    chain: tuple[TrainingRun, TrainingRun], project: Project, policy: ModelVersion, oscar: User
) -> None:
    snapshots = DatasetSnapshot.objects.count()
    with pytest.raises(ValidationError, match="under way"):
        TrainingRun.objects.retrain(project, oscar, policy=policy)
    assert DatasetSnapshot.objects.count() == snapshots


def test_retraining_twice_with_one_key_starts_one(
    project: Project, policy: ModelVersion, oscar: User, snapshot: DatasetSnapshot
) -> None:
    key = uuid.uuid4()
    first = TrainingRun.objects.retrain(project, oscar, policy=policy, key=key)
    assert TrainingRun.objects.retrain(project, oscar, policy=policy, key=key) == first
    assert TrainingRun.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_refused_retraining_leaves_no_snapshot(
    project: Project, policy: ModelVersion, oscar: User, rank: Any, data_dir: Path
) -> None:
    rank(1, tiers=(1, 1, 1, 1))
    with pytest.raises(ValidationError, match="no ranking that prefers"):
        TrainingRun.objects.retrain(project, oscar, policy=policy)
    assert not DatasetSnapshot.objects.exists()
    assert list((data_dir / "snapshots").iterdir()) == []


@pytest.mark.django_db(transaction=True)
def test_of_many_retrainings_at_once_one_is_started(
    project: Project, policy: ModelVersion, oscar: User, rank: Any, data_dir: Path
) -> None:
    rank(2)
    gate = threading.Barrier(4)

    def press(_number: int) -> bool:
        gate.wait()
        try:
            TrainingRun.objects.retrain(project, oscar, policy=policy)
        except ValidationError:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(4) as people:
        assert sum(people.map(press, range(4))) == 1
    assert TrainingRun.objects.count() == 2
    assert [path.name for path in (data_dir / "snapshots").iterdir()] == [DatasetSnapshot.objects.get().path.name]


def test_retraining_with_a_bad_parameter_freezes_nothing(
    project: Project, policy: ModelVersion, oscar: User, rank: Any
) -> None:
    rank()
    with pytest.raises(ValidationError, match="episodes"):
        TrainingRun.objects.retrain(project, oscar, policy=policy, ppo_params={"episodes": 0})
    assert not DatasetSnapshot.objects.exists()


# --- What comes of it ------------------------------------------------------------------------------------------------


def test_finished_run_leaves_a_version_with_its_ancestry(chain: tuple[TrainingRun, TrainingRun]) -> None:
    reward, ppo = chain
    reward_model = carried_out(reward)
    policy = carried_out(ppo)
    assert policy.kind == ModelVersion.Kind.POLICY
    assert set(policy.parents.all()) == {ppo.policy, reward_model}
    assert policy.snapshot_hash == ppo.snapshot.hash
    assert policy.complaints() == []
    ppo.refresh_from_db()
    assert (ppo.state, ppo.result) == (State.SUCCEEDED, policy)


def test_only_ended_runs_can_be_resumed(start: Any) -> None:
    run = start()
    assert not run.requeue()
    claimed(run).fail("The disk is full.")
    run.refresh_from_db()
    assert run.requeue()
    run.refresh_from_db()
    assert (run.state, run.error) == (State.QUEUED, "")


def test_log_tail_is_the_end_of_the_newest_attempt_in_whole_lines(start: Any) -> None:
    run = start()
    assert run.log_tail() == ""
    for attempt, text in ((1, "first attempt\n"), (2, "".join(f"step {i}\n" for i in range(1000)))):
        (run.folder / str(attempt)).mkdir(parents=True)
        (run.folder / str(attempt) / "log.txt").write_text(text)
    tail = run.log_tail(characters=40)
    assert tail == "step 996\nstep 997\nstep 998\nstep 999\n"


def test_cancelling_is_recorded(start: Any) -> None:
    run = start()
    run.request_cancel()
    entry = LogEntry.objects.get_for_object(run).first()
    assert entry.changes == {"cancel_requested": ["False", "True"]}


# --- What labeling learns of it -------------------------------------------------------------------------------------


def test_a_new_reward_model_is_made_known_and_scores_at_once(start: Any, project: Project) -> None:
    carried_out(start("sft"))
    assert not project.reward_models.exists()
    version = carried_out(start("reward"))
    known = project.reward_models.get()
    assert (known.name, known.languages, known.in_use) == (version.name, ["en"], True)
    assert (known.train_rankings, known.heldout_rankings) == (2, 1)
    assert project.scoring_jobs.get().state == State.QUEUED


def test_an_archived_reward_model_is_used_no_more_until_it_is_taken_back(start: Any, project: Project) -> None:
    version = carried_out(start("reward"))
    version.archive()
    assert not project.reward_models.get().in_use
    version.unarchive()
    assert project.reward_models.get().in_use
