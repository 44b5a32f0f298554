"""Disturbed embeddings: how far they are moved, that it hurts, and that nothing moved is plain training."""

from typing import Any

import pytest
import torch
from torch import Tensor

from modelzoo.adversarial import norms, passes
from modelzoo.batches import Batch, Example, collate, seeded
from modelzoo.config import SFTConfig, build
from modelzoo.data import encode_demonstrations, encode_rankings
from modelzoo.logprobs import response_logprobs
from modelzoo.rankings import ranking_loss
from modelzoo.shared_prefix import segments, shared_scores
from modelzoo.tests.conftest import Train, demonstration, ranking, tiny_policy
from modelzoo.tests.test_resume import assert_same_model
from modelzoo.tokenizer import Tokenizer
from modelzoo.train_reward import scored
from modelzoo.transformer import RewardModel, Transformer

PAD = 3
EXAMPLES = [Example([5, 6, 7], [8, 9, 10, 11]), Example([12], [13, 14]), Example([20, 21], [22, 23, 24, 25, 26])]


def config_of(method: str, **params: Any) -> SFTConfig:
    return build(SFTConfig, {"adversarial": method, **params})


class Watched:
    """What a pass of training saw: the embeddings it used, less the clean ones, and the loss."""

    def __init__(self, policy: Transformer, config: SFTConfig, batch: Batch, step: int = 0) -> None:
        self.deltas: list[Tensor] = []
        self.losses: list[float] = []
        self.shares: list[float] = []
        policy.zero_grad()
        for share in passes(policy.model.embed_tokens, batch.segments, config, step):
            hook = policy.model.layers[0].register_forward_pre_hook(
                lambda layer, inputs: self.deltas.append(inputs[0].detach() - self.clean)
            )
            self.clean = policy.model.embed_tokens.weight[batch.tokens].detach()
            loss = -response_logprobs(policy, batch).mean()
            (share * loss).backward()
            hook.remove()
            self.losses.append(loss.item())
            self.shares.append(share)
        self.gradients = [weight.grad.clone() for weight in policy.parameters()]


def lengths(delta: Tensor) -> Tensor:
    return delta.flatten(1).norm(dim=1)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 3.0])
def test_fgm_moves_every_sequence_by_exactly_epsilon_and_no_pad(policy: Transformer, epsilon: float) -> None:
    batch = collate(EXAMPLES, PAD)
    seen = Watched(policy, config_of("fgm", adversarial_epsilon=epsilon), batch)
    clean, moved = seen.deltas
    assert torch.equal(clean, torch.zeros_like(clean))
    assert lengths(moved).tolist() == pytest.approx([epsilon] * 3, rel=1e-4)
    assert moved[~batch.mask].abs().max() == 0


def test_fgm_moves_along_the_gradient_of_the_embeddings(policy: Transformer) -> None:
    batch = collate(EXAMPLES, PAD)
    embedded = policy.model.embed_tokens(batch.tokens).detach().requires_grad_(True)
    hook = policy.model.embed_tokens.register_forward_hook(lambda *_: embedded)
    (-response_logprobs(policy, batch).mean()).backward()
    hook.remove()
    expected = embedded.grad / lengths(embedded.grad)[:, None, None]
    seen = Watched(policy, config_of("fgm", adversarial_epsilon=2.0), batch)
    assert torch.allclose(seen.deltas[1], 2.0 * expected, atol=1e-6)


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_freelb_climbs_within_its_radius_and_trains_on_every_step(policy: Transformer, steps: int) -> None:
    batch = collate(EXAMPLES, PAD)
    config = config_of("freelb", adversarial_epsilon=0.5, adversarial_steps=steps)
    seen = Watched(policy, config, batch)
    assert len(seen.losses) == steps and sum(seen.shares) == pytest.approx(1)
    assert all((lengths(delta) <= 0.5 * (1 + 1e-4)).all() for delta in seen.deltas)
    assert all((lengths(delta) > 0.1).all() for delta in seen.deltas)  # it starts at random, not at 0
    assert all(delta[~batch.mask].abs().max() == 0 for delta in seen.deltas)
    assert seen.losses == sorted(seen.losses)


def test_neftune_noise_is_uniform_within_alpha_over_the_root_of_length_times_width(policy: Transformer) -> None:
    batch = collate([Example([5] * 20, [8] * 44)], PAD)
    seen = Watched(policy, config_of("neftune", adversarial_epsilon=5.0), batch)
    (noise,) = seen.deltas
    bound = 5.0 / (64 * 32) ** 0.5
    assert 0.99 * bound < noise.abs().max() <= bound * (1 + 1e-5)
    assert noise.mean().item() == pytest.approx(0, abs=0.05 * bound)
    assert noise.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_noise_depends_on_seed_step_and_text_and_on_nothing_else(policy: Transformer) -> None:
    def noise(examples: list[Example], step: int = 0, seed: int = 0) -> Tensor:
        config = config_of("neftune", seed=seed)
        return Watched(policy, config, collate(examples, PAD), step).deltas[0][0, :3]

    alone = noise(EXAMPLES[1:2])
    assert torch.allclose(alone, noise([EXAMPLES[1], EXAMPLES[2]]), atol=1e-7)  # a longer row beside it: padding
    assert not torch.allclose(alone, noise(EXAMPLES[1:2], step=1), atol=1e-3)
    assert not torch.allclose(alone, noise(EXAMPLES[1:2], seed=1), atol=1e-3)


