"""The Korean path: a tokenizer and a small policy from scratch, then a project that samples from it.

Nothing in here is special to it: each step is a command that anyone can type, and is printed before it runs.
"""

import csv
import io
import json
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile

from labeling.models import Completion, Import, Project, Prompt, SamplingJob, User
from modelzoo.data import Snapshot, encode_demonstrations
from modelzoo.tokenizer import load_tokenizer
from rlhf.models import ModelVersion, Promotion
from worker import sampling

Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What the trainers are told; tuned for 11,000 short dialogues and two cores."""

    vocabulary: int
    pretrain: dict[str, Any]
    sft: dict[str, Any]


COMMON = {"max_length": 128, "checkpoint_every": 200}
KOREAN = Recipe(
    vocabulary=4000,
    pretrain={
        **COMMON,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "batch_size": 8,
        "micro_batch_size": 8,
        "epochs": 10,
        "learning_rate": 1.5e-3,
    },
    sft={**COMMON, "batch_size": 32, "micro_batch_size": 32, "epochs": 2, "learning_rate": 3e-4},
)
MODELZOO = ("-m", "modelzoo")
PROGRESS_SECONDS = 15.0
STARTER_PROMPTS, HELDOUT_PROMPTS = 12, 24
MAX_NEW_TOKENS = 48


class StepFailed(Exception):
    """A step of the path ended badly; the text is what the step itself says."""


class Training:
    """The steps that need no Django: from a CSV to a checkpoint in `folder`. A step that is done is not done again."""

    def __init__(self, folder: Path, say: Say, recipe: Recipe = KOREAN) -> None:
        self.folder, self.say, self.recipe = folder, say, recipe
        self.data, self.tokenizer = folder / "data", folder / "tokenizer"

    def run(self, table: Path, *, prompt: str, response: str) -> Path:
        """Returns the finished checkpoint. Raises StepFailed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.data.exists():
            columns = ("--prompt", prompt, "--response", response)
            self._command("dialogues", table, self.data, *columns, "--language", "ko")
        if not self.tokenizer.exists():
            columns = ("--column", "prompt", "--column", "response")
            text = ("--text", self.data / "train.csv", *columns)
            self._command("tokenizer", self.tokenizer, *text, "--vocab-size", self.recipe.vocabulary)
        corpus = {"corpus": str(self.data / "corpus.jsonl"), "tokenizer": str(self.tokenizer)}
        base = self._train("pretrain", self.recipe.pretrain, **corpus)
        return self._train("sft", self.recipe.sft, snapshot=str(self.data / "snapshot"), policy=str(base))

    def _command(self, *words: object) -> None:
        command = [sys.executable, *MODELZOO, *map(str, words)]
        self.say(f"$ {shown(command)}")
        done = subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True)
        if done.returncode:
            raise StepFailed(done.stderr.strip().removeprefix("error: "))
        self.say(done.stdout.strip())

    def _train(self, stage: str, params: dict[str, Any], **inputs: str) -> Path:
        """Run a trainer and tell how it goes on; one that was stopped continues from its last checkpoint."""
        spec, out = self.folder / f"{stage}.json", self.folder / stage
        if (out / "model").exists():
            return out / "model"
        content = {"stage": stage, "languages": ["ko"], **inputs, "params": params}
        spec.write_text(json.dumps(content, indent=1), encoding="utf-8")
        command = [sys.executable, *MODELZOO, stage, "--spec", str(spec), "--out", str(out)]
        self.say(f"$ {shown(command)}")
        with (self.folder / f"{stage}.log").open("ab") as log:
            trainer = subprocess.Popen(command, cwd=settings.BASE_DIR, stderr=log)
            try:
                while trainer.poll() is None:
                    self._tell_progress(out / "metrics.jsonl", trainer)
            finally:
                trainer.terminate()  # asks it to keep what it has; ended already where all went well
                trainer.wait()
        result = self.result(stage)
        if result.get("status") != "succeeded":
            error = result.get("error") or {"message": f"it was {result.get('status', 'killed')}"}
            raise StepFailed(f"{stage}: {error['message']} Its log is {self.folder / f'{stage}.log'}.")
        metrics = result["metrics"]
        heldout = f", held-out loss {metrics['heldout_loss']:.3f}" if "heldout_loss" in metrics else ""
        self.say(f"{stage}: done in {metrics['seconds']:.0f} s{heldout}")
        return out / "model"

    def _tell_progress(self, metrics: Path, trainer: "subprocess.Popen[bytes]") -> None:
        try:
            trainer.wait(PROGRESS_SECONDS)
        except subprocess.TimeoutExpired:
            if metrics.exists() and (lines := metrics.read_text(encoding="utf-8").split("\n")[:-1]):
                last = json.loads(lines[-1])
                rest = "  ".join(f"{name} {last[name]:.3g}" for name in ("loss", "heldout_loss") if name in last)
                self.say(f"  step {last['step']} of {last['total']}  {rest}")

    def result(self, stage: str) -> dict[str, Any]:
        """What a trainer left behind; empty where it was killed before it could."""
        path = self.folder / stage / "result.json"
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return content

    def bits_per_byte(self) -> float | None:
        """How well held-out answers are foretold, whatever the tokenizer: 8 would be blind guessing of bytes.

        None where every held-out row was too long to be measured.
        """
        tokenizer = load_tokenizer(self.tokenizer)
        rows = Snapshot.open(self.data / "snapshot").rows("demonstrations.jsonl", split="heldout", languages=["ko"])
        examples, _ = encode_demonstrations(rows, tokenizer, self.recipe.sft["max_length"])  # those the trainer took
        loss = self.result("sft")["metrics"].get("heldout_loss")
        if loss is None:
            return None
        nats = loss * sum(len(example.response) for example in examples)
        return float(nats / math.log(2) / sum(len(tokenizer.decode(example.response).encode()) for example in examples))


