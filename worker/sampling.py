"""The resident sampler: keeps one policy in memory and answers queued sets, several prompts at a time."""

import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from django.conf import settings
from django.db import close_old_connections, transaction

from labeling.models import CompletionSet, SampledCompletion, SamplingJob, ScoringJob
from modelzoo.checkpoint import CheckpointError, manifest_hash
from modelzoo.config import SamplingConfig
from modelzoo.generate import PromptError, SamplingStoppedError
from modelzoo.sampler import Sample, Sampler
from rlhf.models import ModelVersion
from worker.gpu import SharedGpu
from worker.jobs import LostLease
from worker.leases import Leases, stopping

logger = logging.getLogger(__name__)

CANDIDATES = 100  # queued jobs looked at for company


class PolicyUnusable(Exception):
    """A policy cannot be sampled from; the text says why and what to do."""


@dataclass
class Resident:
    """The policy in memory: the one sampled from last."""

    name: str = ""
    sampler: Sampler | None = None

    def get(self, name: str) -> Sampler:
        """The policy `name`, loaded and verified where it is not the one in memory. Raises PolicyUnusable."""
        path = usable_path(name)
        if self.sampler is None or self.name != name:
            self.unload()
            logger.info("loading %s from %s", name, path)
            try:
                if torch.cuda.is_available():
                    self.sampler = Sampler.load(path, "cuda")
                else:
                    self.sampler = Sampler.load(path, "cpu", settings.SAMPLE_WEIGHTS)
            except CheckpointError as error:
                raise PolicyUnusable(
                    f"The files of the policy “{name}” are damaged ({error}). Restore {path} from a backup or import "
                    "the model again, then retry."
                ) from error
            except ValueError as error:  # SAMPLE_WEIGHTS asks for what this machine cannot do
                raise PolicyUnusable(f"The policy “{name}” cannot be sampled from: {error}.") from error
            self.name = name
        return self.sampler

    def unload(self) -> None:
        self.name, self.sampler = "", None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def usable_path(name: str) -> Path:
    """Where the registry says that the policy is, if it may be sampled from and is the same as when registered."""
    version = ModelVersion.objects.filter(name=name).first()
    if version is None:
        raise PolicyUnusable(f"There is no policy “{name}” in the registry. Promote a policy that is there.")
    if version.archived_at:
        raise PolicyUnusable(f"The policy “{name}” is archived. Promote another one.")
    if not version.is_policy:
        raise PolicyUnusable(f"“{name}” is a reward model: it scores answers, it gives none. Promote a policy.")
    try:
        identity = manifest_hash(version.path)
    except CheckpointError as error:
        raise PolicyUnusable(
            f"The files of the policy “{name}” are missing. Restore {version.path} from a backup or import the model "
            "again, then retry."
        ) from error
    if identity != version.manifest_hash:
        raise PolicyUnusable(
            f"The files in {version.path} are not those that were registered as “{name}”. Restore them from a backup "
            "or promote another policy."
        )
    return version.path


resident = Resident()
gpu = SharedGpu("sampler", let_go=resident.unload)


def sample(job_id: int) -> None:
    """Sample the set of job `job_id` and of others that go well with it; do nothing where it is not to be done."""
    with gpu.use() as ours:
        first = SamplingJob.objects.claim(job_id) if ours and not stopping.is_set() else None
        if first is None:
            return
        batch = [first, *claim_company(first)]
        with Leases(batch) as leases:
            Batch(batch, leases).run()
    SamplingJob.objects.ring_next()
    ScoringJob.objects.ring_next()


def claim_company(first: SamplingJob) -> list[SamplingJob]:
    """More queued jobs of the same policy and settings, the oldest first, as many as fit the token budget.

    None where labelers have nothing to rank: alone, the first set is there soonest. Nor for a job, or with one, whose
    worker died: should it kill the next one too, it takes no others with it.
    """
    chosen = first.completion_set
    if first.attempts > 1 or not chosen.project.completion_sets.filter(state=CompletionSet.State.READY).exists():
        return []
    alike = SamplingJob.objects.runnable().filter(
        completion_set__policy_name=chosen.policy_name,
        completion_set__temperature=chosen.temperature,
        completion_set__top_p=chosen.top_p,
        completion_set__max_new_tokens=chosen.max_new_tokens,
        attempts=0,
    )
    room = settings.SAMPLE_BATCH_TOKENS - tokens_at_most(first)
    company = []
    for job in alike.select_related("completion_set__prompt").order_by("pk")[:CANDIDATES]:
        room -= tokens_at_most(job)
        if room < 0:
            break
        if claimed := SamplingJob.objects.claim(job.pk):
            company.append(claimed)
    return company


