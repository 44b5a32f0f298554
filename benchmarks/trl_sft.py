"""Optimizer steps of TRL's SFTTrainer on packed rows of given tokens. Run by benchmarks/sft.py in TRL's own venv.

python trl_sft.py MODEL STEPS.json [--checkpointing]
"""

import json
import resource
import sys
import tempfile
import time

import torch
from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer, pack_dataset

LONGEST_ROW = 4096  # a step's demonstrations fit into one packed row


class Clock(TrainerCallback):
    """From before the forward of a step until its gradients are cleared."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *_, **__):
        self.started = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.started)


class Recorder(SFTTrainer):
    """The trainer as it is, and its losses without the logger's rounding."""

    def compute_loss(self, *arguments, **named):
        loss = super().compute_loss(*arguments, **named)
        self.losses.append(loss.item())
        return loss


def main() -> None:
    directory, path, *options = sys.argv[1:]
    with open(path) as file:
        steps = json.load(file)
    rows = concatenate_datasets([pack_dataset(Dataset.from_list(step), LONGEST_ROW, "bfd") for step in steps])
    assert len(rows) == len(steps)
    clock = Clock()
    trainer = Recorder(
        model=AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            packing=True,
            packing_strategy="bfd",
            max_length=LONGEST_ROW,
            dataset_kwargs={"skip_prepare_dataset": True},  # it is packed already, in the order of the steps
            train_sampling_strategy="sequential",
            per_device_train_batch_size=1,
            gradient_checkpointing="--checkpointing" in options,
            num_train_epochs=1,
            learning_rate=2e-5,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            max_grad_norm=1.0,
            bf16=False,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(directory),
        callbacks=[clock],
    )
    trainer.losses = []
    trainer.train()
    result = {
        "seconds": clock.seconds,
        "losses": trainer.losses,
        "grad_norms": [float(entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry],
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
