"""PPO against the reward model (InstructGPT, step 3).

The policy answers prompts, the reward model scores the answers, a KL penalty holds the policy near its reference, and,
as an option, the gradient of a pretraining corpus is mixed in (PPO-ptx, equation 2). The value model starts as the
reward model.
"""

import copy

import torch

from modelzoo.batches import Example, collate, endless_indices, epoch_order, micro_batches
from modelzoo.checkpoint import load_policy, load_reward_model, manifest_hash
from modelzoo.config import PPOConfig
from modelzoo.corpus import read_corpus, windows
from modelzoo.data import Snapshot, encode_prompts
from modelzoo.logprobs import response_logprobs, response_values
from modelzoo.losses import adapted_kl_coef, kl_k3, policy_losses, value_losses
from modelzoo.optimizer import adamw, clip_gradients, set_learning_rate, update_average, warmup_rate
from modelzoo.rollout import Models, Rollout, collect, minibatches, rows_alike, sample
from modelzoo.run import Run, owned
from modelzoo.selfcheck import check_models, require_same_tokenizer
from modelzoo.spec import BadInput
from modelzoo.state import TrainingState


def train_ppo(run: Run[PPOConfig]) -> dict[str, float]:
    """Improve a policy against a reward model with PPO."""
    spec, config = run.spec, run.config
    snapshot = Snapshot.open(spec.path("snapshot"))
    models, languages = _load_models(run)
    prompts = _prompts(run, snapshot, models)
    corpus, corpus_digest = _corpus(run, models)
    average = copy.deepcopy(models.policy) if config.ema_decay else None

    optimizers = {"policy": adamw(models.policy, config), "value": adamw(models.value, config)}
    trained = {"policy": models.policy, "value": models.value} | ({"average": average} if average else {})
    state = TrainingState(trained, optimizers, numbers={"kl_coef": config.kl_coef, "updates": 0})
    total = -(-config.episodes // config.batch_size)
    parents = {name: manifest_hash(spec.path(name)) for name in ("policy", "reward_model")}
    reference = manifest_hash(spec.reference or spec.path("policy"))
    run.begin(state, total, {"snapshot": snapshot.digest, "corpus": corpus_digest, "reference": reference, **parents})
    if config.warmup_steps >= total:
        run.log(f"the learning rate rises over {config.warmup_steps} steps: in {total} it does not reach its peak")
    check_models(run, models, prompts, reference_is_policy=state.step == 0 and not spec.reference)

    for step in range(state.step, total):
        for name, peak in (("policy", config.learning_rate), ("value", config.value_learning_rate)):
            set_learning_rate(optimizers[name], warmup_rate(step, peak=peak, warmup_steps=config.warmup_steps))
        chosen = endless_indices(len(prompts), step * config.batch_size, config.batch_size, config.seed)
        examples, finished = sample(models, [prompts[i] for i in chosen], config, step, run.stopping)
        rollout = collect(models, examples, finished, config, state.numbers["kl_coef"], run.check_stop)
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
                pretraining = _pretraining_batch(corpus, config, int(state.numbers["updates"]))
                updates.append(_update(run, models, optimizers, rollout, rows, pretraining))
                state.numbers["updates"] += 1
                if average:
                    count = int(state.numbers["updates"])
                    update_average(average, models.policy, decay=config.ema_decay, updates=count)
        run.log(_excerpt(models, examples[0], rollout.scores[0].item()))
        metrics = _described(rollout, updates) | {"kl": kl, "kl_coef": state.numbers["kl_coef"]}
        if config.kl_target:
            state.numbers["kl_coef"] = adapted_kl_coef(
                state.numbers["kl_coef"], kl, target=config.kl_target, episodes=len(examples), horizon=config.kl_horizon
            )
        run.end_step(metrics)

    run.export(
        average or models.policy,
        models.tokenizer,
        kind="policy",
        parents=[*parents.values()],
        snapshot=snapshot.digest,
        languages=languages,
        metrics=state.metrics,
    )
    return state.metrics


def _update(
    run: Run[PPOConfig],
    models: Models,
    optimizers: dict[str, torch.optim.AdamW],
    rollout: Rollout,
    rows: list[int],
    pretraining: list[Example],
) -> dict[str, float]:
    """One optimizer step of policy and value on a minibatch."""
    metrics = add_ppo_gradients(run, models, rollout, rows)
    if pretraining:
        metrics["ptx_loss"] = add_pretraining_gradient(run, models, pretraining)
    metrics["grad_norm"] = clip_gradients(models.policy, run.config.max_grad_norm, "policy")
    clip_gradients(models.value, run.config.max_grad_norm, "value model")
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    return metrics


def add_ppo_gradients(run: Run[PPOConfig], models: Models, rollout: Rollout, rows: list[int]) -> dict[str, float]:
    """Gradients of the clipped losses; every sum is divided by the token count of all `rows`, however they are cut."""
    config = run.config
    tokens = int(rollout.batch.response[rows].sum())
    sums = dict.fromkeys(("policy_loss", "value_loss", "approx_kl", "ratio", "clip_fraction"), 0.0)
    for group in rows_alike(rollout.batch, rows, config.micro_batch_size):
        part = rollout.select(group)
        said = part.batch.response
        logprobs = response_logprobs(models.policy, part.batch, temperature=config.temperature)
        losses, ratio = policy_losses(logprobs, part.logprobs, part.advantages, config.clip_range)
        (losses[said].sum() / tokens).backward()
        values = response_values(models.value, part.batch)
        errors = value_losses(values, part.values, part.returns, config.value_clip_range)
        (config.value_coef * errors[said].sum() / tokens).backward()
        with torch.no_grad():
            sums["policy_loss"] += losses[said].sum().item()
            sums["value_loss"] += errors[said].sum().item()
            sums["approx_kl"] += kl_k3(part.logprobs, logprobs)[said].sum().item()
            sums["ratio"] += ratio[said].sum().item()
            sums["clip_fraction"] += ((ratio - 1).abs() > config.clip_range)[said].sum().item()
    return {name: value / tokens for name, value in sums.items()}


def add_pretraining_gradient(run: Run[PPOConfig], models: Models, pretraining: list[Example]) -> float:
    """Add ptx_coef times the gradient of the mean loss on corpus tokens to what PPO left; returns that loss.

    One buffer and one optimizer step for both: Adam forgets the scale of a gradient, so two steps would lose ptx_coef.
    """
    tokens = sum(len(example.response) for example in pretraining)
    total = 0.0
    for part in micro_batches(pretraining, run.config.micro_batch_size, lambda example: len(example.tokens)):
        batch = collate(part, models.tokenizer.pad_id, run.device)
        loss = -response_logprobs(models.policy, batch).sum() / tokens
        (run.config.ptx_coef * loss).backward()
        total += loss.item()
    return total


def _load_models(run: Run[PPOConfig]) -> tuple[Models, list[str]]:
    """Policy, reference, reward and value model, each with weights of its own, and the policy's languages."""
    spec = run.spec
    policy, tokenizer, manifest = load_policy(spec.path("policy"))
    reference, reference_tokenizer, _ = load_policy(spec.reference or spec.path("policy"))
    reward, reward_tokenizer, _ = load_reward_model(spec.path("reward_model"))
    require_same_tokenizer(tokenizer, reward_tokenizer, "reward model")
    require_same_tokenizer(tokenizer, reference_tokenizer, "reference policy")
    owned(reward, run.device).requires_grad_(False)
    models = Models(
        policy=owned(policy, run.device),
        reference=owned(reference, run.device).requires_grad_(False),
        reward=reward,
        value=copy.deepcopy(reward).requires_grad_(True),
        tokenizer=tokenizer,
    )
    return models, manifest["languages"]


def _prompts(run: Run[PPOConfig], snapshot: Snapshot, models: Models) -> list[list[int]]:
    longest = min(model.config.max_position_embeddings for model in (models.policy, models.reward))
    room = run.longest(longest) - run.config.max_new_tokens
    rows = snapshot.rows("prompts.jsonl", split="train", languages=run.spec.languages)
    prompts, left_out = encode_prompts(rows, models.tokenizer, room)
    run.report("prompts", len(prompts), left_out)
    if not prompts:
        raise BadInput(
            f"The snapshot holds no prompt of at most {room} tokens in the chosen languages; "
            "approve more prompts, freeze a new snapshot, or raise max_length."
        )
    return prompts


def _corpus(run: Run[PPOConfig], models: Models) -> tuple[list[Example], str | None]:
    """Windows of the pretraining corpus and its hash; none where the mix is off."""
    if not run.config.ptx_coef:
        return [], None
    if run.spec.corpus is None:
        raise BadInput('A ptx_coef above 0 needs text to mix in; name a JSONL file in "corpus".')
    stream, digest = read_corpus(run.spec.corpus, models.tokenizer)
    cut = windows(stream, run.config.ptx_length)
    run.log(f"{len(cut)} windows of the pretraining corpus")
    if not cut:
        raise BadInput(f"The corpus {run.spec.corpus} holds no text; name one that does, or set ptx_coef to 0.")
    return cut, digest


def _pretraining_batch(corpus: list[Example], config: PPOConfig, updates: int) -> list[Example]:
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


def _excerpt(models: Models, example: Example, score: float) -> str:
    said = " ".join(models.tokenizer.decode(example.response).split())
    return f"said: {said[:100]!r} (reward {score:.2f})"
