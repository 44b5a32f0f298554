"""The equations against numbers worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modelzoo.losses import (
    adapted_kl_coef,
    advantages_and_returns,
    kl_k1,
    kl_k3,
    policy_losses,
    token_rewards,
    value_losses,
    whiten,
)
from modelzoo.rankings import pair_accuracy, ranking_loss

BEST_TO_WORST = torch.tensor([1, 2, 3, 4])


def leaf(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32, requires_grad=True)


def test_ranking_loss_has_the_value_and_gradients_worked_out_by_hand() -> None:
    scores = leaf(2, 1, 0, -1)
    loss = ranking_loss(scores, BEST_TO_WORST)
    loss.backward()
    assert loss.item() == pytest.approx(0.2070381, abs=1e-7)
    assert scores.grad.tolist() == pytest.approx([-0.072595, -0.019867, 0.019867, 0.072595], abs=1e-6)
    assert scores.grad.sum().item() == pytest.approx(0, abs=1e-7)


def test_margin_raises_the_ranking_loss_to_the_value_worked_out_by_hand() -> None:
    assert ranking_loss(leaf(2, 1, 0, -1), BEST_TO_WORST, margin=0.5).item() == pytest.approx(0.3173245, abs=1e-7)


def trl_loss(scores: Tensor, rankings: list[Tensor]) -> Tensor:
    """TRL's RewardTrainer: -logsigmoid(chosen - rejected).mean() over a flat list of pairs."""
    chosen, rejected, start = [], [], 0
    for tiers in rankings:
        for i, better in enumerate(tiers):
            for j, worse in enumerate(tiers):
                if better < worse:
                    chosen.append(scores[start + i])
                    rejected.append(scores[start + j])
        start += len(tiers)
    return -F.logsigmoid(torch.stack(chosen) - torch.stack(rejected)).mean()


def test_one_prompt_gives_the_loss_and_gradients_of_trl() -> None:
    tiers = torch.tensor([3, 1, 2, 2, 4])
    ours, theirs = leaf(0.3, 1.1, -0.4, 0.2, 0.9), leaf(0.3, 1.1, -0.4, 0.2, 0.9)
    loss, expected = ranking_loss(ours, tiers), trl_loss(theirs, [tiers])
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert ours.grad.tolist() == pytest.approx(theirs.grad.tolist(), abs=1e-6)


def test_prompts_of_different_k_weigh_the_same_unlike_in_trl() -> None:
    scores = leaf(0.3, 1.1, -0.4, 0.2, 0.9, 0.1, 0.5)
    four, three = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3])
    ours = (ranking_loss(scores[:4], four) + ranking_loss(scores[4:], three)) / 2
    assert abs(ours.item() - trl_loss(scores, [four, three]).item()) > 1e-3


def test_tied_pairs_are_dropped() -> None:
    scores = leaf(1.0, 5.0, 0.0)
    loss = ranking_loss(scores, torch.tensor([1, 1, 2]))
    assert loss.item() == pytest.approx((-F.logsigmoid(torch.tensor(1.0)) - F.logsigmoid(torch.tensor(5.0))).item() / 2)


def test_modelled_ties_are_lowest_at_equal_scores_and_symmetric() -> None:
    tied = torch.tensor([1, 1])
    losses = [ranking_loss(leaf(d, 0.0), tied, ties="model").item() for d in (-2.0, -0.1, 0.0, 0.1, 2.0)]
    assert min(losses) == losses[2] == pytest.approx(math.log(2))
    assert losses == pytest.approx(losses[::-1])


def test_ranking_with_every_completion_tied_has_no_loss() -> None:
    with pytest.raises(ValueError, match="no pair"):
        ranking_loss(leaf(1.0, 2.0), torch.tensor([1, 1]))


def test_pair_accuracy_counts_untied_pairs_and_equal_scores_as_half() -> None:
    assert pair_accuracy(torch.tensor([2.0, 1.0, 1.0, 3.0]), torch.tensor([1, 2, 3, 3])) == (2.5, 5)


def test_pair_accuracy_does_not_change_with_an_offset() -> None:
    scores, tiers = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([2, 3, 1])
    assert pair_accuracy(scores - 7.25, tiers) == pair_accuracy(scores, tiers)


def slow_advantages(
    rewards: list[float], values: list[float], gamma: float, gae_lambda: float
) -> tuple[list[float], list[float]]:
    """Equation 16 as the double sum it is written as."""
    n = len(rewards)
    deltas = [rewards[t] + gamma * (values[t + 1] if t + 1 < n else 0.0) - values[t] for t in range(n)]
    advantages = [sum((gamma * gae_lambda) ** (u - t) * deltas[u] for u in range(t, n)) for t in range(n)]
    return advantages, [a + v for a, v in zip(advantages, values, strict=True)]


def test_gae_gives_the_vectors_worked_out_by_hand() -> None:
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.4, 0.3]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = advantages_and_returns(rewards, values, mask, gamma=1.0, gae_lambda=0.95)
    assert advantages[0].tolist() == pytest.approx([0.43675, 0.565, 0.7], abs=1e-6)
    assert returns[0].tolist() == pytest.approx([0.93675, 0.965, 1.0], abs=1e-6)


