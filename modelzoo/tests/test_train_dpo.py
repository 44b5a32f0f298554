"""Direct preference optimisation: its loss and gradient by hand, its start, its optimum, and that it learns."""

import math
from pathlib import Path

import pytest
import torch

from modelzoo.batches import Example, collate
from modelzoo.checkpoint import load_policy
from modelzoo.config import SamplingConfig
from modelzoo.logprobs import response_logprobs
from modelzoo.rankings import ranking_loss
from modelzoo.sampler import Sampler
from modelzoo.tests.conftest import Train, demonstration, question, ranking, write_snapshot
from modelzoo.tokenizer import Tokenizer
from modelzoo.train_dpo import Judged, implicit_rewards, mean_margin
from modelzoo.transformer import Transformer

EXAMPLES = [Example([5, 6], [7, 8, 9]), Example([5, 6], [10]), Example([5, 6], [11, 12, 13, 14])]
TIERS = torch.tensor([1, 2, 3])


def logprob(policy: Transformer, example: Example) -> torch.Tensor:
    return response_logprobs(policy, collate([example], 0)).sum()


def test_loss_by_hand() -> None:
    """Policy prefers the winner by 2 nats more than its reference does: -log sigmoid(0.1 * 2) = 0.5981389."""
    policy, reference = torch.tensor([-10.0, -15.0]), torch.tensor([-11.0, -14.0])
    loss = ranking_loss(0.1 * (policy - reference), torch.tensor([1, 2]))
    assert loss.item() == pytest.approx(0.5981389, abs=1e-6)


def test_gradient_by_hand() -> None:
    """d loss / d log pi = -beta * sigmoid(-beta * 2) at the winner and its opposite at the loser: 0.0450166."""
    policy = torch.tensor([-10.0, -15.0], requires_grad=True)
    ranking_loss(0.1 * (policy - torch.tensor([-11.0, -14.0])), torch.tensor([1, 2])).backward()
    assert policy.grad.tolist() == pytest.approx([-0.0450166, 0.0450166], abs=1e-6)


def test_implicit_reward_is_beta_times_the_log_ratio_of_whole_responses(policy: Transformer) -> None:
    reference = torch.tensor([-1.0, -2.0, -3.0])
    with torch.no_grad():
        (rewards,) = implicit_rewards(policy, [Judged(EXAMPLES, TIERS, reference)], 0.3, pad_id=0)
        expected = [0.3 * (logprob(policy, e).item() - r.item()) for e, r in zip(EXAMPLES, reference, strict=True)]
    assert rewards.tolist() == pytest.approx(expected, abs=1e-5)


def test_margin_is_a_mean_over_untied_pairs() -> None:
    rewards = torch.tensor([3.0, 1.0, 0.0, 0.5])
    assert mean_margin(rewards, torch.tensor([1, 2, 3, 2])) == pytest.approx((2 + 3 + 2.5 + 1 + 0.5) / 5)


def test_pairs_of_a_ranking_weigh_one_over_their_number() -> None:
    rewards = torch.tensor([0.3, -0.2, 0.1])
    pairs = [(0, 1), (0, 2)]  # 1 and 2 are tied
    by_hand = sum(math.log1p(math.exp(-(rewards[won] - rewards[lost]).item())) for won, lost in pairs) / 2
    assert ranking_loss(rewards, torch.tensor([1, 2, 2])).item() == pytest.approx(by_hand, abs=1e-6)


