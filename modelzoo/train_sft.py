"""Supervised fine-tuning on demonstrations (InstructGPT, step 1): the assistant's words and their end are learned."""

import time
from collections.abc import Iterator

from modelzoo.adversarial import passes
from modelzoo.batches import Batch, Example, Packed, collate, length_of, micro_batches, step_indices
from modelzoo.checkpoint import load_policy, manifest_hash
from modelzoo.config import SFTConfig
from modelzoo.data import Snapshot, encode_demonstrations
from modelzoo.logprobs import response_logprobs, summed_loss
from modelzoo.lora import adapted, merged
from modelzoo.optimizer import adamw, clip_gradients, set_learning_rate
from modelzoo.packing import best_fit, pack
from modelzoo.progress import TrainingState
from modelzoo.run import Run, owned
from modelzoo.schedules import cosine_rate
from modelzoo.selfcheck import check_chat_template, check_endings, check_rows
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import Transformer


def train_sft(run: Run[SFTConfig]) -> dict[str, float]:
    """Fine-tune a policy on demonstrations."""
    spec, config = run.spec, run.config
    snapshot = Snapshot.open(spec.path("snapshot"))
    policy, tokenizer, manifest = load_policy(spec.path("policy"))
    policy = adapted(owned(policy, run.device), config)
    check_chat_template(run, tokenizer)
    examples, heldout, languages = _demonstrations(run, snapshot, tokenizer, policy.config.max_position_embeddings)

    optimizer = adamw(policy, config)
    state = TrainingState(models={"policy": policy}, optimizers={"policy": optimizer})
    steps_per_epoch = -(-len(examples) // config.batch_size)
    total = config.epochs * steps_per_epoch
    parent = manifest_hash(spec.path("policy"))
    run.begin(state, total, {"snapshot": snapshot.digest, "policy": parent})
    if state.step == 0:
        run.log_metrics(_evaluate(run, policy, heldout, tokenizer.pad_id))

    for step in range(state.step, total):
        started = time.monotonic()
        batch = [examples[i] for i in step_indices(len(examples), config.batch_size, config.seed, step)]
        targets = sum(len(example.response) for example in batch)
        rate = cosine_rate(
            step, total, peak=config.learning_rate, warmup_ratio=config.warmup_ratio, final_ratio=config.final_lr_ratio
        )
        set_learning_rate(optimizer, rate)
        loss = 0.0
        for micro in _micro_batches(run, policy, batch, tokenizer.pad_id):
            for share in passes(policy.model.embed_tokens, micro.segments, config, step):
                micro_loss = -response_logprobs(policy, micro).sum() / targets  # over the tokens of the whole batch
                (share * micro_loss).backward()
                loss += share * micro_loss.item()
        (loss,) = run.processes.sum(loss)
        run.processes.sum_gradients(policy)
        grad_norm = clip_gradients(policy, config.max_grad_norm, "policy")
        optimizer.step()
        optimizer.zero_grad()
        speed = sum(map(length_of, batch)) / (time.monotonic() - started)
        run.end_step({"loss": loss, "learning_rate": rate, "grad_norm": grad_norm, "tokens_per_second": speed})
        if state.step % steps_per_epoch == 0 and state.step < total:
            run.log_metrics(_evaluate(run, policy, heldout, tokenizer.pad_id))

    heldout_metrics = _evaluate(run, policy, heldout, tokenizer.pad_id)
    run.log_metrics(heldout_metrics)
    metrics = state.metrics | heldout_metrics
    run.export(
        merged(policy),
        tokenizer,
        kind="sft",
        parents=[parent],
        snapshot=snapshot.digest,
        languages=sorted({*manifest["languages"], *languages}),
        metrics=metrics,
    )
    return metrics


def _demonstrations(
    run: Run[SFTConfig], snapshot: Snapshot, tokenizer: Tokenizer, positions: int
) -> tuple[list[Example], list[Example], set[str]]:
    """Demonstrations to train on and held-out ones, and the languages of the former."""
    longest = run.longest(positions)
    rows = snapshot.rows("demonstrations.jsonl", split="train", languages=run.spec.languages)
    examples, left_out = encode_demonstrations(rows, tokenizer, longest)
    none = "The snapshot holds no demonstration to train on; collect some and freeze a new snapshot."
    check_rows(run, "demonstrations", len(examples), left_out, otherwise=none)
    check_endings(run, tokenizer, examples, "demonstrations")
    rows_heldout = snapshot.rows("demonstrations.jsonl", split="heldout", languages=run.spec.languages)
    heldout, left_out = encode_demonstrations(rows_heldout, tokenizer, longest)
    run.report("held-out demonstrations", len(heldout), left_out)
    if not heldout:
        run.warn("No demonstration is held out, so overfitting cannot be seen.")
    return examples, heldout, {row["language"] for row in rows}


def _micro_batches(
    run: Run[SFTConfig], policy: Transformer, examples: list[Example], pad_id: int
) -> Iterator[Batch | Packed]:
    """This process's share of the examples, as much at once as `micro_batch_size` allows."""
    size, share = run.config.micro_batch_size, run.processes.share(examples, length_of)
    if run.config.packing:
        yield from (pack(part, policy.model) for part in best_fit(share, size, length_of))
    else:
        yield from (collate(part, pad_id, run.device) for part in micro_batches(share, size, length_of))


def _evaluate(run: Run[SFTConfig], policy: Transformer, heldout: list[Example], pad_id: int) -> dict[str, float]:
    if not heldout:
        return {}
    (loss,) = run.processes.sum(summed_loss(policy, _micro_batches(run, policy, heldout, pad_id), run.check_stop))
    return {"heldout_loss": loss / sum(len(example.response) for example in heldout)}
