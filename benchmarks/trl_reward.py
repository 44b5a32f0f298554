# mypy: ignore-errors
"""One optimizer step of TRL's RewardTrainer on the pairs of one ranking. Run by benchmarks/reward.py in TRL's own venv.

python trl_reward.py MODEL PAIRS.json PAIRS_AT_ONCE [--checkpointing]
"""

import json
import resource
import sys
import tempfile
import time

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer


class Clock(TrainerCallback):
    """From before the forward of the first micro-batch until the gradients of the last step are cleared."""

    def on_step_begin(self, *_, **__):
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    def on_step_end(self, *_, **__):
        self.seconds = time.perf_counter() - self.started
        self.cpu_seconds = time.process_time() - self.cpu_started


class Recorder(RewardTrainer):
    """The trainer as it is, and its losses without the logger's rounding."""

    def compute_loss(self, *arguments, **named):
        loss = super().compute_loss(*arguments, **named)
        self.losses.append(loss.item())
        return loss


def main() -> None:
    directory, pairs_path, at_once, *options = sys.argv[1:]
    with open(pairs_path) as file:
        pairs = json.load(file)
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
    clock = Clock()
    trainer = Recorder(
        model=model,
        args=RewardConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=int(at_once),
            gradient_accumulation_steps=len(pairs) // int(at_once),
            gradient_checkpointing="--checkpointing" in options,
            learning_rate=0.0,  # the same work, and every step starts from the same weights
            max_steps=1,
            bf16=False,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=AutoTokenizer.from_pretrained(directory),
        callbacks=[clock],
    )
    trainer.losses = []
    warm_up(trainer, pairs[:1])
    trainer.losses.clear()
    trainer.train()
    (log,) = (entry for entry in trainer.state.log_history if "grad_norm" in entry)
    result = {
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
        "loss": sum(trainer.losses) / len(trainer.losses),
        "grad_norm": float(log["grad_norm"]),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(result))


def warm_up(trainer, pairs) -> None:
    """A step on one pair: threads are started, Adam's moments are there."""
    trainer.create_optimizer()
    batch = trainer.data_collator(pairs)
    trainer.compute_loss(trainer.model, batch).backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


if __name__ == "__main__":
    main()