def test_optimum_is_the_closed_form_of_the_kl_regularised_policy() -> None:
    """With preferences drawn by Bradley-Terry from r, DPO's optimum is pi_ref exp(r / beta) / Z (section 4)."""
    beta, rewards = 0.5, torch.tensor([0.9, 0.1, -0.4, 0.3], dtype=torch.float64)
    reference = torch.log_softmax(torch.tensor([0.2, 1.0, -0.5, 0.4], dtype=torch.float64), 0)
    logits = reference.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        implicit = beta * (torch.log_softmax(logits, 0) - reference)
        loss = torch.zeros((), dtype=torch.float64)
        for i in range(4):
            for j in range(4):
                if i != j:
                    wins = torch.sigmoid(rewards[i] - rewards[j])
                    loss = loss + wins * ranking_loss(implicit[[i, j]], torch.tensor([1, 2]))
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = torch.softmax(reference + rewards / beta, 0)
    assert torch.allclose(torch.softmax(logits, 0), expected, atol=1e-6)
    assert (expected - reference.exp()).abs().max() > 0.1


@pytest.mark.parametrize("params", [{}, {"lora_rank": 4}, {"micro_batch_size": 1}, {"micro_batch_size": 9}])
def test_loss_is_log_2_and_margin_0_at_the_first_step_exactly(train: Train, params: dict[str, int]) -> None:
    first = train("dpo", {"batch_size": 8, **params}).metrics[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert (first["margin"], first["accuracy"]) == (0, 0.5)


def test_every_first_epoch_batch_would_start_at_log_2(train: Train) -> None:
    """Without learning, no batch has moved from the reference: cut and padded alike, the bits are the same."""
    done = train("dpo", {"batch_size": 3, "learning_rate": 0.0})
    assert done.series("margin") == [0.0] * 6
    assert done.series("heldout_accuracy") == [0.5]


def test_policy_turns_to_what_people_preferred(train: Train, tmp_path: Path) -> None:
    texts = ["good fish", "dogs ran"]
    shown = [demonstration(n, split="train", completion=texts[n % 2], messages=question(n // 2)) for n in range(16)]
    ranked = [
        ranking(n, [1, 2], split="heldout" if n > 12 else "train", completions=texts, finish_reasons=["stop"] * 2)
        for n in range(16)
    ]
    snapshot = str(write_snapshot(tmp_path / "s", rankings=ranked, demonstrations=shown, prompts=[]))
    sft = train("sft", {"epochs": 120, "batch_size": 16, "learning_rate": 1e-2}, snapshot=snapshot, out="policy")
    policy = sft.out / "model"
    done = train("dpo", {"epochs": 10, "learning_rate": 3e-4}, snapshot=snapshot, policy=str(policy))
    assert done.result["metrics"]["heldout_accuracy"] == 1
    assert done.series("margin")[-1] > 0.1 and done.series("loss")[-1] < done.series("loss")[0] - 0.05
    said = []
    for model in (policy, done.out / "model"):
        samples = Sampler.load(model).sample(
            [question(n) for n in range(8)], 16, SamplingConfig(max_new_tokens=12), seeds=range(8)
        )
        said.append(sum(sample.text == "good fish" for row in samples for sample in row))
    assert said[1] > said[0] + 20  # of 128


def test_exported_policy_names_its_parent_and_keeps_its_languages(train: Train, tokenizer: Tokenizer) -> None:
    policy, theirs, manifest = load_policy(train("dpo").out / "model")
    assert manifest["kind"] == "policy" and manifest["languages"] == ["en"] and len(manifest["parents"]) == 1
    assert theirs.vocab_size == tokenizer.vocab_size


def test_tied_rankings_are_left_out_and_only_ties_refused(train: Train, tmp_path: Path) -> None:
    rows = [ranking(0), ranking(1, [1, 1, 1])]
    done = train("dpo", snapshot=str(write_snapshot(tmp_path / "s", rankings=rows, demonstrations=[], prompts=[])))
    assert "Left out of the rankings: 1 all tied." in done.result["warnings"]
    ties = str(write_snapshot(tmp_path / "t", rankings=rows[1:], demonstrations=[], prompts=[]))
    refused = train("dpo", snapshot=ties, out="refused")
    assert refused.code == 2 and "no ranking to learn from (left out: 1 all tied)" in refused.message
