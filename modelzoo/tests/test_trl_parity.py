"""Row 8 of the checklist: TRL's RewardTrainer, on the same weights and pairs, has the same loss and gradients."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modelzoo.batches import Example, seeded
from modelzoo.checkpoint import save_checkpoint
from modelzoo.config import RewardConfig, build
from modelzoo.rankings import Ranking
from modelzoo.tests.conftest import tiny_policy
from modelzoo.tokenizer import Tokenizer
from modelzoo.train_reward import add_ranking_gradient
from modelzoo.transformer import RewardModel

trl = pytest.importorskip("trl", reason="the peer is a development dependency")


def ranking(prompt: int, lengths: list[int], seed: int) -> Ranking:
    """No ties: completion k is in tier k + 1."""
    ids = iter(torch.randint(20, 300, (prompt + sum(lengths),), generator=seeded("parity", seed)).tolist())
    asked = [next(ids) for _ in range(prompt)]
    return Ranking([Example(asked, [next(ids) for _ in range(n)]) for n in lengths], [*range(1, len(lengths) + 1)])


def pairs(rankings: list[Ranking]) -> list[dict[str, list[int]]]:
    return [
        {"chosen_ids": chosen.tokens, "rejected_ids": rejected.tokens}
        for ranking in rankings
        for chosen, rejected in combinations(ranking.examples, 2)
    ]


@pytest.fixture
def model(tokenizer: Tokenizer) -> RewardModel:
    return RewardModel.from_policy(tiny_policy(tokenizer), seeded("head"))


def ours(model: RewardModel, rankings: list[Ranking]) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    loss = add_ranking_gradient(model, rankings, build(RewardConfig, {}))["loss"]
    return loss, {name: weight.grad.clone() for name, weight in model.named_parameters()}


def theirs(
    model: RewardModel, tokenizer: Tokenizer, rankings: list[Ranking], folder: Path
) -> tuple[float, dict[str, Tensor]]:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    save_checkpoint(folder / "model", model, tokenizer, kind="reward", languages=["en"])
    peer: Any = AutoModelForSequenceClassification.from_pretrained(folder / "model", dtype=model.score.weight.dtype)
    data = Dataset.from_list(pairs(rankings))
    arguments = trl.RewardConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=len(data),
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
    )
    reader = AutoTokenizer.from_pretrained(folder / "model")
    trainer = trl.RewardTrainer(model=peer, args=arguments, train_dataset=data, processing_class=reader)
    (batch,) = trainer.get_train_dataloader()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in peer.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lengths", [[6, 6, 6, 6], [3, 9, 1, 5, 7, 2, 8, 4, 6]], ids=["K=4", "K=9 ragged"])
def test_loss_and_gradients_of_one_prompt_equal_trls_on_all_its_pairs(
    model: RewardModel, tokenizer: Tokenizer, tmp_path: Path, lengths: list[int], dtype: torch.dtype
) -> None:
    model.to(dtype)
    one_prompt = [ranking(11, lengths, seed=1)]
    (loss, gradients), (peer_loss, peer_gradients) = (
        ours(model, one_prompt),
        theirs(model, tokenizer, one_prompt, tmp_path),
    )
    assert loss == pytest.approx(peer_loss, abs=1e-6)
    assert gradients.keys() == peer_gradients.keys()
    for name, gradient in gradients.items():
        assert (gradient - peer_gradients[name]).abs().max() < 1e-6, name


def test_prompts_with_unequal_k_weigh_the_same_here_and_by_their_pairs_in_trl(
    model: RewardModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """InstructGPT divides by C(K, 2) for each prompt; TRL has a flat list of pairs: 1 and 6 of them here."""
    few, many = ranking(5, [4, 4], seed=1), ranking(5, [4, 2, 6, 3], seed=2)
    alone, gradients = zip(*(ours(model, [one]) for one in (few, many)), strict=True)
    loss, gradient = ours(model, [few, many])
    assert loss == pytest.approx(sum(alone) / 2, abs=1e-6)
    for name, together in gradient.items():
        assert (together - (gradients[0][name] + gradients[1][name]) / 2).abs().max() < 1e-5, name
    peer_loss, _ = theirs(model, tokenizer, [few, many], tmp_path)
    assert peer_loss == pytest.approx((1 * alone[0] + 6 * alone[1]) / 7, abs=1e-6)
    assert abs(alone[0] - alone[1]) > 1e-3  # or the two means would not differ
