"""Direct preference optimisation (Rafailov et al., 2305.18290): the simple baseline to compare PPO with.

The reward of a response is implicit in the policy itself, beta * (log pi(response) - log pi_ref(response)), and the
loss is the reward model's, on that reward. The reference is the policy the run starts from.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from modelzoo.batches import Example, collate, step_indices
from modelzoo.checkpoint import load_policy, manifest_hash
from modelzoo.config import DPOConfig
from modelzoo.data import Snapshot, encode_rankings
from modelzoo.logprobs import response_logprobs
from modelzoo.lora import adapted, merged
from modelzoo.optimizer import adamw, clip_gradients, set_learning_rate
from modelzoo.progress import TrainingState
from modelzoo.rankings import Ranking, pair_accuracy, ranking_loss, tokens_of, whole_rankings
from modelzoo.run import Run, owned
from modelzoo.schedules import cosine_rate
from modelzoo.selfcheck import check_chat_template, check_endings, check_rows
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import Transformer


class Judged(NamedTuple):
    """The K completions of one prompt, their tiers (K,), and the reference's log-probability of each, (K,)."""

    examples: list[Example]
    tiers: Tensor
    reference: Tensor


def train_dpo(run: Run[DPOConfig]) -> dict[str, float]:
    """Improve a policy on rankings directly, without a reward model (DPO)."""
    spec, config = run.spec, run.config
    snapshot = Snapshot.open(spec.path("snapshot"))
    policy, tokenizer, manifest = load_policy(spec.path("policy"))
    policy = adapted(owned(policy, run.device), config)
    check_chat_template(run, tokenizer)
    rankings, heldout = _rankings(run, snapshot, tokenizer, policy.config.max_position_embeddings)

    steps_per_epoch = -(-len(rankings) // config.batch_size)
    total = config.epochs * steps_per_epoch
    first_epoch = [step_indices(len(rankings), config.batch_size, config.seed, step) for step in range(steps_per_epoch)]
    judged = _judged(run, policy, rankings, first_epoch, tokenizer.pad_id)
    judged_heldout = _judged(run, policy, heldout, [list(range(len(heldout)))], tokenizer.pad_id)
    optimizer = adamw(policy, config)
    state = TrainingState(models={"policy": policy}, optimizers={"policy": optimizer})
    parent = manifest_hash(spec.path("policy"))
    run.begin(state, total, {"snapshot": snapshot.digest, "policy": parent})

    for step in range(state.step, total):
        batch = [judged[i] for i in step_indices(len(rankings), config.batch_size, config.seed, step)]
        rate = cosine_rate(
            step, total, peak=config.learning_rate, warmup_ratio=config.warmup_ratio, final_ratio=config.final_lr_ratio
        )
        set_learning_rate(optimizer, rate)
        loss, margin, right, pairs = 0.0, 0.0, 0.0, 0.0
        for part in whole_rankings(run.processes.share(batch, tokens_of), config.micro_batch_size):
            micro_loss = torch.zeros((), device=run.device)
            rewards_of = implicit_rewards(policy, part, config.beta, tokenizer.pad_id)
            for ranking, rewards in zip(part, rewards_of, strict=True):
                micro_loss = micro_loss + ranking_loss(rewards, ranking.tiers)
                margin += mean_margin(rewards.detach(), ranking.tiers) / len(batch)
                won, of = pair_accuracy(rewards.detach(), ranking.tiers)
                right, pairs = right + won, pairs + of
            (micro_loss / len(batch)).backward()
            loss += micro_loss.item() / len(batch)
        loss, margin, right, pairs = run.processes.sum(loss, margin, right, pairs)
        run.processes.sum_gradients(policy)
        grad_norm = clip_gradients(policy, config.max_grad_norm, "policy")
        optimizer.step()
        optimizer.zero_grad()
        run.end_step(
            {"loss": loss, "margin": margin, "accuracy": right / pairs, "learning_rate": rate, "grad_norm": grad_norm}
        )
        if state.step % steps_per_epoch == 0 and state.step < total:
            run.log_metrics(_evaluate(run, policy, judged_heldout, tokenizer.pad_id))

    heldout_metrics = _evaluate(run, policy, judged_heldout, tokenizer.pad_id)
    run.log_metrics(heldout_metrics)
    metrics = state.metrics | heldout_metrics
    run.export(
        merged(policy),
        tokenizer,
        kind="policy",
        parents=[parent],
        snapshot=snapshot.digest,
        languages=manifest["languages"],
        metrics=metrics,
    )
    return metrics


def implicit_rewards(policy: Transformer, part: list[Judged], beta: float, pad_id: int) -> list[Tensor]:
    """beta * log(pi / pi_ref) of some rankings' completions, each (K,), in one forward (equation 5 without log Z)."""
    logprobs = _logprobs(policy, [example for ranking in part for example in ranking.examples], pad_id)
    rewards = beta * (logprobs - torch.cat([ranking.reference for ranking in part]))
    return list(rewards.split([len(ranking.examples) for ranking in part]))


def mean_margin(rewards: Tensor, tiers: Tensor) -> float:
    """By how much preferred completions lead, a mean over the untied pairs of one prompt; both (K,)."""
    return (rewards[:, None] - rewards[None, :])[tiers[:, None] < tiers[None, :]].mean().item()


def _logprobs(policy: Transformer, examples: list[Example], pad_id: int) -> Tensor:
    """log pi(response | prompt) of each example, (B,)."""
    device = policy.model.embed_tokens.weight.device
    return response_logprobs(policy, collate(examples, pad_id, device)).sum(dim=1)


@torch.no_grad()
def _judged(
    run: Run[DPOConfig], policy: Transformer, rankings: list[Ranking], batches: list[list[int]], pad_id: int
) -> list[Judged]:
    """Every ranking with the reference's log-probabilities, computed once, while the policy is the reference.

    Rows are cut and padded as in the first epoch, so that an unchanged policy gives the same bits there: in the first
    step every implicit reward is exactly 0.
    """
    judged: list[Judged] = []
    for batch in batches:
        for part in whole_rankings([rankings[i] for i in batch], run.config.micro_batch_size):
            run.check_stop()
            logprobs = _logprobs(policy, [example for ranking in part for example in ranking.examples], pad_id)
            references = logprobs.split([len(ranking.examples) for ranking in part])
            for ranking, reference in zip(part, references, strict=True):
                judged.append(Judged(ranking.examples, torch.tensor(ranking.tiers, device=run.device), reference))
    order = [i for batch in batches for i in batch]
    return [judged[place] for place in sorted(range(len(order)), key=order.__getitem__)]


def _rankings(
    run: Run[DPOConfig], snapshot: Snapshot, tokenizer: Tokenizer, positions: int
) -> tuple[list[Ranking], list[Ranking]]:
    """Rankings to train on and held-out ones, each with an untied pair."""
    longest, languages = run.longest(positions), run.spec.languages
    rows = snapshot.rows("rankings.jsonl", split="train", languages=languages)
    rankings, left_out = encode_rankings(rows, tokenizer, longest, ties="drop")
    none = f"The snapshot holds no ranking to learn from (left out: {left_out}); rank more sets and freeze a new one."
    check_rows(run, "rankings", len(rankings), left_out, otherwise=none)
    ranked = [example for ranking in rankings for example in ranking.examples]
    check_endings(run, tokenizer, ranked, "ranked completions")
    rows_heldout = snapshot.rows("rankings.jsonl", split="heldout", languages=languages)
    heldout, left_out = encode_rankings(rows_heldout, tokenizer, longest, ties="drop")
    run.report("held-out rankings", len(heldout), left_out)
    if not heldout:
        run.warn("No ranking is held out, so nothing tells how well the policy judges new prompts.")
    return rankings, heldout


@torch.no_grad()
def _evaluate(run: Run[DPOConfig], policy: Transformer, heldout: list[Judged], pad_id: int) -> dict[str, float]:
    """The share of untied held-out pairs that the implicit rewards order as people did."""
    right, pairs = 0.0, 0.0
    if not heldout:
        return {}
    for part in whole_rankings(run.processes.share(heldout, tokens_of), run.config.micro_batch_size):
        run.check_stop()
        rewards_of = implicit_rewards(policy, part, run.config.beta, pad_id)
        for ranking, rewards in zip(part, rewards_of, strict=True):
            won, of = pair_accuracy(rewards, ranking.tiers)
            right, pairs = right + won, pairs + of
    right, pairs = run.processes.sum(right, pairs)
    return {"heldout_accuracy": right / pairs, "heldout_pairs": int(pairs)}
