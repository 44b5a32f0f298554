"""Rewards of completions, reckoned by the sampler between its sets.

The sampler has torch and a device in its hands and is idle whenever labelers have enough to rank, while a training run
may take hours and starts in a process of its own, which for a handful of new sets would cost more than the scores.
Sampling goes first: while a set waits to be sampled, no more than SLICE sets are scored before it.
"""

import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from django.conf import settings
from django.db import close_old_connections

from labeling.models import Completion, CompletionSet, RewardModel, SamplingJob, ScoringJob
from modelzoo.batches import Example, length_of
from modelzoo.checkpoint import CheckpointError, load_reward_model, manifest_hash
from modelzoo.data import encode_example
from modelzoo.shared_prefix import shared_scores
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel as Scorer
from rlhf.models import ModelVersion
from worker.jobs import LostLease
from worker.leases import Leases, stopping
from worker.sampling import gpu

logger = logging.getLogger(__name__)

SLICE = 8
"""Sets that are scored and stored together: what is lost at most, and what a waiting set waits at most."""


class RewardModelUnusable(Exception):
    """A reward model cannot score; the text says why and what to do."""


class Interrupted(Exception):
    """The job is not to be gone on with here: cancelled, lost, or others go first."""


@dataclass
class Resident:
    """The reward model in memory: the one that scored last."""

    name: str = ""
    model: Scorer | None = None
    tokenizer: Tokenizer | None = None

    def get(self, name: str) -> tuple[Scorer, Tokenizer]:
        """The reward model `name`, loaded and verified. Raises RewardModelUnusable."""
        path = usable_path(name)
        if self.model is None or self.tokenizer is None or self.name != name:
            self.unload()
            logger.info("loading %s from %s", name, path)
            try:
                model, tokenizer, _manifest = load_reward_model(path)
            except CheckpointError as error:
                raise RewardModelUnusable(
                    f"The files of the reward model “{name}” are damaged ({error}). Restore {path} from a backup."
                ) from error
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self.name, self.model, self.tokenizer = name, model.to(device).requires_grad_(False), tokenizer
        return self.model, self.tokenizer

    def unload(self) -> None:
        self.name, self.model, self.tokenizer = "", None, None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


resident = Resident()


def usable_path(name: str) -> Path:
    """Where the registry says that the reward model is, if it is the same as when registered."""
    version = ModelVersion.objects.reward_models().active().filter(name=name).first()
    if version is None:
        raise RewardModelUnusable(f"There is no reward model “{name}” in use in the registry. Train a new one.")
    try:
        identity = manifest_hash(version.path)
    except CheckpointError as error:
        raise RewardModelUnusable(
            f"The files of the reward model “{name}” are missing. Restore {version.path} from a backup, or archive it."
        ) from error
    if identity != version.manifest_hash:
        raise RewardModelUnusable(
            f"The files in {version.path} are not those that were registered as “{name}”. Restore them from a backup, "
            "or archive the model."
        )
    return version.path


def score(job_id: int) -> None:
    """Go on with scoring job `job_id`, for as long as no set waits to be sampled; do nothing where it is not due."""
    with gpu.use() as ours:
        job = ScoringJob.objects.claim(job_id) if ours and not stopping.is_set() else None
        if job is None:
            return
        with Leases([job]) as leases:
            Attempt(job, leases).run()
        if settings.SHARED_GPU:
            resident.unload()  # the sampler lets go of its own model only
    SamplingJob.objects.ring_next()
    ScoringJob.objects.ring_next()


class Attempt:
    def __init__(self, job: ScoringJob, leases: Leases) -> None:
        self.job = job
        self.leases = leases

    def run(self) -> None:
        try:
            self._score_all()
            self._end("finish")
        except Interrupted:
            pass
        except LostLease as error:
            logger.warning("%s", error)
        except RewardModelUnusable as error:
            self._end("fail", str(error))
        except (MemoryError, torch.OutOfMemoryError):
            resident.unload()
            self._end("fail", "There is not enough memory for the reward model beside the policy. Free some.")
        except Exception as error:
            logger.exception("%s", self.job)
            close_old_connections()  # it may have been the database
            self._end("retry", f"Scoring broke ({type(error).__name__}: {error}). Look at the sampler's log.")

    def _score_all(self) -> None:
        judges = list(self.job.project.reward_models.judges())
        waiting = [(judge, list(judge.unscored().values_list("pk", flat=True))) for judge in judges]
        done, total = 0, sum(len(keys) for _judge, keys in waiting)
        for judge, keys in waiting:
            for start in range(0, len(keys), SLICE):
                slice_keys = keys[start : start + SLICE]
                self._score(judge, slice_keys)
                done += len(slice_keys)
                self.leases.progress = {"step": done, "total": total}
                if done < total:
                    self._go_on()

    def _score(self, judge: RewardModel, keys: Sequence[int]) -> None:
        model, tokenizer = resident.get(judge.name)
        sets = CompletionSet.objects.filter(pk__in=keys).select_related("prompt").prefetch_related("completions")
        rewards: dict[int, float | None] = {}
        for chosen in sets:
            rewards |= scores(model, tokenizer, chosen.prompt.messages, list(chosen.completions.all()))
        self.job.store(judge, rewards)

    def _go_on(self) -> None:
        """Raises Interrupted where somebody else goes first. What was scored is kept, the rest goes back in line."""
        if self.job.pk in self.leases.lost:
            raise LostLease(f"{self.job} was taken by another worker")
        if self.job.pk in self.leases.cancelled:
            self._end("end_cancelled")
            raise Interrupted
        if stopping.is_set() or SamplingJob.objects.runnable().exists():
            self._end("give_back")
            raise Interrupted

    def _end(self, verb: str, *words: str) -> None:
        self.leases.release(self.job)
        try:
            getattr(self.job, verb)(*words)
        except LostLease as error:
            logger.warning("%s", error)


@torch.inference_mode()
def scores(
    model: Scorer, tokenizer: Tokenizer, messages: list[dict[str, str]], completions: Sequence[Completion]
) -> dict[int, float | None]:
    """By key, the reward of each completion of one prompt; None for one that the model was not made to read."""
    longest = model.config.max_position_embeddings
    readable: dict[int, Example] = {}
    for completion in completions:
        finished = completion.finish_reason != Completion.FinishReason.LENGTH
        example = encode_example(tokenizer, messages, completion.text, finished=finished)
        if example.response and length_of(example) <= longest:
            readable[completion.pk] = example
    given: dict[int, float | None] = dict.fromkeys(completion.pk for completion in completions)
    if readable:
        (rewards,) = shared_scores(model, [list(readable.values())])
        given |= dict(zip(readable, rewards.tolist(), strict=True))
    return given
