"""A small language model from scratch: next-token prediction on plain text or on whole dialogues."""

import time
from dataclasses import asdict, fields

import torch

from modelzoo.batches import Example, collate, micro_batches, step_indices
from modelzoo.config import ModelConfig, PretrainConfig
from modelzoo.corpus import read_corpus, windows
from modelzoo.logprobs import mean_loss, response_logprobs
from modelzoo.optimizer import adamw, clip_gradients, cosine_rate, set_learning_rate
from modelzoo.progress import TrainingState
from modelzoo.run import Run, owned
from modelzoo.spec import BadInput
from modelzoo.tokenizer import Tokenizer, load_tokenizer
from modelzoo.transformer import Transformer

HELDOUT_EVERY = 50  # one window in so many measures the loss instead of lowering it


def pretrain(run: Run[PretrainConfig]) -> dict[str, float]:
    """Train a small language model from scratch on a corpus."""
    spec, config = run.spec, run.config
    if spec.languages is None:
        raise BadInput('A model from scratch must state what it speaks; add "languages" to the spec, such as ["ko"].')
    tokenizer = load_tokenizer(spec.path("tokenizer"))
    examples, heldout, corpus_digest = _corpus(run, tokenizer)
    policy = owned(_fresh(config, tokenizer), run.device)

    optimizer = adamw(policy, config)
    state = TrainingState(models={"policy": policy}, optimizers={"policy": optimizer})
    steps_per_epoch = -(-len(examples) // config.batch_size)
    total = config.epochs * steps_per_epoch
    run.begin(state, total, {"corpus": corpus_digest})

    for step in range(state.step, total):
        started = time.monotonic()
        batch = [examples[i] for i in step_indices(len(examples), config.batch_size, config.seed, step)]
        targets = sum(len(example.response) for example in batch)
        rate = cosine_rate(
            step, total, peak=config.learning_rate, warmup_ratio=config.warmup_ratio, final_ratio=config.final_lr_ratio
        )
        set_learning_rate(optimizer, rate)
        loss = 0.0
        for part in micro_batches(batch, config.micro_batch_size, lambda example: len(example.tokens)):
            micro_loss = -response_logprobs(policy, collate(part, tokenizer.pad_id, run.device)).sum() / targets
            micro_loss.backward()
            loss += micro_loss.item()
        grad_norm = clip_gradients(policy, config.max_grad_norm, "model")
        optimizer.step()
        optimizer.zero_grad()
        speed = targets / (time.monotonic() - started)
        run.end_step({"loss": loss, "learning_rate": rate, "grad_norm": grad_norm, "tokens_per_second": speed})
        if state.step % steps_per_epoch == 0 and state.step < total:
            run.log_metrics(_evaluate(run, policy, heldout, tokenizer.pad_id))

    heldout_metrics = _evaluate(run, policy, heldout, tokenizer.pad_id)
    run.log_metrics(heldout_metrics)
    metrics = state.metrics | heldout_metrics
    run.export(policy, tokenizer, kind="base", parents=[], languages=list(spec.languages), metrics=metrics)
    return metrics


def _corpus(run: Run[PretrainConfig], tokenizer: Tokenizer) -> tuple[list[Example], list[Example], str]:
    """Windows to train on, held-out ones, and the file's hash."""
    stream, digest = read_corpus(run.spec.path("corpus"), tokenizer)
    cut = windows(stream, run.config.max_length)
    heldout = cut[HELDOUT_EVERY - 1 :: HELDOUT_EVERY]
    examples = [window for number, window in enumerate(cut, 1) if number % HELDOUT_EVERY]
    run.log(f"{len(stream)} tokens: {len(examples)} windows to train on and {len(heldout)} held out")
    if not examples:
        raise BadInput(f"The corpus {run.spec.corpus} holds no text; name one that does.")
    return examples, heldout, digest


def _fresh(config: PretrainConfig, tokenizer: Tokenizer) -> Transformer:
    """An untrained model of the run's shape; the seed decides its weights and nothing else's."""
    shape = {name: value for name, value in asdict(config).items() if name in {f.name for f in fields(ModelConfig)}}
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return Transformer(
            ModelConfig(**shape, vocab_size=tokenizer.vocab_size, max_position_embeddings=config.max_length)
        )


def _evaluate(run: Run[PretrainConfig], policy: Transformer, heldout: list[Example], pad_id: int) -> dict[str, float]:
    if not heldout:
        return {}
    size, device = run.config.micro_batch_size, run.device
    return {"heldout_loss": mean_loss(policy, heldout, pad_id, size=size, device=device, pause=run.check_stop)}