def test_gae_of_padded_rows_equals_a_slow_loop_over_each_row() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(5, 9, generator=generator), torch.randn(5, 9, generator=generator)
    spans = [(0, 9), (2, 5), (3, 4), (1, 8), (4, 9)]  # prompt before, padding behind
    mask = torch.tensor([[start <= t < end for t in range(9)] for start, end in spans])
    advantages, returns = advantages_and_returns(rewards, values, mask, gamma=0.9, gae_lambda=0.8)
    for row, (start, end) in enumerate(spans):
        expected = slow_advantages(rewards[row, start:end].tolist(), values[row, start:end].tolist(), 0.9, 0.8)
        assert advantages[row, start:end].tolist() == pytest.approx(expected[0], abs=1e-5)
        assert returns[row, start:end].tolist() == pytest.approx(expected[1], abs=1e-5)
    assert not advantages[~mask].any() and not returns[~mask].any()


def test_reward_stands_at_the_last_response_token_and_kl_at_each() -> None:
    mask = torch.tensor([[False, True, True, True, False]])
    rewards = token_rewards(torch.tensor([1.0]), torch.tensor([[9.0, -0.1, -0.1, -0.1, 9.0]]), mask, 0.5)
    assert rewards[0].tolist() == pytest.approx([0, 0.05, 0.05, 1.05, 0])


def test_reward_less_kl_is_largest_at_the_end_of_each_response() -> None:
    mask = torch.tensor([[False, True, True, True, True], [True, True, False, False, False]])
    kl = torch.full((2, 5), 0.3)
    placed = token_rewards(torch.tensor([2.0, 0.5]), kl, mask, 0.1) + 0.1 * kl * mask
    assert placed.argmax(dim=1).tolist() == [4, 1]


def test_whitened_advantages_have_mean_0_and_variance_1_whatever_stands_outside_the_mask() -> None:
    values, mask = torch.randn(4, 6), torch.rand(4, 6) > 0.4
    whitened = whiten(values, mask)
    assert whitened[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert whitened[mask].var(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(whitened, whiten(torch.where(mask, values, 1e6), mask))


def test_whitened_rewards_keep_their_mean() -> None:
    rewards, mask = torch.randn(4, 6) * 3 + 2, torch.rand(4, 6) > 0.4
    whitened = whiten(rewards, mask, shift_mean=False)
    assert whitened[mask].mean().item() == pytest.approx(rewards[mask].mean().item(), abs=1e-5)
    assert whitened[mask].var(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_policy_loss_takes_the_worse_of_the_clipped_and_the_plain_ratio() -> None:
    ratios = [1.5, 0.5, 1.5, 0.5]
    logprobs = leaf(*(math.log(ratio) for ratio in ratios))
    losses, ratio = policy_losses(logprobs, torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2)
    losses.sum().backward()
    assert ratio.tolist() == pytest.approx(ratios)
    assert losses.tolist() == pytest.approx([-1.2, -0.5, 1.5, 0.8])
    assert logprobs.grad.tolist() == pytest.approx([0, -0.5, 1.5, 0], abs=1e-6)


def test_value_loss_is_clipped_and_has_no_gradient_where_the_clipped_branch_wins() -> None:
    values = leaf(0.5, 0.1, -0.3)  # from 0: up past the clip to a return below, within it, down past it to one above
    losses = value_losses(values, torch.zeros(3), torch.tensor([1.0, 1.0, -1.0]), 0.2)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.5 * 0.8**2, 0.5 * 0.9**2, 0.5 * 0.8**2])
    assert values.grad.tolist() == pytest.approx([0, -0.9, 0])


def test_value_loss_is_not_clipped_where_the_plain_error_is_larger() -> None:
    values = leaf(1.5)
    losses = value_losses(values, torch.tensor([1.0]), torch.tensor([0.0]), 0.2)
    losses.sum().backward()
    assert losses.item() == pytest.approx(0.5 * 1.5**2)
    assert values.grad.item() == pytest.approx(1.5)


def test_kl_estimates_agree_with_the_exact_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    policy = torch.randn(16, generator=generator).log_softmax(0)
    reference = (policy + 0.4 * torch.randn(16, generator=generator)).log_softmax(0)
    exact = (policy.exp() * (policy - reference)).sum().item()
    drawn = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=generator)
    for estimate in (kl_k1(policy[drawn], reference[drawn]), kl_k3(policy[drawn], reference[drawn])):
        error = estimate.std().item() / math.sqrt(len(drawn))
        assert abs(estimate.mean().item() - exact) < 3 * error
    assert kl_k1(policy[drawn], reference[drawn]).min() < 0 <= kl_k3(policy[drawn], reference[drawn]).min()


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(6.0, 0.1), (12.0, 0.1 * (1 + 0.2 * 64 / 1000)), (5.4, 0.1 * (1 - 0.1 * 64 / 1000)), (0.0, 0.09872)],
)
def test_kl_weight_moves_in_proportion_to_the_error_up_to_a_fifth(kl: float, expected: float) -> None:
    assert adapted_kl_coef(0.1, kl, target=6.0, episodes=64, horizon=1000) == pytest.approx(expected)
