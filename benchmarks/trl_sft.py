"""Optimizer steps of TRL's SFTTrainer on packed rows of given tokens. Run by benchmarks/sft.py in TRL's own venv.

python trl_sft.py MODEL STEPS.json [--checkpointing]
"""

import json
import sys

import torch
from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer, pack_dataset
from trl_common import Clock, Recording, peak_memory_mb, quiet

LONGEST_ROW = 4096  # a step's demonstrations fit into one packed row


class Recorder(Recording, SFTTrainer):
    pass


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
            **quiet(),
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
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(directory),
        callbacks=[clock],
    )
    trainer.train()
    result = {
        "seconds": clock.seconds,
        "losses": trainer.losses,
        "grad_norms": [float(entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry],
        "peak_memory_mb": peak_memory_mb(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