def shown(command: list[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["python", *command[1:]])


def heldout_rows(data: Path) -> Iterator[tuple[str, str]]:
    with (data / "heldout.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["prompt"], row["response"]


def open_project(name: str, by: User, starter: list[dict[str, Any]], data: Path, source: str) -> Project:
    """A Korean project for everybody who has an account, with prompts from the library and held-out ones from the CSV.

    The latter come in as a curator would import them; their answers become imported demonstrations.
    """
    project = Project.objects.start(by, name, languages=["ko"], k=4, max_new_tokens=MAX_NEW_TOKENS)
    project.members.set(User.objects.filter(is_active=True))
    for row in starter[:STARTER_PROMPTS]:
        Prompt.objects.add(project, row["messages"], language="ko", tags=row["tags"], author=by)
    project.prompts.approve(by)
    table = io.StringIO()
    rows = list(heldout_rows(data))[:HELDOUT_PROMPTS]
    csv.writer(table).writerows([("prompt", "response"), *rows])
    upload = SimpleUploadedFile(f"{source}.csv", table.getvalue().encode())
    Import.objects.upload(project, by, upload).take(by, approve=True)
    return project


def promote_and_sample(project: Project, version: ModelVersion, by: User) -> list[Completion]:
    """Promote, then answer every prompt here and now, or wait for the worker that is at it already.

    A prompt that the model cannot read stays without completions, as on the site. Raises StepFailed where all do.
    """
    Promotion.objects.promote(project, version, by, reason="trained from scratch on Korean questions and answers")
    jobs = SamplingJob.objects.filter(completion_set__project=project)
    while unfinished := jobs.filter(pk__in=SamplingJob.objects.unfinished()).order_by("pk").first():
        SamplingJob.objects.reap()  # what an interrupted start of this command held
        sampling.sample(unfinished.pk)
        time.sleep(0 if jobs.filter(pk=unfinished.pk, state=SamplingJob.State.SUCCEEDED).exists() else 0.5)
    failed = jobs.filter(state=SamplingJob.State.FAILED)
    if (broken := failed.first()) and not jobs.filter(state=SamplingJob.State.SUCCEEDED).exists():
        raise StepFailed(f"No prompt could be answered: {broken.error}")
    chosen = Completion.objects.filter(completion_set__project=project, model_name=version.name)
    return list(chosen.select_related("completion_set__prompt").order_by("completion_set", "index"))
