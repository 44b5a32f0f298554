# mypy: ignore-errors
"""Rollouts and updates of trl 1.12's PPOTrainer, the last that TRL had. Run by benchmarks/ppo.py in a venv of its own.

python trl_ppo.py POLICY REWARD_MODEL PROMPTS.json RESPONSE_LENGTH
"""

import json
import os
import sys
import time

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer
from trl_common import peak_memory_mb, quiet


class Rollouts(TrainerCallback):
    """When training began and when each rollout with its update had ended, and what was said."""

    def __init__(self):
        self.times, self.cpu_times, self.said = [], [], []
        generate = ppo_trainer.batch_generation

        def recorded(*arguments, **named):
            responses, logits = generate(*arguments, **named)
            self.said.append(responses.tolist())
            return responses, logits

        ppo_trainer.batch_generation = recorded

    def on_train_begin(self, *_, **__):
        self.times.append(time.perf_counter())
        self.cpu_times.append(time.process_time())

    on_step_end = on_train_begin


def main() -> None:
    policy, reward_model, prompts_path, length = sys.argv[1:]
    with open(prompts_path) as file:
        prompts = json.load(file)  # one rollout
    rollouts = Rollouts()
    trainer = trainer_of(policy, reward_model, prompts, int(length), rollouts)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "objective/scores" in entry]
    times, cpu_times = rollouts.times, rollouts.cpu_times
    result = {
        "seconds": times[-1] - times[-2],
        "cpu_seconds": cpu_times[-1] - cpu_times[-2],
        "rollouts": [after - before for before, after in zip(times, times[1:], strict=False)],
        "first_responses": rollouts.said[0],
        "score": logs[0]["objective/scores"],
        "kl": logs[0]["objective/kl"],
        "value_loss": logs[0]["loss/value_avg"],
        "peak_memory_mb": peak_memory_mb(),
    }
    print(json.dumps(result))


def trainer_of(policy, reward_model, prompts, length, rollouts) -> PPOTrainer:
    """Three rollouts of all prompts, one optimizer step each; the policy is its own reference."""
    scorers = [
        AutoModelForSequenceClassification.from_pretrained(reward_model, num_labels=1, dtype=torch.float32)
        for _ in range(2)
    ]
    policies = [AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32) for _ in range(2)]
    return PPOTrainer(
        args=PPOConfig(
            **quiet(),
            per_device_train_batch_size=len(prompts),
            gradient_accumulation_steps=1,
            num_mini_batches=1,
            num_ppo_epochs=1,
            local_rollout_forward_batch_size=len(prompts),
            total_episodes=3 * len(prompts),
            num_sample_generations=0,
            response_length=length,
            temperature=1.0,
            kl_coef=0.02,
            learning_rate=9e-6,
            gradient_checkpointing=False,  # its default is on, which is slower
        ),
        processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
        model=policies[0],
        ref_model=policies[1],
        reward_model=scorers[0],
        value_model=scorers[1],
        train_dataset=Dataset.from_list([{"input_ids": prompt} for prompt in prompts]),
        eval_dataset=Dataset.from_list([{"input_ids": prompts[0]}]),
        callbacks=[rollouts],
    )


if __name__ == "__main__":
    main()
