"""A PPO run from its files to its files: loads and checks what PPO needs, lets it run, writes the policy."""

from collections.abc import Callable, Sequence
from functools import partial

from modelzoo.batches import Example, seeded
from modelzoo.checkpoint import load_policy, load_reward_model, manifest_hash
from modelzoo.config import PPOConfig, SamplingConfig
from modelzoo.corpus import Windows, open_corpus
from modelzoo.data import Snapshot, encode_prompts
from modelzoo.generate import generate
from modelzoo.lora import adapted, merged
from modelzoo.optimizer import independent
from modelzoo.packed import packed
from modelzoo.rollout import Models
from modelzoo.run import Run, owned
from modelzoo.selfcheck import check_chat_template, check_models, check_rows, require_same_tokenizer
from modelzoo.spec import BadInput
from modelzoo.tokenizer import Tokenizer
from modelzoo.train_ppo import finished_policy, ppo_state, ppo_steps, train_ppo


def ppo(run: Run[PPOConfig]) -> dict[str, float]:
    """Improve a policy against a reward model with PPO."""
    spec, config = run.spec, run.config
    snapshot = Snapshot.open(spec.path("snapshot"))
    models, tokenizer, languages = _load_models(run)
    check_chat_template(run, tokenizer)
    prompts = _prompts(run, snapshot, models, tokenizer)
    corpus, corpus_digest = _corpus(run, tokenizer)

    state, total = ppo_state(models, config), ppo_steps(config)
    parents = {name: manifest_hash(spec.path(name)) for name in ("policy", "reward_model")}
    reference = manifest_hash(spec.reference or spec.path("policy"))
    inputs = {"snapshot": snapshot.digest, "corpus": corpus_digest, "reference": reference, **parents}
    run.begin(state, total, inputs, frozen=(models.reference, models.reward))
    if config.warmup_steps >= total:
        run.log(f"the learning rate rises over {config.warmup_steps} steps: in {total} it does not reach its peak")
    check_models(run, models, prompts, reference_is_policy=state.step == 0 and not spec.reference)

    speak = partial(sample, models, config, should_stop=run.stopping)
    train_ppo(models, state, prompts, config, sample=speak, run=run, corpus=corpus)
    run.export(
        merged(finished_policy(state)),
        tokenizer,
        kind="policy",
        parents=[*parents.values()],
        snapshot=snapshot.digest,
        languages=languages,
        metrics=state.metrics,
    )
    return state.metrics


def sample(
    models: Models, config: PPOConfig, prompts: list[list[int]], step: int, *, should_stop: Callable[[], bool]
) -> tuple[list[Example], list[bool]]:
    """One response to each prompt, and whether it ended. A function of the weights, the seed and the step.

    Whichever stop token ended a response, it is recorded as it was drawn: PPO's log-probabilities are of what was said.
    """
    tokenizer = models.tokenizer
    share = models.team.share(range(len(prompts)), lambda row: len(prompts[row]))
    responses = generate(
        packed(models.team.whole(models.policy)),
        [prompts[row] for row in share],
        1,
        SamplingConfig(temperature=config.temperature, max_new_tokens=config.max_new_tokens),
        tokenizer.stop_ids,
        [seeded(config.seed, "rollout", step, row) for row in share],
        should_stop=should_stop,
    )
    said = {row: (first.token_ids, first.finish_reason) for row, (first,) in zip(share, responses, strict=True)}
    everything = {row: of for part in models.team.gather(said) for row, of in part.items()}
    examples = [Example(prompt, everything[row][0]) for row, prompt in enumerate(prompts)]
    return examples, [everything[row][1] == "stop" for row in range(len(prompts))]


def _load_models(run: Run[PPOConfig]) -> tuple[Models, Tokenizer, list[str]]:
    """Policy, reference, reward and value model and the policy's languages.

    Each has weights of its own, but for adapters: the reference is then the policy with its adapters off, and the
    reward model the value model with its own off.
    """
    spec, config = run.spec, run.config
    policy, tokenizer, manifest = load_policy(spec.path("policy"))
    owned(policy, run.device)
    reference = policy
    if spec.reference or not config.lora_rank:
        reference, reference_tokenizer, _ = load_policy(spec.reference or spec.path("policy"))
        require_same_tokenizer(tokenizer, reference_tokenizer, "reference policy")
        owned(reference, run.device)
    reward, reward_tokenizer, _ = load_reward_model(spec.path("reward_model"))
    require_same_tokenizer(tokenizer, reward_tokenizer, "reward model")
    owned(reward, run.device)
    models = Models(
        policy=adapted(policy, config),
        reference=reference,
        reward=reward,
        value=adapted(reward, config) if config.lora_rank else independent(reward),
        tokenizer=tokenizer,
        team=run.processes,
    )
    for model in (models.reference, models.reward):
        model.requires_grad_(False)
    return models, tokenizer, manifest["languages"]


def _prompts(run: Run[PPOConfig], snapshot: Snapshot, models: Models, tokenizer: Tokenizer) -> list[list[int]]:
    longest = min(model.config.max_position_embeddings for model in (models.policy, models.reward))
    room = run.longest(longest) - run.config.max_new_tokens
    rows = snapshot.rows("prompts.jsonl", split="train", languages=run.spec.languages)
    prompts, left_out = encode_prompts(rows, tokenizer, room)
    none = "The snapshot holds no prompt in the chosen languages; approve some and freeze a new snapshot."
    check_rows(run, "prompts", len(prompts), left_out, otherwise=none)
    return prompts


def _corpus(run: Run[PPOConfig], tokenizer: Tokenizer) -> tuple[Sequence[Example], str | None]:
    """Windows of the pretraining corpus and its hash; none where the mix is off."""
    if not run.config.ptx_coef:
        return [], None
    if run.spec.corpus is None:
        raise BadInput('A ptx_coef above 0 needs text to mix in; name a JSONL file or shards in "corpus".')
    corpus = open_corpus(run.spec.corpus, tokenizer)
    cut = Windows(corpus.train, run.config.ptx_length)
    run.log(f"{len(cut)} windows of the pretraining corpus")
    if not cut:
        raise BadInput(f"The corpus {run.spec.corpus} holds no text; name one that does, or set ptx_coef to 0.")
    return cut, corpus.digest
