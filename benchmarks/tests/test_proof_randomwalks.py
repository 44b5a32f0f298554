"""The graph of the fourth proof, and that its reward is what PPO sees."""

from itertools import pairwise

import pytest
import torch

from benchmarks.proofs.randomwalks import GOAL, LONGEST, NODES, SHAPE, Graph, Optimality, Outcome, claims
from modelzoo.config import ModelConfig


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph(1)


def test_every_node_leads_to_the_goal_by_a_path_that_no_walk_undercuts(graph: Graph) -> None:
    walks = [graph.walk() for _ in range(3000)]
    for walk in walks:
        assert all(after in graph.edges[before] for before, after in pairwise(walk))
        assert len(walk) <= LONGEST
        if walk[-1] == GOAL:
            assert len(walk) >= graph.shortest[walk[0]]
    shortest = {walk[0]: len(walk) for walk in walks if walk[-1] == GOAL and len(walk) == graph.shortest[walk[0]]}
    assert len(shortest) > NODES / 2  # the bound is reached


def test_optimality_is_1_for_a_shortest_path_and_0_for_none(graph: Graph) -> None:
    start = next(node for node in range(1, NODES) if graph.shortest[node] == 3)
    middle = next(n for n in graph.edges[start] if GOAL in graph.edges[n])
    assert graph.optimality([start, middle, GOAL]) == 1
    assert graph.optimality([start, middle, GOAL, -1, 5]) == 1  # what is said behind the goal does not count
    assert graph.optimality([start, middle]) == 0
    assert graph.optimality([start, GOAL]) == 0  # there is no such edge
    assert graph.optimality([start, -1]) == 0


def test_longer_ways_are_worth_less(graph: Graph) -> None:
    walks = [walk for walk in (graph.walk() for _ in range(2000)) if walk[-1] == GOAL]
    for walk in walks:
        assert graph.optimality(walk) == pytest.approx((10 - len(walk)) / (10 - graph.shortest[walk[0]]))
    assert len({len(walk) for walk in walks}) > 3


def test_the_reward_model_looks_up_real_tokens_only(graph: Graph) -> None:
    start = next(node for node in range(1, NODES) if GOAL in graph.edges[node])
    reward = Optimality(graph, ModelConfig(vocab_size=NODES + 2, **SHAPE))
    tokens = torch.tensor([[start + 2, GOAL + 2, 1, 0], [start + 2, 1, GOAL + 2, 0]])
    mask = torch.tensor([[True, True, True, False]] * 2)
    assert reward(tokens, mask).tolist() == [1, 0]


def test_the_verdict_is_on_the_worst_seed() -> None:
    outcomes = [Outcome(seed, 0.2, 0.3, after, [0.3], 5.0) for seed, after in ((1, 0.95), (2, 0.89))]
    assert [claim.holds for claim in claims(outcomes)] == [False]
    assert [claim.holds for claim in claims(outcomes[:1])] == [True]
