"""The arithmetic of the first proof, on a task that is small even for it."""

import math
from itertools import product
from pathlib import Path

import pytest
import torch

from benchmarks.proofs import exact
from benchmarks.proofs.enumerated import Exact, is_cut, log_probabilities, optimum, scores, words
from modelzoo.batches import Example, collate, seeded
from modelzoo.checkpoint import load_reward_model
from modelzoo.config import ModelConfig
from modelzoo.logprobs import response_logprobs
from modelzoo.transformer import RewardModel, Transformer

PROMPT, LENGTH, END = [2, 4], 3, 1
SHAPE = ModelConfig(
    vocab_size=5,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=8,
)


@pytest.fixture
def policy() -> Transformer:
    return exact.uneven(Transformer(SHAPE), 0, "policy")


@pytest.fixture
def reward() -> RewardModel:
    return exact.uneven(RewardModel(SHAPE), 0, "reward")


def every_response() -> list[list[int]]:
    """In the order of the enumeration, written down independently of it."""
    others = [0, 2, 3, 4]
    ended = [[*prefix, END] for t in range(LENGTH) for prefix in product(others, repeat=t)]
    return ended + [list(response) for response in product(others, repeat=LENGTH)]


def test_all_responses_are_counted_and_their_probabilities_sum_to_1(policy: Transformer) -> None:
    logprobs = log_probabilities(policy, PROMPT, LENGTH, END)
    assert len(logprobs) == len(every_response()) == 1 + 4 + 16 + 64
    assert logprobs.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_sixteen_tokens_and_four_places_make_54241_responses() -> None:
    assert sum(len(words(16, 1, t)) for t in range(4)) + len(words(16, 1, 4)) == 54_241


def test_enumerated_log_probabilities_are_those_of_the_trainer(policy: Transformer) -> None:
    batch = collate([Example(PROMPT, response) for response in every_response()], 0)
    logprobs = log_probabilities(policy, PROMPT, LENGTH, END)
    assert logprobs.std() > 0.5  # the policy is far from uniform
    assert torch.allclose(response_logprobs(policy, batch).sum(1).double(), logprobs, atol=1e-5)


def test_enumerated_scores_are_the_reward_models_less_the_penalty_for_being_cut(reward: RewardModel) -> None:
    found = scores(reward, PROMPT, LENGTH, END) - 0.75 * is_cut(5, LENGTH)
    for value, response in zip(found.tolist(), every_response(), strict=True):
        tokens = torch.tensor([PROMPT + response])
        expected = reward(tokens, torch.ones_like(tokens).bool()).item() - 0.75 * (END not in response)
        assert value == pytest.approx(expected, abs=1e-5)


def test_what_a_policy_misses_of_the_optimum_is_its_divergence_from_the_best_policy(
    policy: Transformer, reward: RewardModel
) -> None:
    """J* - J(pi) = beta KL(pi || pi*), for any pi."""
    reference = log_probabilities(policy, PROMPT, LENGTH, END)
    rewards = scores(reward, PROMPT, LENGTH, END)
    best, value = optimum(reference, rewards, 0.3)
    assert best.exp().sum().item() == pytest.approx(1)
    assert Exact.of(best, reference, rewards, 0.3).objective == pytest.approx(value)
    other = torch.randn(len(best), generator=seeded("other"), dtype=torch.float64).log_softmax(0)
    for logprobs in (reference, other):
        missed = value - Exact.of(logprobs, reference, rewards, 0.3).objective
        assert missed > 0
        assert missed == pytest.approx(0.3 * float(logprobs.exp() @ (logprobs - best)))


def test_exact_expectations_are_those_of_many_samples(policy: Transformer, reward: RewardModel) -> None:
    reference = log_probabilities(exact.uneven(Transformer(SHAPE), 1, "policy"), PROMPT, LENGTH, END)
    logprobs, rewards = (
        log_probabilities(policy, PROMPT, LENGTH, END),
        scores(reward, PROMPT, LENGTH, END),
    )
    expected = Exact.of(logprobs, reference, rewards, 0.1)
    drawn = torch.multinomial(logprobs.exp(), 100_000, replacement=True, generator=seeded("drawn"))
    for samples, mean, variance in (
        (rewards[drawn], expected.reward, expected.reward_variance),
        ((logprobs - reference)[drawn], expected.kl, expected.kl_variance),
    ):
        assert abs(samples.mean().item() - mean) < 3 * math.sqrt(variance / len(drawn))
        assert samples.var().item() == pytest.approx(variance, rel=0.05)


@pytest.fixture
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tokens instead of four: 3,616 responses, a fifteenth of the time."""
    monkeypatch.setattr(exact, "LENGTH", 3)
    monkeypatch.setitem(exact.PPO, "max_new_tokens", 3)


def test_scores_of_the_reference_have_mean_0_and_deviation_1(tmp_path: Path, shorter: None) -> None:
    task = exact.Task(tmp_path, 1)
    model, _, _ = load_reward_model(tmp_path / "reward")
    weights = [reference.exp() / len(task.prompts) for reference in task.reference]
    cut = is_cut(16, 3)
    plain = [rewards + exact.MISSING_EOS_PENALTY * cut for rewards in task.rewards]
    assert sum(float(w @ r) for w, r in zip(weights, plain, strict=True)) == pytest.approx(0, abs=1e-6)
    assert sum(float(w @ r**2) for w, r in zip(weights, plain, strict=True)) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(scores(model, task.prompts[1], 2, 1)[:16], plain[1][:16], atol=1e-4)


def test_a_short_run_is_measured_at_every_step_and_does_not_pass_as_proof(
    tmp_path: Path, shorter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "EVERY", 1)
    monkeypatch.setitem(exact.PPO, "episodes", 5 * 64)
    monkeypatch.setitem(exact.PPO, "batch_size", 64)
    monkeypatch.setitem(exact.PPO, "minibatch_size", 64)
    outcomes = [exact.prove(seed, tmp_path / str(seed)) for seed in (1, 2)]
    for outcome in outcomes:
        assert outcome.responses == 3616 and len(outcome.steps) == 5
        assert outcome.steps[0]["kl"] == 0 < outcome.steps[0]["exact_kl"]
        assert outcome.reference < outcome.trained.objective < outcome.best
        mean, error = outcome.kl_error
        assert abs(mean) < 4 * error
    enough, *_ = exact.claims(outcomes)
    assert not enough.holds and "95%" in enough.text
    assert exact.table_of(outcomes).count("\n") == 3
