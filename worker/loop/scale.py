"""How big the loop is: enough to be sure within three minutes, or just enough to see that every part works."""

from dataclasses import dataclass, field
from typing import Any

TINY = {"max_length": 64, "checkpoint_every": 100_000}
"""Sequences are short, and runs of seconds need no step checkpoints."""


@dataclass(frozen=True)
class Scale:
    dialogues: int
    """Of these the tokenizer and the base model learn what the world's language is."""
    prompts: int
    samples: int
    """Fresh completions of each held-out prompt by which a policy is measured."""
    k: int = 8
    overlap: int = 2
    labelers: int = 4
    vocabulary: int = 600
    max_new_tokens: int = 40
    pretrain: dict[str, Any] = field(default_factory=dict)
    sft: dict[str, Any] = field(default_factory=dict)
    reward: dict[str, Any] = field(default_factory=dict)
    ppo: dict[str, Any] = field(default_factory=dict)


SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}

FULL = Scale(
    dialogues=4000,
    prompts=160,
    samples=24,
    pretrain={
        **TINY,
        **SHAPE,
        "learning_rate": 5e-3,
        "warmup_ratio": 0.05,
        "batch_size": 6,
        "micro_batch_size": 6,
    },
    sft={**TINY, "learning_rate": 1e-3, "epochs": 3, "batch_size": 16, "micro_batch_size": 16},
    reward={**TINY, "learning_rate": 3e-3, "warmup_ratio": 0.1, "epochs": 2, "batch_size": 8, "micro_batch_size": 32},
    ppo={
        **TINY,
        "learning_rate": 1e-3,
        "value_learning_rate": 2e-3,
        "value_coef": 1.0,
        "warmup_steps": 2,
        "episodes": 1024,
        "batch_size": 64,
        "minibatch_size": 64,
        "micro_batch_size": 64,
        "max_new_tokens": 40,
        "kl_coef": 0.05,
        "ema_decay": 0.8,
    },
)

QUICK = Scale(
    dialogues=1500,
    prompts=60,
    samples=2,
    k=4,
    pretrain=FULL.pretrain,
    sft={**FULL.sft, "epochs": 1},
    reward={**FULL.reward, "epochs": 1},
    ppo={**FULL.ppo, "episodes": 32, "batch_size": 16, "minibatch_size": 16, "max_new_tokens": 24},
)
