"""Proof 4: PPO with no reward model and no KL penalty finds shortest paths (the random walks of trlX, its settings).

A directed graph of 21 nodes. A policy learns to speak 1,000 random walks of at most 10 nodes, then PPO rewards walks
by how near they come to the shortest path to node `a`: 1 for a shortest one, 0 for one that breaks off, takes an edge
that is not there or takes 10 nodes. The loop is `train_ppo` itself, with a reward that is a function: its files are
replaced, not its code. Claimed: optimality of fresh walks from every node is at least 0.9 in the end, on each seed.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.proofs.claims import Claim, table
from benchmarks.proofs.exact import word_tokenizer
from benchmarks.proofs.stage import Row, train, write_snapshot
from modelzoo.batches import Example, seeded
from modelzoo.checkpoint import load_policy, save_checkpoint
from modelzoo.config import ModelConfig, PPOConfig, build
from modelzoo.prepare_ppo import sample
from modelzoo.progress import TrainingState
from modelzoo.rollout import Models
from modelzoo.train_ppo import finished_policy, ppo_state, train_ppo
from modelzoo.transformer import RewardModel, Transformer

NODES, LONGEST, WALKS, EDGE = 21, 10, 1000, 0.1
GOAL = 0
NAMES = [chr(ord("a") + node) for node in range(NODES)]
REQUIRED = 0.9
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 16,
}
SFT = {"learning_rate": 3e-3, "epochs": 6, "batch_size": 32, "micro_batch_size": 32, "max_length": 16}
# trlX: 128 rollouts, 4 passes over them, learning rate 3e-4, no KL penalty, value weight 1.2.
PPO = {
    "learning_rate": 3e-4,
    "value_learning_rate": 3e-4,
    "value_coef": 1.2,
    "warmup_steps": 0,
    "episodes": 128 * 100,
    "batch_size": 128,
    "minibatch_size": 128,
    "micro_batch_size": 128,
    "inner_epochs": 4,
    "max_length": 16,
    "max_new_tokens": LONGEST,
    "kl_coef": 0.0,
    "missing_eos_penalty": 0.0,
    "ema_decay": 0.0,
}


@dataclass(frozen=True)
class Outcome:
    """One seed: mean optimality of fresh walks before and after, and of each rollout."""

    seed: int
    walks: float  # of the 1,000 random ones
    before: float
    after: float
    rollouts: list[float]
    kl: float


class Graph:
    """Edges of a random directed graph in which every node leads to the goal within the longest walk."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"graph {seed}")
        while True:
            self.edges = [
                [n for n in range(NODES) if n != node and self.chance.random() < EDGE] for node in range(NODES)
            ]
            self.edges[GOAL] = []
            self.shortest = self._shortest()
            if all(length < LONGEST for length in self.shortest):
                return

    def _shortest(self) -> list[int]:
        """Nodes on the shortest path from each node to the goal, both ends counted; LONGEST where there is none."""
        lengths = [LONGEST] * NODES
        reached, lengths[GOAL] = [GOAL], 1
        while reached:
            node = reached.pop(0)
            for before in range(NODES):
                if node in self.edges[before] and lengths[before] == LONGEST and before != GOAL:
                    lengths[before] = lengths[node] + 1
                    reached.append(before)
        return lengths

    def walk(self) -> list[int]:
        walk = [self.chance.randrange(1, NODES)]
        while len(walk) < LONGEST and walk[-1] != GOAL and self.edges[walk[-1]]:
            walk.append(self.chance.choice(self.edges[walk[-1]]))
        return walk

    def optimality(self, walk: Sequence[int]) -> float:
        """1 for a shortest path to the goal, 0 for none within LONGEST nodes, in between by its length."""
        length = LONGEST
        for place, node in enumerate(walk[:LONGEST]):
            if place and node not in self.edges[walk[place - 1]]:
                break
            if node == GOAL:
                length = place + 1
                break
        return (LONGEST - length) / (LONGEST - self.shortest[walk[0]])


