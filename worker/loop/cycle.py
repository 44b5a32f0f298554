"""One seed of the loop: real rows from the first prompt to the promoted policy, and a control beside it.

The control differs in one thing: before its snapshot is frozen, the training rankings are revised into shuffled ones.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings

from labeling.models import Prompt, SamplingJob
from modelzoo.config import SamplingConfig
from modelzoo.generate import PromptError
from modelzoo.sampler import Sampler
from modelzoo.tokenizer import train_sentencepiece
from rlhf.models import DatasetSnapshot, Metric, ModelVersion, Promotion, TrainingRun
from worker import sampling, training
from worker.loop.outcome import Arm, LoopError, Measured, Outcome
from worker.loop.people import People
from worker.loop.scale import Scale
from worker.loop.world import dialogues, gold
from worker.registry import register

Say = Callable[[str], None]


class Cycle:
    def __init__(self, seed: int, scale: Scale, say: Say) -> None:
        self.seed, self.scale, self.say = seed, scale, say
        self.chance = random.Random(f"loop {seed}")
        self.people = People(seed, scale, self.chance)
        self.project = self.people.project

    def run(self) -> Outcome:
        started = time.monotonic()
        base = self._base()
        self.people.approve_prompts(self.scale.prompts)
        self.say(f"{self.scale.prompts} prompts approved, {self.people.demonstrate()} demonstrations written")
        sft = self._fine_tuned(base)
        self._promote(sft, "fine-tuned on demonstrations")
        labels = self.people.rank()
        self.say(f"{labels.rankings} rankings; two labelers agree on {labels.agreement:.1%} of the pairs")
        before = self._measured(sft)
        main, policy = self._improved(sft, "rankings")
        self.people.shuffle_rankings()
        control, _ = self._improved(sft, "shuffled rankings")
        self._promote(policy, "PPO on the rankings")
        return Outcome(self.seed, labels, before, main, control, time.monotonic() - started)

    def _base(self) -> ModelVersion:
        """A tokenizer and a transformer from scratch, on what was said in the toy world so far."""
        folder = Path(settings.DATA_DIR) / "loop" / str(self.seed)
        folder.mkdir(parents=True)
        spoken = list(dialogues(self.scale.dialogues, self.chance))
        texts = [text for question, reply in spoken for text in (question.text, reply)]
        train_sentencepiece(texts, self.scale.vocabulary, folder / "tokenizer")
        rows = (
            {"messages": [{"role": "user", "content": question.text}, {"role": "assistant", "content": reply}]}
            for question, reply in spoken
        )
        (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        metrics = pretrain(folder, self.scale.pretrain | {"seed": self.seed})
        self.say(f"transformer from scratch: held-out loss {metrics['heldout_loss']:.2f}")
        return register(folder / "pretrain" / "model", name=f"loop-{self.seed}-base", languages=["en"])

    def _fine_tuned(self, base: ModelVersion) -> ModelVersion:
        ops = self.people.ops
        run = TrainingRun.objects.start(
            project=self.project,
            stage=TrainingRun.Stage.SFT,
            snapshot=DatasetSnapshot.objects.freeze(self.project, ops),
            policy=base,
            params=self.scale.sft | {"seed": self.seed},
            by=ops,
        )
        version = trained(run)
        self.say(f"fine-tuned: held-out loss {version.metrics['heldout_loss']:.2f}")
        return version

    def _promote(self, version: ModelVersion, reason: str) -> None:
        """Promote a policy and let it answer every prompt."""
        Promotion.objects.promote(self.project, version, self.people.ops, reason=reason)
        queued = SamplingJob.objects.runnable().filter(completion_set__project=self.project).order_by("pk")
        while job := queued.first():
            sampling.sample(job.pk)
        failed = SamplingJob.objects.filter(completion_set__project=self.project, state=SamplingJob.State.FAILED)
        if broken := failed.first():
            raise LoopError(f"{broken}: {broken.error}")
        sets = self.project.completion_sets.filter(policy_name=version.name).count()
        self.say(f"promoted {version.name}; it answered {sets} prompts")

    def _improved(self, policy: ModelVersion, what: str) -> tuple[Arm, ModelVersion]:
        """A reward model of the rankings as they are now, and PPO with it."""
        seed = {"seed": self.seed}
        reward, ppo = TrainingRun.objects.retrain(
            self.project,
            self.people.ops,
            policy=policy,
            reward_params=self.scale.reward | seed,
            ppo_params=self.scale.ppo | seed,
        )
        accuracy = trained(reward).metrics["heldout_accuracy"]
        improved = trained(ppo)
        rewards = Metric.objects.filter(run=ppo, name="reward").order_by("step").values_list("value", flat=True)
        after = self._measured(improved)
        kl = improved.metrics["kl"]
        self.say(
            f"{what}: reward model right on {accuracy:.1%} of the pairs; PPO to {after.gold:+.2f} hidden at KL {kl:.1f}"
        )
        return Arm(accuracy, after, kl, list(rewards), improved.name), improved

    def _measured(self, version: ModelVersion) -> Measured:
        """Fresh answers of a policy to the held-out prompts, the same random numbers for every policy."""
        prompts = list(self.project.prompts.filter(split=Prompt.Split.HELDOUT).order_by("pk"))
        results = Sampler.load(version.path).sample(
            [prompt.messages for prompt in prompts],
            self.scale.samples,
            SamplingConfig(max_new_tokens=self.scale.max_new_tokens),
            seeds=range(len(prompts)),
        )
        scores: list[float] = []
        lengths: list[int] = []
        answers: dict[str, str] = {}
        for prompt, samples in zip(prompts, results, strict=True):
            if isinstance(samples, PromptError):
                raise LoopError(f"{prompt}: {samples}")
            scores += [gold(sample.text) for sample in samples]
            lengths += [len(sample.token_ids) for sample in samples]
            answers[prompt.text] = samples[0].text
        return Measured(statistics.mean(scores), statistics.mean(lengths), answers)


def trained(run: TrainingRun) -> ModelVersion:
    """What became of a queued run: it is carried out here and now, in a process of its own as always."""
    training.train(run.pk)
    run.refresh_from_db()
    if run.result is None:
        raise LoopError(f"{run}: {run.get_state_display()}. {run.error}")
    return run.result


def pretrain(folder: Path, params: dict[str, Any]) -> dict[str, float]:
    """The base model is no run of a project: the trainer is started as anyone would from a shell."""
    spec, out = folder / "pretrain.json", folder / "pretrain"
    content = {
        "stage": "pretrain",
        "corpus": str(folder / "corpus.jsonl"),
        "tokenizer": str(folder / "tokenizer"),
        "languages": ["en"],
        "params": params,
    }
    spec.write_text(json.dumps(content), encoding="utf-8")
    command = [sys.executable, "-m", "modelzoo", "pretrain", "--spec", str(spec), "--out", str(out)]
    done = subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True)
    if done.returncode:
        raise LoopError(f"pretraining: {done.stderr.strip()[-1000:]}")
    metrics: dict[str, float] = json.loads((out / "result.json").read_text(encoding="utf-8"))["metrics"]
    return metrics
