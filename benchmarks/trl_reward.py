# mypy: ignore-errors
"""One optimizer step of TRL's RewardTrainer on the pairs of one ranking. Run by benchmarks/reward.py in TRL's own venv.

python trl_reward.py MODEL PAIRS.json PAIRS_AT_ONCE [--checkpointing]
"""

import json
import sys

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer
from trl_common import Clock, Recording, peak_memory_mb, quiet


class Recorder(Recording, RewardTrainer):
    pass


def main() -> None:
    directory, pairs_path, at_once, *options = sys.argv[1:]
    with open(pairs_path) as file:
        pairs = json.load(file)
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
    clock = Clock()
    trainer = Recorder(
        model=model,
        args=RewardConfig(
            **quiet(),
            per_device_train_batch_size=int(at_once),
            gradient_accumulation_steps=len(pairs) // int(at_once),
            gradient_checkpointing="--checkpointing" in options,
            learning_rate=0.0,  # the same work, and every step starts from the same weights
            max_steps=1,
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=AutoTokenizer.from_pretrained(directory),
        callbacks=[clock],
    )
    warm_up(trainer, pairs[:1])
    trainer.losses = []
    trainer.train()
    (log,) = (entry for entry in trainer.state.log_history if "grad_norm" in entry)
    result = {
        "seconds": clock.seconds[0],
        "cpu_seconds": clock.cpu_seconds[0],
        "loss": sum(trainer.losses) / len(trainer.losses),
        "grad_norm": float(log["grad_norm"]),
        "peak_memory_mb": peak_memory_mb(),
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