@pytest.mark.parametrize("epsilon", [0.0, 1e-30])  # nothing at all, and too little to change a float32
@pytest.mark.parametrize(("method", "steps"), [("fgm", 2), ("freelb", 2), ("freelb", 4), ("neftune", 2)])
def test_moving_by_nothing_gives_the_plain_gradient_bit_for_bit(
    policy: Transformer, method: str, steps: int, epsilon: float
) -> None:
    batch = collate(EXAMPLES, PAD)
    plain = Watched(policy, config_of("none"), batch)
    config = config_of(method, adversarial_epsilon=epsilon, adversarial_steps=steps)
    still = Watched(policy, config, batch)
    assert len(still.losses) == (1 if method == "neftune" or not epsilon else steps)
    assert all(torch.equal(a, b) for a, b in zip(plain.gradients, still.gradients, strict=True))


@pytest.mark.parametrize("method", ["fgm", "freelb", "neftune"])
@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_a_run_with_epsilon_0_is_the_baseline_bit_for_bit(train: Train, stage: str, method: str) -> None:
    plain = train(stage, out="plain")
    still = train(stage, {"adversarial": method, "adversarial_epsilon": 0.0}, out="still")
    moved = train(stage, {"adversarial": method, "adversarial_epsilon": 1.0}, out="moved")
    assert_same_model(plain, still)
    assert plain.series("loss") == still.series("loss")
    with pytest.raises(AssertionError):
        assert_same_model(plain, moved)


@pytest.mark.parametrize("method", ["fgm", "freelb"])
def test_adversarial_loss_is_above_the_clean_one_on_at_least_95_percent_of_batches(
    tokenizer: Tokenizer, method: str
) -> None:
    above, of = 0, 0
    for number in range(60):
        policy = tiny_policy(tokenizer, seed=number)
        rows, _ = encode_demonstrations([demonstration(number * 4 + i) for i in range(4)], tokenizer, 128)
        config = config_of(method, adversarial_epsilon=0.1, seed=number)
        batch = collate(rows, PAD)
        with torch.no_grad():
            clean = -response_logprobs(policy, batch).mean().item()
        above += Watched(policy, config, batch).losses[-1] >= clean
        of += 1
    assert above >= 0.95 * of


@pytest.mark.parametrize("method", ["fgm", "freelb"])
def test_a_ranking_loss_rises_too_on_at_least_95_percent_of_rankings(tokenizer: Tokenizer, method: str) -> None:
    rankings, _ = encode_rankings([ranking(number) for number in range(60)], tokenizer, 128, ties="drop")
    above = 0
    for number, one in enumerate(rankings):
        model = RewardModel.from_policy(tiny_policy(tokenizer, seed=number), seeded(number))
        config = config_of(method, adversarial_epsilon=0.1)
        with torch.no_grad():
            ((scores, tiers),) = scored(model, [one])
            clean = ranking_loss(scores, tiers).item()
        losses = []
        for share in passes(model.model.embed_tokens, segments([one.examples], scores.device), config, 0):
            ((scores, tiers),) = scored(model, [one])
            loss = ranking_loss(scores, tiers)
            (share * loss).backward()
            losses.append(loss.item())
        above += losses[-1] >= clean
    assert above >= 0.95 * len(rankings)


def test_in_a_ranking_the_prompt_and_each_completion_are_moved_by_epsilon(policy: Transformer) -> None:
    model = RewardModel.from_policy(policy, seeded("head"))
    examples = [Example([5, 6], [7, 8]), Example([5, 6], [9, 10, 11]), Example([5, 6], [12])]
    belongs = segments([examples, examples[:2]], torch.device("cpu"))
    assert belongs.tolist() == [[0, 0, 1, 1, 2, 2, 2, 3, 4, 4, 5, 5, 6, 6, 6]]
    config, seen = config_of("fgm", adversarial_epsilon=0.3), []
    tiers = torch.tensor([1, 2, 3])
    for share in passes(model.model.embed_tokens, belongs, config, 0):
        hook = model.model.layers[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach()))
        scores, others = shared_scores(model, [examples, examples[:2]])
        (share * (ranking_loss(scores, tiers) + ranking_loss(others, tiers[:2]))).backward()
        hook.remove()
    assert norms(seen[1] - seen[0], belongs)[0, :, 0].tolist() == pytest.approx([0.3] * 15, rel=1e-4)


def test_an_adversary_leaves_nothing_behind(policy: Transformer) -> None:
    batch = collate(EXAMPLES, PAD)
    before = policy(batch.tokens)
    Watched(policy, config_of("freelb"), batch)
    assert torch.equal(policy(batch.tokens), before)
    assert not policy.model.embed_tokens._forward_hooks


@pytest.mark.parametrize("method", ["fgm", "freelb", "neftune"])
def test_adapters_and_adversaries_work_together(train: Train, method: str) -> None:
    params = {"lora_rank": 4, "adversarial": method, "epochs": 20, "learning_rate": 1e-2}
    losses = train("reward", params).series("loss")
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("size", [1, 16])
def test_micro_batch_size_changes_neither_loss_nor_gradient_of_a_disturbed_run(train: Train, size: int) -> None:
    params = {"adversarial": "freelb", "batch_size": 16}
    whole, cut = (train("sft", {**params, "micro_batch_size": s}, out=f"out-{s}-{size}") for s in (5, size))
    for name in ("loss", "grad_norm"):
        assert cut.series(name)[0] == pytest.approx(whole.series(name)[0], rel=1e-4)
