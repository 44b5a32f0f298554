"""What PPO takes for granted, checked on the real models before the first step and said in plain words."""

import torch

from modelzoo.batches import Example, collate, seeded
from modelzoo.config import PPOConfig, SamplingConfig
from modelzoo.failures import SelfCheckError
from modelzoo.generate import generate
from modelzoo.logprobs import response_logprobs
from modelzoo.rollout import Models
from modelzoo.run import Run
from modelzoo.spec import BadInput
from modelzoo.tokenizer import Tokenizer

PROBE = [{"role": "user", "content": "Grüße, 안녕하세요! 12,345 <|end|> def f(x):\n\treturn x ** 2 😀"}]
TOLERANCE = 1e-3  # nats; float32 gives about 1e-5


def require_same_tokenizer(policy: Tokenizer, other: Tokenizer, name: str) -> None:
    """Raises BadInput unless both give the same ids to the same text, roles and control tokens included."""
    if policy.vocab_size != other.vocab_size:
        difference = f"{policy.vocab_size} and {other.vocab_size} tokens"
    elif policy.control_tokens != other.control_tokens or policy.encode_chat(PROBE) != other.encode_chat(PROBE):
        difference = "the same text gets other tokens"
    else:
        return
    raise BadInput(
        f"The policy and the {name} have different vocabularies ({difference}); "
        f"choose a {name} that was trained from this policy or one of its ancestors."
    )


def check_models(run: Run[PPOConfig], models: Models, prompts: list[list[int]], *, reference_is_policy: bool) -> None:
    """Compare sampler, trainer, reference and reward model on a few short responses. Raises SelfCheckError."""
    config = run.config
    probes = prompts[:2]
    sampling = SamplingConfig(temperature=config.temperature, max_new_tokens=min(8, config.max_new_tokens))
    streams = [seeded("self-check", row) for row in range(len(probes))]
    responses = generate(models.policy, probes, 1, sampling, models.tokenizer.stop_ids, streams)
    examples = [Example(prompt, rows[0].token_ids) for prompt, rows in zip(probes, responses, strict=True)]
    batch = collate(examples, models.tokenizer.pad_id, run.device)
    with torch.no_grad():
        logprobs = response_logprobs(models.policy, batch, temperature=config.temperature)
        again = response_logprobs(models.policy, batch, temperature=config.temperature)
        reference = response_logprobs(models.reference, batch, temperature=config.temperature)
        scores = models.reward(batch.tokens, batch.mask)

    if not torch.equal(logprobs, again):
        run.warn("The same model gave different numbers twice, so this run cannot be repeated bit for bit here.")
    sampled = torch.tensor([p for rows in responses for p in rows[0].logprobs], device=run.device)
    difference = (sampled - logprobs[batch.response]).abs().max().item()
    _require(difference < TOLERANCE, f"sampler and trainer differ by {difference:.2g} nats about the same token")
    run.log(f"check passed: sampler and trainer agree on log-probabilities (to {difference:.1g} nats)")
    if reference_is_policy:
        distance = (logprobs - reference).abs().max().item()
        _require(distance < TOLERANCE, f"policy and reference differ by {distance:.2g} nats before training")
        run.log(f"check passed: policy and reference agree before training (KL {distance:g})")
    _require(bool(torch.isfinite(scores).all()), "the reward model gives scores that are not numbers")
    run.log(f"check passed: the reward model scores responses (first: {scores[0].item():.3f})")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SelfCheckError(f"A self-check before training failed: {otherwise}; try another policy or report this.")
