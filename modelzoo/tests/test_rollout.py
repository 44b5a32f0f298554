"""What PPO's rollouts and updates take for granted: nothing random in a forward, nothing counted in padding."""

import copy
import math

import pytest
import torch

from modelzoo.batches import Example, collate, seeded
from modelzoo.logprobs import response_logprobs, response_values
from modelzoo.optimizer import adamw
from modelzoo.rollout import Models, Rollout
from modelzoo.tests.conftest import Train, config_of, rolled_out
from modelzoo.tokenizer import Tokenizer
from modelzoo.train_ppo import (
    add_policy_gradient,
    add_pretraining_gradient,
    add_value_gradient,
    ppo_state,
    update,
)


@pytest.mark.parametrize("training", [True, False])
def test_two_forwards_are_bit_equal_in_training_mode_too(models: Models, training: bool) -> None:
    batch = collate([Example([5, 6, 7], [8, 9, 10]), Example([5], [6])], models.tokenizer.pad_id)
    for model in (models.policy, models.reference):
        model.train(training)
        assert torch.equal(response_logprobs(model, batch), response_logprobs(model, batch))
    for model in (models.reward, models.value):
        model.train(training)
        assert torch.equal(response_values(model, batch), response_values(model, batch))


def test_whitened_rewards_have_variance_1_and_the_mean_they_had(models: Models) -> None:
    rewards = []
    for whitened in (False, True):
        config = config_of(whiten_rewards=whitened, gamma=1.0, gae_lambda=1.0, missing_eos_penalty=3.0)
        rollout = rolled_out(models, config)
        said, returns = rollout.batch.response, rollout.returns
        after = torch.cat([returns[:, 1:], torch.zeros(8, 1)], dim=1)
        rewards.append((returns - after)[said])  # undiscounted, a return is the sum of the rewards from here
    plain, scaled = rewards
    assert scaled.mean().item() == pytest.approx(plain.mean().item(), abs=1e-5)
    assert scaled.var(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert plain.var(correction=0).item() != pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("micro_batch_size", [1, 8])
def test_metrics_are_means_over_response_tokens_whatever_the_padding_holds(
    models: Models, micro_batch_size: int
) -> None:
    config = config_of(micro_batch_size=micro_batch_size, clip_range=0.05)
    rollout = rolled_out(models, config)
    said = rollout.batch.response
    with torch.no_grad():
        for weight in (*models.policy.parameters(), *models.value.parameters()):
            weight.add_(torch.randn(weight.shape, generator=seeded("moved")), alpha=0.02)
    dirty = Rollout(rollout.batch, rollout.finished, rollout.scores, *(t.where(said, -9.0) for t in rollout[3:]))
    found = add_policy_gradient(models, dirty, list(range(8)), config)
    found["value_loss"] = add_value_gradient(models, dirty, list(range(8)), config)
    expected = dict.fromkeys(found, 0.0)
    for row in range(8):  # alone, so that nothing is padded
        part = rollout.select([row])
        mask = part.batch.response
        with torch.no_grad():
            logprobs, values = response_logprobs(models.policy, part.batch), response_values(models.value, part.batch)
        old, new = part.logprobs[mask], logprobs[mask]
        ratio, advantages = (new - old).exp(), part.advantages[mask]
        clipped = ratio.clamp(0.95, 1.05)
        near = part.values[mask] + (values - part.values)[mask].clamp(-0.2, 0.2)
        errors = torch.maximum((values[mask] - part.returns[mask]) ** 2, (near - part.returns[mask]) ** 2) / 2
        sums = {
            "policy_loss": -torch.minimum(ratio * advantages, clipped * advantages),
            "value_loss": errors,
            "approx_kl": ratio - 1 - (new - old),
            "ratio": ratio,
            "clip_fraction": ((ratio - 1).abs() > 0.05).float(),
        }
        for name, terms in sums.items():
            expected[name] += terms.sum().item() / int(said.sum())
    assert 0 < expected["clip_fraction"] < 1 and not rollout.batch.mask.all()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_entropy_of_an_untrained_policy_is_that_of_any_token(train: Train, tokenizer: Tokenizer) -> None:
    first = train("ppo", {"episodes": 8}).metrics[0]
    assert first["entropy"] == pytest.approx(math.log(tokenizer.vocab_size), abs=0.02)


def test_ppo_and_pretraining_mix_share_one_optimizer_step(models: Models) -> None:
    """Adam forgets the scale of a gradient, so a step of its own would give the mix the weight it likes."""
    config = config_of(ptx_coef=27.8, max_grad_norm=1e6, adam_eps=1e-3)
    rollout, text, rows = rolled_out(models, config), [Example([5], [6, 7, 8])], list(range(8))
    expected = copy.deepcopy(models)
    add_policy_gradient(expected, rollout, rows, config)
    add_pretraining_gradient(expected, text, config)
    adamw(expected.policy, config).step()
    update(models, ppo_state(models, config), rollout, rows, text, config, None)
    for weight, moved in zip(models.policy.parameters(), expected.policy.parameters(), strict=True):
        assert torch.allclose(weight, moved, rtol=0, atol=1e-8)
