"""A language model from scratch: next-token prediction on a stream of documents."""

import math
import time
from collections.abc import Iterator, Sequence

import torch

from modelzoo.batches import Batch, Example, collate, length_of, micro_batches, step_indices
from modelzoo.corpus import Corpus, Windows, open_corpus
from modelzoo.logprobs import response_logprobs, summed_loss
from modelzoo.optimizer import adamw, clip_gradients, set_learning_rate
from modelzoo.pretrain_config import PretrainConfig
from modelzoo.progress import TrainingState
from modelzoo.run import Run, owned
from modelzoo.schedules import cosine_rate, wsd_rate
from modelzoo.spec import BadInput
from modelzoo.tokenizer import Tokenizer, load_tokenizer
from modelzoo.transformer import Transformer


def pretrain(run: Run[PretrainConfig]) -> dict[str, float]:
    """Train a language model from scratch on a corpus."""
    spec, config = run.spec, run.config
    if spec.languages is None:
        raise BadInput('A model from scratch must state what it speaks; add "languages" to the spec, such as ["ko"].')
    tokenizer = load_tokenizer(spec.path("tokenizer"))
    corpus, windows = _corpus(run, tokenizer)
    policy = owned(_fresh(config, tokenizer), run.device)

    optimizer = adamw(policy, config)
    state = TrainingState(models={"policy": policy}, optimizers={"policy": optimizer})
    total = config.epochs * -(-len(windows) // config.batch_size)
    run.begin(state, total, {"corpus": corpus.digest})

    for step in range(state.step, total):
        started = time.monotonic()
        batch = [windows[i] for i in step_indices(len(windows), config.batch_size, config.seed, step)]
        targets = sum(len(window.response) for window in batch)
        rate = _learning_rate(config, step, total)
        set_learning_rate(optimizer, rate)
        loss = 0.0
        for micro in _micro_batches(run, batch, tokenizer.pad_id):
            micro_loss = -response_logprobs(policy, micro).sum() / targets
            micro_loss.backward()
            loss += micro_loss.item()
        (loss,) = run.processes.sum(loss)
        run.processes.sum_gradients(policy)
        grad_norm = clip_gradients(policy, config.max_grad_norm, "model")
        optimizer.step()
        optimizer.zero_grad()
        speed = targets / (time.monotonic() - started)
        run.end_step({"loss": loss, "learning_rate": rate, "grad_norm": grad_norm, "tokens_per_second": speed})
        if state.step % config.evaluate_every == 0 and state.step < total:
            run.log_metrics(_evaluate(run, policy, corpus, tokenizer.pad_id))

    heldout_metrics = _evaluate(run, policy, corpus, tokenizer.pad_id)
    run.log_metrics(heldout_metrics)
    metrics = state.metrics | heldout_metrics
    run.export(policy, tokenizer, kind="base", parents=[], languages=list(spec.languages), metrics=metrics)
    return metrics


def _corpus(run: Run[PretrainConfig], tokenizer: Tokenizer) -> tuple[Corpus, Windows]:
    """The corpus and the windows to train on."""
    corpus = open_corpus(run.spec.path("corpus"), tokenizer)
    windows = Windows(corpus.train, run.config.max_length)
    run.log(f"{corpus.tokens} tokens in {len(windows)} windows, {sum(map(len, corpus.heldout))} tokens held out")
    if not windows:
        raise BadInput(f"The corpus {run.spec.corpus} holds no text; name one that does.")
    if not corpus.heldout_bytes:
        run.warn("No document of the corpus is held out, so overfitting cannot be seen.")
    return corpus, windows


def _fresh(config: PretrainConfig, tokenizer: Tokenizer) -> Transformer:
    """An untrained model of the run's shape; the seed decides its weights and nothing else's."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return Transformer(config.shape(tokenizer.vocab_size))


def _learning_rate(config: PretrainConfig, step: int, total: int) -> float:
    ends = {"peak": config.learning_rate, "warmup_ratio": config.warmup_ratio, "final_ratio": config.final_lr_ratio}
    if config.schedule == "wsd":
        return wsd_rate(step, total, decay_ratio=config.decay_ratio, **ends)
    return cosine_rate(step, total, **ends)


def _micro_batches(run: Run[PretrainConfig], windows: Sequence[Example], pad_id: int) -> Iterator[Batch]:
    """This process's share of the windows, `micro_batch_size` at once."""
    share = run.processes.share(windows, length_of)
    for part in micro_batches(share, run.config.micro_batch_size, length_of):
        yield collate(part, pad_id, run.device)


def _evaluate(run: Run[PretrainConfig], policy: Transformer, corpus: Corpus, pad_id: int) -> dict[str, float]:
    """Nats per token of the held-out documents, and bits per byte, which does not depend on the tokenizer."""
    windows = Windows(corpus.heldout, run.config.max_length)
    if not windows or not corpus.heldout_bytes:
        return {}
    (nats,) = run.processes.sum(summed_loss(policy, _micro_batches(run, windows, pad_id), run.check_stop))
    tokens = sum(len(window.response) for window in windows)
    return {"heldout_loss": nats / tokens, "bits_per_byte": nats / math.log(2) / corpus.heldout_bytes}
