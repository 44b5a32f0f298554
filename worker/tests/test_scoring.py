"""A real reward model scores completions between sets that are sampled."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from labeling.models import CompletionSet, Project, Readiness, RewardModel, SamplingJob, Score, ScoringJob
from modelzoo.batches import Example, collate
from modelzoo.checkpoint import load_policy, load_reward_model, manifest_hash, save_checkpoint
from modelzoo.data import encode_example
from modelzoo.transformer import RewardModel as Scorer
from rlhf.models import ModelVersion
from worker import leases, sampling, scoring
from worker.tasks import mend

Ask = Callable[..., SamplingJob]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="session")
def scorers(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two reward models over the tiny policy, with different heads."""
    policy, tokenizer, _ = load_policy(checkpoint)
    paths = []
    for seed in (1, 2):
        path = tmp_path_factory.mktemp("scorers") / f"judge-{seed}"
        scorer = Scorer.from_policy(policy, torch.Generator().manual_seed(seed))
        save_checkpoint(path, scorer, tokenizer, kind="reward", languages=["en"])
        paths.append(path)
    return paths


@pytest.fixture(autouse=True)
def nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "resident", scoring.Resident())


@pytest.fixture
def judges(project: Project, data_dir: Path, scorers: list[Path]) -> list[RewardModel]:
    made = []
    for path in scorers:
        directory = f"models/{path.name}"
        shutil.copytree(path, data_dir / directory)
        ModelVersion.objects.create(
            name=path.name, kind="reward", directory=directory, manifest_hash=manifest_hash(path), languages=["en"]
        )
        made.append(project.reward_models.register(project, path.name, languages=["en"]))
    return made


def ready(ask: Ask, *texts: str) -> list[CompletionSet]:
    jobs = [ask(text) for text in texts]
    for job in jobs:
        sampling.sample(job.pk)
    return [CompletionSet.objects.get(job=job) for job in jobs]


def score() -> ScoringJob:
    scoring.score(ScoringJob.objects.earliest("pk").pk)
    return ScoringJob.objects.earliest("pk")


def test_rewards_are_the_models_own(ask: Ask, judges: list[RewardModel], scorers: list[Path]) -> None:
    sets = ready(ask, "the cat sat on a mat", "dogs ran")
    job = score()
    assert (job.state, job.error) == ("succeeded", "")
    assert Score.objects.count() == 2 * 2 * 4
    for judge, path in zip(judges, scorers, strict=True):
        model, tokenizer, _ = load_reward_model(path)
        for made in sets:
            completions = list(made.completions.all())
            examples: list[Example] = [
                encode_example(tokenizer, made.prompt.messages, each.text, finished=each.finish_reason != "length")
                for each in completions
            ]
            batch = collate(examples, tokenizer.pad_id)
            with torch.no_grad():
                expected = model(batch.tokens, batch.mask).tolist()
            stored = [each.scores.get(model=judge).reward for each in completions]
            assert stored == pytest.approx(expected, abs=1e-4)
    for made in CompletionSet.objects.all():
        assert made.uncertainty is not None and 0 <= made.uncertainty <= 1
    assert Readiness.objects.get().state == "queued"


def test_sampling_goes_first_and_what_was_scored_stays(
    ask: Ask, judges: list[RewardModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "SLICE", 1)
    ready(ask, "the cat", "dogs ran")
    waiting = ask("fish")
    job = score()
    assert (job.state, job.attempts) == ("queued", 0)
    assert Score.objects.count() == 4  # one set by one model
    sampling.sample(waiting.pk)
    assert score().state == "succeeded"
    assert Score.objects.count() == 3 * 2 * 4


def test_a_worker_that_shuts_down_gives_the_job_back(
    ask: Ask, judges: list[RewardModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(ask, "the cat")
    leases.stopping.set()
    assert score().state == "queued"
    assert not Score.objects.exists()


def test_a_job_of_a_dead_worker_is_taken_back_and_gone_on_with(ask: Ask, judges: list[RewardModel]) -> None:
    ready(ask, "the cat", "dogs ran")
    ScoringJob.objects.claim(ScoringJob.objects.earliest("pk").pk)
    ScoringJob.objects.update(lease_until="2026-01-01T00:00:00Z")
    mend()
    assert score().state == "succeeded"


def test_what_is_too_long_has_no_reward(ask: Ask, judges: list[RewardModel]) -> None:
    [made] = ready(ask, "the cat")
    made.completions.filter(index=0).update(text="fish " * 4000)
    made.completions.filter(index=1).update(text="", finish_reason="length")
    assert score().state == "succeeded"
    rewards = Score.objects.filter(model=judges[0]).order_by("completion__index").values_list("reward", flat=True)
    assert [reward is None for reward in rewards] == [True, True, False, False]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: shutil.rmtree(path), "are missing"),
        (lambda path: (path / "manifest.json").write_text("{}"), "not those that were registered"),
        (lambda path: (path / "model.safetensors").write_bytes(b"no"), "damaged"),
    ],
)
def test_a_reward_model_that_cannot_be_used_is_told_plainly(
    ask: Ask, judges: list[RewardModel], data_dir: Path, spoil: Callable[[Path], object], words: str
) -> None:
    ready(ask, "the cat")
    spoil(data_dir / "models" / "judge-2")
    job = score()
    assert job.state == "failed"
    assert words in job.error and "judge-2" in job.error
