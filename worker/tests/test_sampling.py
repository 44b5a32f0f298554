"""The resident sampler: sets become ready, and what cannot be sampled fails alone and says why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from django.utils import timezone

from labeling.models import CompletionSet, Project, SamplingJob
from modelzoo import native
from modelzoo.sampler import Sampler
from rlhf.models import ModelVersion
from worker import leases, sampling

Ask = Callable[..., SamplingJob]
State = SamplingJob.State

pytestmark = pytest.mark.django_db(transaction=True)


def sample(*queued: SamplingJob) -> list[SamplingJob]:
    """Ring for each job, as messages would; returns them as they are then."""
    for job in queued:
        sampling.sample(job.pk)
    return [SamplingJob.objects.get(pk=job.pk) for job in queued]


def texts(job: SamplingJob) -> list[str]:
    return [completion.text for completion in job.completion_set.completions.all()]


def test_a_set_becomes_ready_with_k_completions_and_places_to_rank_it(ask: Ask) -> None:
    job = ask("Hello")
    (job,) = sample(job)
    completion_set = CompletionSet.objects.get(job=job)
    assert (job.state, completion_set.state) == (State.SUCCEEDED, CompletionSet.State.READY)
    completions = list(completion_set.completions.all())
    assert [completion.index for completion in completions] == [0, 1, 2, 3]
    assert {completion.model_name for completion in completions} == {"tiny"}
    assert all(completion.logprob_sum < 0 < completion.token_count <= 6 for completion in completions)
    assert completion_set.slots.count() == 1


def test_what_a_prompt_gets_depends_on_its_seed_and_not_on_its_company(ask: Ask, project: Project) -> None:
    first, second, third = ask("the cat"), ask("the dogs ran over green hills"), ask("a mat")
    sample(first)  # alone: labelers have nothing to rank yet
    assert SamplingJob.objects.get(pk=second.pk).state == State.QUEUED
    sample(second)
    assert SamplingJob.objects.get(pk=third.pk).state == State.SUCCEEDED  # went along
    together = texts(third)
    assert together != texts(second)
    third.completion_set.completions.all().delete()
    SamplingJob.objects.filter(pk=third.pk).update(state=State.QUEUED)
    sample(third)
    assert texts(third) == together


def test_a_second_message_for_the_same_job_does_nothing(ask: Ask) -> None:
    job = ask("Hello")
    sample(job)
    before = texts(job)
    (job,) = sample(job)
    assert (texts(job), job.attempts) == (before, 1)


def test_the_policy_stays_in_memory(ask: Ask) -> None:
    sample(ask("the cat"))
    loaded = sampling.resident.sampler
    sample(ask("the dogs"))
    assert sampling.resident.sampler is loaded


def test_a_prompt_that_is_too_long_fails_alone(ask: Ask) -> None:
    sample(ask("the cat"))
    long, short = ask("fish " * 2000), ask("the dogs")
    long, short = sample(long, short)
    assert long.state == State.FAILED
    assert "this model takes at most 4095" in long.error
    assert short.state == State.SUCCEEDED


def damage_weights(directory: Path) -> None:
    weights = bytearray((directory / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (directory / "model.safetensors").write_bytes(weights)


def replace_by_another(directory: Path) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(manifest | {"seed": 7}))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (damage_weights, "model.safetensors is corrupt"),
        (replace_by_another, "are not those that were registered"),
        (lambda directory: directory.rename(directory.with_name("elsewhere")), "are missing"),
    ],
)
def test_files_that_are_not_as_registered_fail_with_what_to_do(
    ask: Ask, version: ModelVersion, harm: Callable[[Path], None], words: str
) -> None:
    harm(version.path)
    (job,) = sample(ask("Hello"))
    assert job.state == State.FAILED
    assert words in job.error
    assert "Restore" in job.error


def test_int8_weights_without_a_compiler_fail_with_what_to_do(
    ask: Ask, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.SAMPLE_WEIGHTS = "int8"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    try:
        (job,) = sample(ask("Hello"))
    finally:
        native.library.cache_clear()
    assert job.state == State.FAILED
    assert "“tiny” cannot be sampled from: int8 weights need a C++ compiler: install g++, or take float32" in job.error


def test_an_archived_policy_fails_with_what_to_do(ask: Ask, version: ModelVersion) -> None:
    job = ask("Hello")
    ModelVersion.objects.filter(pk=version.pk).update(archived_at=timezone.now())
    (job,) = sample(job)
    assert job.error == "The policy “tiny” is archived. Promote another one."


def test_an_unknown_policy_fails_with_what_to_do(ask: Ask) -> None:
    job = ask("Hello")
    CompletionSet.objects.filter(job=job).update(policy_name="gone")
    (job,) = sample(job)
    assert "There is no policy “gone” in the registry. Promote a policy" in job.error


def test_a_failed_set_is_sampled_when_it_is_started_again(ask: Ask, version: ModelVersion) -> None:
    version.path.rename(version.path.with_name("elsewhere"))
    (job,) = sample(ask("Hello"))
    version.path.with_name("elsewhere").rename(version.path)
    assert job.requeue()
    (job,) = sample(job)
    assert job.state == State.SUCCEEDED


def test_a_prompt_that_breaks_the_sampler_does_not_take_others_with_it(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample(ask("the cat"))
    encode = Sampler.prompt_tokens

    def break_on_fish(self: Sampler, messages: list[dict[str, str]]) -> list[int]:
        if "fish" in messages[-1]["content"]:
            raise RuntimeError("out of fish")
        return encode(self, messages)

    monkeypatch.setattr(Sampler, "prompt_tokens", break_on_fish)
    bad, good = ask("good fish"), ask("warm sea")
    bad, good = sample(bad, good)
    assert (bad.state, good.state) == (State.FAILED, State.SUCCEEDED)
    assert "RuntimeError: out of fish" in bad.error


def test_a_job_whose_worker_died_is_tried_alone(ask: Ask) -> None:
    sample(ask("the cat"))
    suspect, other = ask("warm sea"), ask("green hills")
    SamplingJob.objects.filter(pk=suspect.pk).update(attempts=1)
    (suspect,) = sample(suspect)
    assert suspect.state == State.SUCCEEDED
    assert SamplingJob.objects.get(pk=other.pk).state == State.QUEUED
    SamplingJob.objects.filter(pk=other.pk).update(attempts=1)
    sample(ask("a mat"))
    assert SamplingJob.objects.get(pk=other.pk).state == State.QUEUED


def test_a_cancelled_job_ends_while_the_others_of_its_batch_go_on(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    sample(ask("the cat"))
    unwanted, wanted = ask("warm sea", temperature=0, max_new_tokens=200), ask("green hills")
    real = sampling.Batch._should_stop

    def cancel_first(self: sampling.Batch) -> bool:
        unwanted.request_cancel()
        self.leases.renew()
        return real(self)

    monkeypatch.setattr(sampling.Batch, "_should_stop", cancel_first)
    unwanted, wanted = sample(unwanted, wanted)
    assert (unwanted.state, wanted.state) == (State.CANCELLED, State.SUCCEEDED)
    assert not unwanted.completion_set.completions.exists()


def test_a_worker_that_is_stopped_gives_its_jobs_back(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ask("the cat", temperature=0, max_new_tokens=500)
    real = sampling.Batch._should_stop

    def stop(self: sampling.Batch) -> bool:
        leases.stopping.set()
        return real(self)

    monkeypatch.setattr(sampling.Batch, "_should_stop", stop)
    (job,) = sample(job)
    assert (job.state, job.attempts) == (State.QUEUED, 0)


def test_a_job_that_was_taken_over_is_not_stored_twice(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ask("the cat", temperature=0, max_new_tokens=50)
    real, taken = sampling.Batch._should_stop, []

    def take_over(self: sampling.Batch) -> bool:
        if not taken:
            SamplingJob.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timezone.timedelta(minutes=1))
            SamplingJob.objects.reap()
            taken.append(SamplingJob.objects.claim(job.pk))
        return real(self)

    monkeypatch.setattr(sampling.Batch, "_should_stop", take_over)
    (job,) = sample(job)
    assert (job.state, job.fence) == (State.RUNNING, taken[0].fence)
    assert texts(job) == []


def test_sets_may_be_sampled_with_int8_weights(ask: Ask, settings: Any) -> None:
    settings.SAMPLE_WEIGHTS = "int8"
    sampling.resident.unload()
    try:
        (job,) = sample(ask("the cat"))
        assert job.completion_set.state == CompletionSet.State.READY
        exact = Sampler.load(sampling.usable_path(job.completion_set.policy_name))
        assert sampling.resident.sampler is not None
        prompt = torch.tensor([exact.prompt_tokens([{"role": "user", "content": "the cat"}])])
        with torch.inference_mode():
            error = (sampling.resident.sampler.model(prompt) - exact.model(prompt)).abs().max()
        assert 1e-5 < error < 1, "rounded to 8 bits, and no more than that"
    finally:
        sampling.resident.unload()
