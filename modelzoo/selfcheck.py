"""What every run takes for granted, checked before its first step and said in plain words.

A chat template that never opens the assistant's turn, demonstrations without an end, a reference that is not the
policy: each trains without complaint and ruins the model. docs/training.md has the table of all checks.
"""

from collections.abc import Sequence
from typing import Any

import torch

from modelzoo.batches import Example, collate, seeded
from modelzoo.chat_template import Message
from modelzoo.config import PPOConfig, SamplingConfig
from modelzoo.data import LeftOut
from modelzoo.failures import SelfCheckError
from modelzoo.generate import generate
from modelzoo.logprobs import response_logprobs
from modelzoo.rollout import Models
from modelzoo.run import Run
from modelzoo.spec import BadInput
from modelzoo.tokenizer import Tokenizer

PROBE = [{"role": "user", "content": "Grüße, 안녕하세요! 12,345 <|end|> def f(x):\n\treturn x ** 2 😀"}]
TOLERANCE, BFLOAT16_TOLERANCE = 1e-3, 0.3  # nats; float32 gives about 1e-5


# What is learned from ---------------------------------------------------------------------------------------------


def check_rows(run: Run[Any], what: str, used: int, left_out: LeftOut, otherwise: str) -> None:
    """Say how many rows are used and how many not, and why. BadInput, in the words of `otherwise`, where none is left.

    Nothing is ever cut, so that no row loses its target or its end: what is too long is left out as a whole.
    """
    run.report(what, used, left_out)
    if used:
        return
    if any("too long" in reason for reason in left_out):
        raise BadInput(
            f"None of the {what} can be used ({left_out}): raise max_length, now {run.config.max_length} tokens, "
            "or choose a model with a longer context."
        )
    raise BadInput(otherwise)


def check_endings(run: Run[Any], tokenizer: Tokenizer, examples: Sequence[Example], what: str) -> None:
    """Warn where no response ends with a token that stops generation: what was never seen to end, never ends."""
    ended = sum(example.response[-1] in tokenizer.stop_ids for example in examples)
    if not ended:
        run.warn(
            f"None of the {what} ends by itself: an ending cannot be learned from them; "
            "let more of them finish, with a larger max_new_tokens when they are sampled."
        )
    else:
        run.log(f"check passed: {ended} of {len(examples)} {what} end with a token that stops generation")


def check_chat_template(run: Run[Any], tokenizer: Tokenizer) -> None:
    """Render two turns and a bare question. Raises BadInput where the format they show is one that nobody wants."""
    question, answer, reply = "qquestionn", "aanswerr", "rreplyy"
    asked: list[Message] = [{"role": "user", "content": question}]
    turns = [*asked, {"role": "assistant", "content": answer}, {"role": "user", "content": reply}]
    dialogue, prompt = _flat(tokenizer.render_chat(turns, False)), _flat(tokenizer.render_chat(asked, True))
    if tokenizer.bos_id is not None and tokenizer.encode_chat(asked)[:2] == [tokenizer.bos_id] * 2:
        raise _unfit("begins with the beginning-of-text token twice")
    if question not in dialogue.partition(answer)[0] or reply not in dialogue.partition(answer)[2]:
        raise _unfit("leaves out what the user or the assistant says")
    before_answer = dialogue.partition(question)[2].partition(answer)[0]
    if before_answer == dialogue.partition(answer)[2].partition(reply)[0]:
        raise _unfit("does not tell the user's words from the assistant's: it has no roles")
    opened = prompt.partition(question)[2]
    if not before_answer.startswith(opened):
        run.warn("The chat template writes something else before a new answer than before one that is there already.")
    elif before_answer.removeprefix(opened).strip():
        raise _unfit("does not open the assistant's turn when an answer is asked for (add_generation_prompt)")
    run.log("check passed: the chat template shows roles, opens the assistant's turn and begins once")


def _flat(parts: Sequence[int | str]) -> str:
    """A rendered conversation as one string in which a control token cannot be mistaken for text."""
    return "".join(part if isinstance(part, str) else f"\0{part}\0" for part in parts)


def _unfit(what: str) -> BadInput:
    return BadInput(
        f"The model's chat template {what}; correct it in tokenizer_config.json and import the model again."
    )


# Models -----------------------------------------------------------------------------------------------------------


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
    responses = generate(models.team.whole(models.policy), probes, 1, sampling, models.tokenizer.stop_ids, streams)
    examples = [Example(prompt, rows[0].token_ids) for prompt, rows in zip(probes, responses, strict=True)]
    batch = collate(examples, models.tokenizer.pad_id, run.device)
    with torch.no_grad():
        logprobs = response_logprobs(models.policy, batch, temperature=config.temperature)
        again = response_logprobs(models.policy, batch, temperature=config.temperature)
        reference = response_logprobs(models.reference, batch, temperature=config.temperature)
        scores = models.reward(batch.tokens, batch.mask)

    repeats = torch.equal(logprobs, again)
    if not repeats:
        run.warn("The same model gave different numbers twice, so this run cannot be repeated bit for bit here.")
    sampled = torch.tensor([p for rows in responses for p in rows[0].logprobs], device=run.device)
    difference = (sampled - logprobs[batch.response]).abs().max().item()
    tolerance = BFLOAT16_TOLERANCE if run.in_bfloat16 else TOLERANCE
    _require(difference < tolerance, f"sampler and trainer differ by {difference:.2g} nats about the same token")
    run.log(f"check passed: sampler and trainer agree on log-probabilities (to {difference:.1g} nats)")
    if reference_is_policy:
        distance = (logprobs - reference).abs().max().item()
        same = distance == 0 if repeats else distance < TOLERANCE
        _require(same, f"policy and reference differ by {distance:.2g} nats before training, where KL must be 0")
        run.log(f"check passed: policy and reference agree before training (KL {distance:g})")
    _require(bool(torch.isfinite(scores).all()), "the reward model gives scores that are not numbers")
    run.log(f"check passed: the reward model scores responses (first: {scores[0].item():.3f})")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SelfCheckError(f"A self-check before training failed: {otherwise}; try another policy or report this.")