class Optimality(RewardModel):
    """A reward that is looked up, in the place of one that was learned."""

    def __init__(self, graph: Graph, config: ModelConfig) -> None:
        super().__init__(config)
        self.graph = graph

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.tensor(
            [self.graph.optimality(_walk(row[real].tolist())) for row, real in zip(tokens, mask, strict=True)]
        )


def _walk(tokens: Sequence[int]) -> list[int]:
    """Nodes of a sequence of tokens: they stand behind the two that pad and end, which are no nodes (-1)."""
    return [token - 2 if token >= 2 else -1 for token in tokens]


class Measured:
    """A run that only keeps the figures of its steps."""

    def __init__(self, state: TrainingState) -> None:
        self.state, self.metrics = state, list[dict[str, float]]()

    def log(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass

    def check_stop(self) -> None:
        pass

    def end_step(self, metrics: dict[str, float]) -> None:
        self.state.step += 1
        self.metrics.append(metrics)


def prove(seed: int, folder: Path) -> Outcome:
    torch.set_num_threads(1)
    graph = Graph(seed)
    walks = [graph.walk() for _ in range(WALKS)]
    policy = _speaker(folder, walks, seed)
    tokenizer = word_tokenizer(["<pad>", "<end>", *NAMES])
    reward = Optimality(graph, policy.config)
    value = RewardModel.from_policy(policy, seeded(seed, "value head"))
    reference, _, _ = load_policy(folder / "sft" / "model")
    models = Models(policy, reference, reward, value, tokenizer)
    config = build(PPOConfig, PPO | {"seed": seed})
    prompts = [[node + 2] for node in range(NODES) if node != GOAL]
    before = _optimality(models, prompts, config)
    state = ppo_state(models, config)
    run = Measured(state)
    speak = partial(sample, models, config, should_stop=lambda: False)
    train_ppo(models, state, prompts, config, sample=speak, run=run)
    trained = models._replace(policy=finished_policy(state))
    return Outcome(
        seed=seed,
        walks=sum(map(graph.optimality, walks)) / WALKS,
        before=before,
        after=_optimality(trained, prompts, config),
        rollouts=[metrics["reward"] for metrics in run.metrics],
        kl=run.metrics[-1]["kl"],
    )


def _speaker(folder: Path, walks: Sequence[Sequence[int]], seed: int) -> Transformer:
    """A policy that has learned to go on with a walk from its first node."""
    tokenizer = word_tokenizer(["<pad>", "<end>", *NAMES])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        untrained = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **SHAPE))
    save_checkpoint(folder / "untrained", untrained, tokenizer, kind="base", languages=["en"])
    rows: list[Row] = [
        {
            "id": str(number),
            "split": "train",
            "language": "en",
            "messages": [{"role": "user", "content": NAMES[walk[0]]}],
            "completion": " ".join(NAMES[node] for node in walk[1:]),
        }
        for number, walk in enumerate(walks)
    ]
    snapshot = write_snapshot(folder / "snapshot", demonstrations=rows)
    params: dict[str, Any] = SFT | {"seed": seed}
    train("sft", folder / "sft", params, snapshot=snapshot, policy=folder / "untrained")
    return load_policy(folder / "sft" / "model")[0]


def _optimality(models: Models, prompts: list[list[int]], config: PPOConfig) -> float:
    """Of 50 fresh walks from every node but the goal."""
    assert isinstance(models.reward, Optimality)
    examples: list[Example] = sample(models, config, prompts * 50, -1, should_stop=lambda: False)[0]
    scores = [models.reward.graph.optimality(_walk(example.tokens)) for example in examples]
    return sum(scores) / len(scores)


def table_of(outcomes: Sequence[Outcome]) -> str:
    heads = ["seed", "random walks", "policy before PPO", "after", "KL"]
    rows = [[str(o.seed), *(f"{value:.2f}" for value in (o.walks, o.before, o.after)), f"{o.kl:.1f}"] for o in outcomes]
    return table(heads, rows)


def claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    least = min(o.after for o in outcomes)
    return [Claim(f"optimality is at least {REQUIRED} on each seed (least: {least:.2f})", least >= REQUIRED)]