def tokens_at_most(job: SamplingJob) -> int:
    """A rough upper bound without a tokenizer: a token is seldom shorter than two characters."""
    chosen = job.completion_set
    prompt = sum(len(turn["content"]) for turn in chosen.prompt.messages)
    return chosen.k * (chosen.max_new_tokens + prompt // 2)


@dataclass
class Batch:
    """Claimed jobs of one policy. Each ends by itself: as soon as its prompt is done, cancelled or refused."""

    jobs: Sequence[SamplingJob]
    leases: Leases
    ended: set[int] = field(default_factory=set)

    def run(self) -> None:
        try:
            sampler = resident.get(self.jobs[0].completion_set.policy_name)
        except PolicyUnusable as error:
            for job in self.jobs:
                self._end(job, "fail", str(error))
            return
        except MemoryError:
            resident.unload()
            for job in self.jobs:
                self._end(job, "fail", "There is not enough memory for this policy. Free some, then retry.")
            return
        try:
            self._sample(sampler, self.jobs)
        except SamplingStoppedError:
            logger.info("stopped: %d jobs go back to the queue", len(self._unfinished()))
        except Exception:
            logger.exception("a batch of %d broke; each of its jobs is tried alone", len(self.jobs))
            close_old_connections()  # it may have been the database
            self._one_by_one(sampler)
        with transaction.atomic():
            for job in self._unfinished():
                self._end(job, "give_back")

    def _one_by_one(self, sampler: Sampler) -> None:
        """One prompt that breaks the sampler must not take the others with it."""
        for job in self._unfinished():
            try:
                self._sample(sampler, [job])
            except SamplingStoppedError:
                return
            except FloatingPointError as error:
                self._end(job, "fail", f"The policy is broken: {error}. Promote another one.")
            except Exception as error:
                logger.exception("%s", job)
                self._end(job, "fail", broken(error))

    def _sample(self, sampler: Sampler, jobs: Sequence[SamplingJob]) -> None:
        sets = [job.completion_set for job in jobs]

        def on_progress(step: int, total: int) -> None:
            self.leases.progress = {"step": step, "total": total}

        def on_result(number: int, result: list[Sample] | PromptError) -> None:
            if isinstance(result, PromptError):
                self._end(jobs[number], "fail", f"This prompt cannot be sampled: {result}.")
            else:
                self._end(jobs[number], "finish", [stored(sample) for sample in result])

        sampler.sample(
            [chosen.prompt.messages for chosen in sets],
            [chosen.k for chosen in sets],
            SamplingConfig(temperature=sets[0].temperature, top_p=sets[0].top_p, max_new_tokens=sets[0].max_new_tokens),
            seeds=[chosen.seed for chosen in sets],
            should_stop=self._should_stop,
            on_progress=on_progress,
            on_result=on_result,
        )

    def _should_stop(self) -> bool:
        for job in self._unfinished():
            if job.pk in self.leases.cancelled:
                self._end(job, "end_cancelled")
            elif job.pk in self.leases.lost:
                logger.warning("%s was taken by another worker", job)
                self.ended.add(job.pk)
        return stopping.is_set() or not self._unfinished()

    def _unfinished(self) -> list[SamplingJob]:
        return [job for job in self.jobs if job.pk not in self.ended]

    def _end(self, job: SamplingJob, verb: str, *what: object) -> None:
        """Call `finish`, `fail`, `give_back` or `end_cancelled` of the job, once, if it is still ours."""
        if job.pk in self.ended:
            return
        self.leases.release(job)
        try:
            getattr(job, verb)(*what)
        except LostLease as error:
            logger.warning("%s", error)
        self.ended.add(job.pk)


def stored(sample: Sample) -> SampledCompletion:
    return {
        "text": sample.text,
        "logprob_sum": sample.logprob_sum,
        "token_count": len(sample.token_ids),
        "finish_reason": sample.finish_reason,
    }


def broken(error: Exception) -> str:
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        return "There was not enough memory for this set. Lower its number or length of completions, then retry."
    return f"The sampler broke on this prompt ({type(error).__name__}: {error}). Look at the sampler's log, then retry."
