import math

import pytest
import torch
from torch import nn

from modelzoo.config import TrainingConfig
from modelzoo.optimizer import NonFinite, adamw, clip_gradients, require_finite
from modelzoo.schedules import cosine_rate
from modelzoo.train_ppo import warmup_rate


def layer(gradient: float, *, weight_decay: float = 0.0, adam_eps: float = 1e-3) -> tuple[nn.Linear, torch.optim.AdamW]:
    """One weight and one gain, both 1, with the same gradient."""
    model = nn.Linear(1, 1)
    for weight in model.parameters():
        nn.init.ones_(weight)
        weight.grad = torch.full_like(weight, gradient)
    return model, adamw(model, TrainingConfig(learning_rate=0.01, weight_decay=weight_decay, adam_eps=adam_eps))


@pytest.mark.parametrize("gradient", [1.0, 1e-3, -1e-3, 1e-5])
def test_first_step_has_epsilon_where_pytorch_puts_it(gradient: float) -> None:
    """lr g / (|g| + eps), the moments corrected first; TensorFlow corrects none, so its eps acts 4.5 times as large."""
    model, optimizer = layer(gradient)
    optimizer.step()
    assert 1 - model.weight.item() == pytest.approx(0.01 * gradient / (abs(gradient) + 1e-3), rel=1e-4, abs=1e-7)


def test_second_step_has_the_moments_of_instructgpt() -> None:
    model, optimizer = layer(1.0, adam_eps=1e-8)
    optimizer.step()
    before = model.weight.item()
    model.weight.grad.fill_(3.0)
    optimizer.step()
    first = (0.9 * 0.1 * 1 + 0.1 * 3) / (1 - 0.9**2)
    second = (0.95 * 0.05 * 1 + 0.05 * 9) / (1 - 0.95**2)
    assert before - model.weight.item() == pytest.approx(0.01 * first / math.sqrt(second), rel=1e-4)


def test_weight_decay_is_decoupled_and_on_matrices_only() -> None:
    model, optimizer = layer(0.0, weight_decay=0.1)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - 0.01 * 0.1)
    assert model.bias.item() == 1


def test_gradients_are_scaled_down_to_the_norm_and_never_up() -> None:
    model, _ = layer(3.0)
    assert clip_gradients(model, 1.0, "policy") == pytest.approx(math.sqrt(18))
    assert model.weight.grad.item() == pytest.approx(math.sqrt(0.5), rel=1e-5)
    assert clip_gradients(model, 10.0, "policy") == pytest.approx(1, rel=1e-5)
    assert model.weight.grad.item() == pytest.approx(math.sqrt(0.5), rel=1e-5)


@pytest.mark.parametrize("gradient", [math.nan, math.inf])
def test_gradients_that_are_no_numbers_are_refused_by_name(gradient: float) -> None:
    model, _ = layer(gradient)
    with pytest.raises(NonFinite, match="gradients of the policy"):
        clip_gradients(model, 1.0, "policy")


def test_weights_that_are_no_numbers_are_refused_by_name() -> None:
    model, _ = layer(1.0)
    require_finite([model])
    nn.init.constant_(model.bias, math.nan)
    with pytest.raises(NonFinite, match="weights bias"):
        require_finite([model])


def test_cosine_goes_from_the_peak_to_its_share_over_half_a_wave() -> None:
    rates = [cosine_rate(step, 101, peak=2.0, warmup_ratio=0.0, final_ratio=0.1) for step in range(101)]
    assert (rates[0], rates[50], rates[100]) == (2.0, pytest.approx(1.1), pytest.approx(0.2))
    warmed = [cosine_rate(step, 100, peak=2.0, warmup_ratio=0.1, final_ratio=0.1) for step in range(100)]
    assert warmed[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(warmed) == 2.0 and warmed[-1] == pytest.approx(0.2)


def test_ppo_warms_up_from_a_tenth_and_stays() -> None:
    rates = [warmup_rate(step, peak=1.0, warmup_steps=10) for step in range(12)]
    assert rates == pytest.approx([0.1 + 0.09 * step for step in range(10)] + [1.0, 1.0])
