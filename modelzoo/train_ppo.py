"""PPO against the reward model (InstructGPT, step 3).

The policy answers prompts, the reward model scores the answers, a KL penalty holds the policy near its reference, and,
as an option, the gradient of a pretraining corpus is mixed in (PPO-ptx, equation 2). The value model starts as the
reward model. `prepare_ppo.py` reads what this needs from files.
"""

from collections.abc import Callable, Sequence

from torch import nn

from modelzoo.batches import Example, collate, endless_indices, epoch_order, length_of, micro_batches
from modelzoo.config import PPOConfig
from modelzoo.logprobs import response_logprobs, response_values
from modelzoo.losses import adapted_kl_coef, kl_k3, policy_losses, value_losses
from modelzoo.optimizer import adamw, clip_gradients, independent, set_learning_rate, update_average
from modelzoo.progress import Progress, TrainingState
from modelzoo.rollout import Kept, Models, Rollout, collect, minibatches, rows_alike
from modelzoo.transformer import Transformer

Sample = Callable[[list[list[int]], int], tuple[list[Example], list[bool]]]
"""The policy speaks: (prompts, step) -> a response to each, and whether it ended. Equal inputs give equal responses."""


def ppo_steps(config: PPOConfig) -> int:
    return -(-config.episodes // config.batch_size)


def ppo_state(models: Models, config: PPOConfig) -> TrainingState:
    """What PPO changes: policy, value model, their optimizers, the policy's moving average and the KL weight."""
    trained: dict[str, nn.Module] = {"policy": models.policy, "value": models.value}
    if config.ema_decay:
        trained["average"] = independent(models.policy)
    optimizers = {"policy": adamw(models.policy, config), "value": adamw(models.value, config)}
    return TrainingState(trained, optimizers, numbers={"kl_coef": config.kl_coef, "updates": 0})


def train_ppo(
    models: Models,
    state: TrainingState,
    prompts: list[list[int]],
    config: PPOConfig,
    *,
    sample: Sample,
    run: Progress,
    corpus: Sequence[Example] = (),
) -> None:
    """Improve the policy in `state`, made by `ppo_state`, from where it stands to the last step."""
    numbers, average = state.numbers, state.models.get("average")
    for step in range(state.step, ppo_steps(config)):
        for name, peak in (("policy", config.learning_rate), ("value", config.value_learning_rate)):
            set_learning_rate(state.optimizers[name], warmup_rate(step, peak=peak, warmup_steps=config.warmup_steps))
        chosen = endless_indices(len(prompts), step * config.batch_size, config.batch_size, config.seed)
        examples, finished = sample([prompts[i] for i in chosen], step)
        rollout, kept = collect(models, examples, finished, config, numbers["kl_coef"], run.check_stop)
        run.check_stop()  # until here nothing has changed: a step that was stopped is done again from its start
        kl = rollout.kl.sum(dim=1).mean().item()
        if config.kl_stop and kl > config.kl_stop:
            run.warn(f"Ended after step {step}: KL per response reached {kl:.2f}, over kl_stop of {config.kl_stop:g}.")
            break

        updates: list[dict[str, float]] = []
        for epoch in range(config.inner_epochs):
            order = list(range(len(examples)))
            if epoch:  # the first pass cuts the rollout as `collect` did, so its first ratio is exactly 1
                order = epoch_order(len(examples), config.seed, 1000 * step + epoch)
            for rows in minibatches(order, config.minibatch_size):
                pretraining = _pretraining_batch(corpus, config, int(numbers["updates"]))
                updates.append(update(models, state, rollout, rows, pretraining, config, kept))
                kept = None  # it was of the weights before this update
                numbers["updates"] += 1
                if average:
                    update_average(average, models.policy, decay=config.ema_decay, updates=int(numbers["updates"]))
        said = " ".join(models.tokenizer.decode(examples[0].response).split())
        run.log(f"said: {said[:100]!r} (reward {rollout.scores[0].item():.2f})")
        described = _described(rollout, updates) | {"kl": kl, "kl_coef": numbers["kl_coef"]}
        if config.kl_target:
            numbers["kl_coef"] = adapted_kl_coef(
                numbers["kl_coef"], kl, target=config.kl_target, episodes=len(examples), horizon=config.kl_horizon
            )
        run.end_step(described)


def finished_policy(state: TrainingState) -> Transformer:
    """What the run leaves: the moving average of the policy where there is one."""
    policy = state.models.get("average", state.models["policy"])
    assert isinstance(policy, Transformer)
    return policy


def update(
    models: Models,
    state: TrainingState,
    rollout: Rollout,
    rows: list[int],
    pretraining: Sequence[Example],
    config: PPOConfig,
    kept: Kept | None,
) -> dict[str, float]:
    """One optimizer step of each model on a minibatch, in turn, so that only one of them has gradients at a time."""

    def step(name: str, model: nn.Module) -> float:
        models.team.sum_gradients(model)
        norm = clip_gradients(model, config.max_grad_norm, f"{name} model")
        state.optimizers[name].step()
        state.optimizers[name].zero_grad()
        return norm

    metrics = {"value_loss": add_value_gradient(models, rollout, rows, config, kept)}
    step("value", models.value)
    metrics |= add_policy_gradient(models, rollout, rows, config, kept)
    if pretraining:
        metrics["ptx_loss"] = add_pretraining_gradient(models, pretraining, config)
    metrics["grad_norm"] = step("policy", models.policy)
    return metrics


def add_policy_gradient(
    models: Models, rollout: Rollout, rows: list[int], config: PPOConfig, kept: Kept | None = None
) -> dict[str, float]:
    """Gradient of the clipped surrogate; every sum is divided by the tokens of all `rows`, however they are cut."""
    tokens = int(rollout.batch.response[rows].sum())
    sums = dict.fromkeys(("policy_loss", "approx_kl", "ratio", "clip_fraction"), 0.0)
    for group in rows_alike(models.team, rollout.batch, rows, config.micro_batch_size):
        part = rollout.select(group)
        said = part.batch.response
        logprobs = (
            kept.logprobs if kept else response_logprobs(models.policy, part.batch, temperature=config.temperature)
        )
        losses, ratio = policy_losses(logprobs, part.logprobs, part.advantages, config.clip_range)
        (losses[said].sum() / tokens).backward()
        logprobs, losses, ratio = logprobs.detach(), losses.detach(), ratio.detach()
        sums["policy_loss"] += losses[said].sum().item()
        sums["approx_kl"] += kl_k3(part.logprobs, logprobs)[said].sum().item()
        sums["ratio"] += ratio[said].sum().item()
        sums["clip_fraction"] += ((ratio - 1).abs() > config.clip_range)[said].sum().item()
    return {name: value / tokens for name, value in zip(sums, models.team.sum(*sums.values()), strict=True)}


def add_value_gradient(
    models: Models, rollout: Rollout, rows: list[int], config: PPOConfig, kept: Kept | None = None
) -> float:
    """Gradient of the clipped squared error, weighed by `value_coef`; returns the mean error of a token."""
    tokens = int(rollout.batch.response[rows].sum())
    total = 0.0
    for group in rows_alike(models.team, rollout.batch, rows, config.micro_batch_size):
        part = rollout.select(group)
        values = kept.values if kept else response_values(models.value, part.batch)
        errors = value_losses(values, part.values, part.returns, config.value_clip_range)[part.batch.response]
        (config.value_coef * errors.sum() / tokens).backward()
        total += errors.detach().sum().item()
    return models.team.sum(total)[0] / tokens


def add_pretraining_gradient(models: Models, pretraining: Sequence[Example], config: PPOConfig) -> float:
    """Add ptx_coef times the gradient of the mean loss on corpus tokens to what PPO left; returns that loss.

    One buffer and one optimizer step for both: Adam forgets the scale of a gradient, so two steps would lose ptx_coef.
    """
    tokens = sum(len(example.response) for example in pretraining)
    total = 0.0
    share = models.team.share(pretraining, length_of)
    for part in micro_batches(share, config.micro_batch_size, length_of):
        batch = collate(part, models.tokenizer.pad_id, models.device)
        loss = -response_logprobs(models.policy, batch).sum() / tokens
        (config.ptx_coef * loss).backward()
        total += loss.item()
    return models.team.sum(total)[0]


def warmup_rate(step: int, *, peak: float, warmup_steps: int) -> float:
    """Constant after a rise from a tenth of the peak (InstructGPT, appendix C.4)."""
    if step >= warmup_steps:
        return peak
    return peak * (0.1 + 0.9 * step / warmup_steps)


def _pretraining_batch(corpus: Sequence[Example], config: PPOConfig, updates: int) -> list[Example]:
    if not corpus:
        return []
    count = config.minibatch_size * config.ptx_ratio
    return [corpus[i] for i in endless_indices(len(corpus), updates * count, count, config.seed)]


def _described(rollout: Rollout, updates: list[dict[str, float]]) -> dict[str, float]:
    """The metrics of a step: of the rollout, and the means over its optimizer steps."""
    said = rollout.batch.response
    return {
        "reward": rollout.scores.mean().item(),
        "finished": rollout.finished.float().mean().item(),
        "response_length": said.sum(dim=1).float().mean().item(),
        "entropy": rollout.entropy[said].mean().item(),
        **{name: sum(update[name] for update in updates) / len(updates) for name in updates[0]},
    }
