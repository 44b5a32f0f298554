"""Reward model on rankings (InstructGPT, step 2): all pairs of a prompt are one batch element."""

from collections.abc import Sequence

import torch
from torch import Tensor

from modelzoo.adversarial import passes
from modelzoo.batches import length_of, seeded, step_indices
from modelzoo.checkpoint import load_policy, manifest_hash
from modelzoo.config import RewardConfig
from modelzoo.data import Snapshot, encode_demonstrations, encode_rankings
from modelzoo.lora import adapted, merged
from modelzoo.optimizer import adamw, clip_gradients, set_learning_rate
from modelzoo.progress import ALONE, Team, TrainingState
from modelzoo.rankings import Ranking, pair_accuracy, ranking_loss, tokens_of, whole_rankings
from modelzoo.run import Run, owned
from modelzoo.schedules import cosine_rate
from modelzoo.selfcheck import check_chat_template, check_endings, check_rows
from modelzoo.shared_prefix import segments, shared_scores
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel


def train_reward(run: Run[RewardConfig]) -> dict[str, float]:
    """Train a reward model on rankings."""
    spec, config = run.spec, run.config
    snapshot = Snapshot.open(spec.path("snapshot"))
    policy, tokenizer, manifest = load_policy(spec.path("policy"))
    reward_model = owned(RewardModel.from_policy(policy, seeded(config.seed, "score head")), run.device)
    reward_model = adapted(reward_model, config)
    check_chat_template(run, tokenizer)
    del policy
    positions = reward_model.config.max_position_embeddings
    rankings, heldout, languages = _rankings(run, snapshot, tokenizer, positions)

    optimizer = adamw(reward_model, config)
    state = TrainingState(models={"reward": reward_model}, optimizers={"reward": optimizer})
    steps_per_epoch = -(-len(rankings) // config.batch_size)
    total = config.epochs * steps_per_epoch
    parent = manifest_hash(spec.path("policy"))
    run.begin(state, total, {"snapshot": snapshot.digest, "policy": parent})

    for step in range(state.step, total):
        batch = [rankings[i] for i in step_indices(len(rankings), config.batch_size, config.seed, step)]
        rate = cosine_rate(
            step, total, peak=config.learning_rate, warmup_ratio=config.warmup_ratio, final_ratio=config.final_lr_ratio
        )
        set_learning_rate(optimizer, rate)
        metrics = add_ranking_gradient(reward_model, batch, config, step, run.processes)
        grad_norm = clip_gradients(reward_model, config.max_grad_norm, "reward model")
        optimizer.step()
        optimizer.zero_grad()
        run.end_step({**metrics, "learning_rate": rate, "grad_norm": grad_norm})
        if state.step % steps_per_epoch == 0 and state.step < total:
            run.log_metrics(_evaluate(run, reward_model, heldout))

    heldout_metrics = _evaluate(run, reward_model, heldout)
    run.log_metrics(heldout_metrics)
    reward_model = merged(reward_model)
    reward_model.score_offset = _offset(run, reward_model, snapshot, tokenizer, rankings)
    metrics = state.metrics | heldout_metrics | {"score_offset": reward_model.score_offset}
    run.export(
        reward_model,
        tokenizer,
        kind="reward",
        parents=[parent],
        snapshot=snapshot.digest,
        languages=sorted(languages),
        metrics=metrics,
    )
    return metrics


def _rankings(
    run: Run[RewardConfig], snapshot: Snapshot, tokenizer: Tokenizer, positions: int
) -> tuple[list[Ranking], list[Ranking], set[str]]:
    """Rankings to train on and held-out ones, and the languages of the former."""
    longest, ties = run.longest(positions), run.config.ties
    rows = snapshot.rows("rankings.jsonl", split="train", languages=run.spec.languages)
    rankings, left_out = encode_rankings(rows, tokenizer, longest, ties=ties)
    none = f"The snapshot holds no ranking to learn from (left out: {left_out}); rank more sets and freeze a new one."
    check_rows(run, "rankings", len(rankings), left_out, otherwise=none)
    ranked = [example for ranking in rankings for example in ranking.examples]
    check_endings(run, tokenizer, ranked, "ranked completions")
    rows_heldout = snapshot.rows("rankings.jsonl", split="heldout", languages=run.spec.languages)
    heldout, left_out = encode_rankings(rows_heldout, tokenizer, longest, ties="drop")
    run.report("held-out rankings", len(heldout), left_out)
    if not heldout:
        run.warn("No ranking is held out, so nothing tells how well the reward model judges new prompts.")
    return rankings, heldout, {row["language"] for row in rows}


def add_ranking_gradient(
    reward_model: RewardModel, rankings: Sequence[Ranking], config: RewardConfig, step: int = 0, team: Team = ALONE
) -> dict[str, float]:
    """Gradient of the mean loss of some rankings; returns that loss and the share of pairs in their right order.

    The step decides the noise, where training is adversarial.
    """
    loss, right, pairs = 0.0, 0.0, 0.0
    device = reward_model.score.weight.device
    for part in whole_rankings(team.share(rankings, tokens_of), config.micro_batch_size):
        moved = segments([ranking.examples for ranking in part], device)
        for share in passes(reward_model.model.embed_tokens, moved, config, step):
            micro_loss = torch.zeros((), device=device)
            for scores, tiers in scored(reward_model, part):
                micro_loss = micro_loss + ranking_loss(scores, tiers, margin=config.margin, ties=config.ties)
                won, of = pair_accuracy(scores.detach(), tiers)
                right, pairs = right + won, pairs + of
            (share * micro_loss / len(rankings)).backward()
            loss += share * micro_loss.item() / len(rankings)
    team.sum_gradients(reward_model)
    loss, right, pairs = team.sum(loss, right, pairs)
    return {"loss": loss} | ({"accuracy": right / pairs} if pairs else {})


def scored(reward_model: RewardModel, rankings: Sequence[Ranking]) -> list[tuple[Tensor, Tensor]]:
    """Scores and tiers, each (K,), of some rankings in one forward."""
    scores = shared_scores(reward_model, [ranking.examples for ranking in rankings])
    return [(s, torch.tensor(ranking.tiers, device=s.device)) for s, ranking in zip(scores, rankings, strict=True)]


@torch.no_grad()
def _evaluate(run: Run[RewardConfig], reward_model: RewardModel, heldout: list[Ranking]) -> dict[str, float]:
    """The share of untied held-out pairs that the scores order as people did."""
    right, pairs = 0.0, 0.0
    if not heldout:
        return {}
    for part in whole_rankings(run.processes.share(heldout, tokens_of), run.config.micro_batch_size):
        run.check_stop()
        for scores, tiers in scored(reward_model, part):
            won, of = pair_accuracy(scores, tiers)
            right, pairs = right + won, pairs + of
    right, pairs = run.processes.sum(right, pairs)
    return {"heldout_accuracy": right / pairs, "heldout_pairs": int(pairs)}


@torch.no_grad()
def _offset(
    run: Run[RewardConfig], reward_model: RewardModel, snapshot: Snapshot, tokenizer: Tokenizer, rankings: list[Ranking]
) -> float:
    """The mean score of demonstrations, so that after subtracting it they average 0 (InstructGPT, appendix C.2)."""
    rows = snapshot.rows("demonstrations.jsonl", split="train", languages=run.spec.languages)
    examples, _ = encode_demonstrations(rows, tokenizer, run.longest(reward_model.config.max_position_embeddings))
    groups = [[example] for example in examples]
    if not groups:
        run.warn("The snapshot has no demonstrations, so it is the ranked completions whose scores average 0.")
        groups = [ranking.examples for ranking in rankings]
    total = 0.0
    for group in run.processes.share(groups, lambda group: sum(map(length_of, group))):
        run.check_stop()
        (scores,) = shared_scores(reward_model, [group])
        total += scores.double().sum().item()
    return run.processes.sum(total)[0] / sum(map(len, groups))
