import copy
import json
from pathlib import Path

import pytest
import torch

from modelzoo.batches import Example, seeded
from modelzoo.checkpoint import load_policy, load_reward_model, save_checkpoint
from modelzoo.config import SamplingConfig
from modelzoo.data import encode_example
from modelzoo.logprobs import response_logprobs
from modelzoo.optimizer import update_average
from modelzoo.prepare_ppo import sample
from modelzoo.progress import ALONE
from modelzoo.rollout import Models, collect, minibatches, rows_alike
from modelzoo.sampler import Sampler
from modelzoo.tests.conftest import (
    SENTENCE,
    Train,
    config_of,
    demonstration,
    prompt,
    question,
    ranking,
    rolled_out,
    tiny_policy,
    write_snapshot,
)
from modelzoo.tokenizer import Tokenizer, train_sentencepiece
from modelzoo.train_ppo import add_policy_gradient, add_pretraining_gradient, add_value_gradient
from modelzoo.transformer import RewardModel


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    found = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    return found


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.3])
def test_kl_is_exactly_0_and_ratio_exactly_1_before_the_first_update(
    models: Models, micro_batch_size: int, temperature: float
) -> None:
    config = config_of(micro_batch_size=micro_batch_size, temperature=temperature, minibatch_size=4)
    rollout = rolled_out(models, config)
    assert torch.equal(rollout.kl, torch.zeros_like(rollout.kl))
    for rows in minibatches(list(range(8)), 4):
        for group in rows_alike(ALONE, rollout.batch, rows, micro_batch_size):
            part = rollout.select(group)
            logprobs = response_logprobs(models.policy, part.batch, temperature=temperature)  # with gradients
            assert torch.equal((logprobs - part.logprobs).exp(), torch.ones_like(logprobs))


def test_ratio_is_exactly_1_where_the_head_runs_in_chunks(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradients the chunks are computed twice, without them once."""
    monkeypatch.setattr("modelzoo.logprobs.CHUNK", 5)
    rollout = rolled_out(models, config_of(micro_batch_size=8))
    part = rollout.select(next(rows_alike(ALONE, rollout.batch, list(range(8)), 8)))
    assert torch.equal(response_logprobs(models.policy, part.batch), part.logprobs)


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.3])
def test_first_update_of_a_run_starts_from_no_kl_and_clips_nothing(
    train: Train, micro_batch_size: int, temperature: float
) -> None:
    params = {"minibatch_size": 8, "kl_coef": 0.5, "micro_batch_size": micro_batch_size, "temperature": temperature}
    first = train("ppo", params | {"episodes": 8}).metrics[0]
    assert (first["kl"], first["approx_kl"], first["ratio"], first["clip_fraction"]) == (0, 0, 1, 0)
    assert first["policy_loss"] == pytest.approx(0, abs=1e-6)  # the mean of whitened advantages


@pytest.mark.parametrize("micro_batch_size", [4, 8])  # of 8 the first forward is kept for the first update
def test_later_passes_over_a_rollout_move_away_from_it(train: Train, micro_batch_size: int) -> None:
    params = {"minibatch_size": 8, "micro_batch_size": micro_batch_size, "inner_epochs": 3, "warmup_steps": 0}
    first = train("ppo", params).metrics[0]
    assert first["approx_kl"] > 0 and first["ratio"] != 1


def test_two_rollouts_of_a_prompt_differ(models: Models) -> None:
    config = config_of()
    prompts = [models.tokenizer.encode_chat(question(0))] * 8
    first, _ = sample(models, config, prompts, 0, should_stop=lambda: False)
    second, _ = sample(models, config, prompts, 1, should_stop=lambda: False)
    assert len({tuple(example.response) for example in first}) > 1
    assert first != second
    assert sample(models, config, prompts, 0, should_stop=lambda: False)[0] == first


def test_a_response_without_end_costs_exactly_the_penalty(models: Models) -> None:
    tokenizer = models.tokenizer
    example = Example(tokenizer.encode_chat(question(0)), tokenizer.encode("good fish"))
    with torch.no_grad():
        score = models.reward(torch.tensor([example.tokens]), torch.ones(1, len(example.tokens)).bool()).item()
    for penalty in (0.0, 1.5):
        rollout, _ = collect(models, [example], [False], config_of(missing_eos_penalty=penalty), 0.0)
        assert rollout.scores.item() == pytest.approx(score - penalty, abs=1e-6)


def test_a_response_that_ended_with_another_stop_token_scores_as_a_finished_one(models: Models) -> None:
    tokenizer = models.tokenizer
    finished = encode_example(tokenizer, question(0), "good fish", finished=True)
    other = Example(finished.prompt, [*finished.response[:-1], tokenizer.pad_id + 1])
    expected, _ = collect(models, [finished], [True], config_of(), 0.0)
    scored, _ = collect(models, [other], [True], config_of(), 0.0)
    assert scored.scores.item() == expected.scores.item()
    assert scored.batch.tokens[0, -1] == tokenizer.pad_id + 1  # log-probabilities are of what was said


def test_the_score_stands_at_the_end_of_the_response(models: Models) -> None:
    config = config_of(gamma=1.0, gae_lambda=1.0)
    rollout = rolled_out(models, config)
    last = rollout.batch.mask.sum(dim=1) - 1
    returns = rollout.returns[torch.arange(8), last]
    assert torch.allclose(returns, rollout.scores, atol=1e-5)  # KL is 0, so the last return is the score


def test_advantages_are_whitened_over_the_whole_rollout(models: Models) -> None:
    rollout = rolled_out(models, config_of(minibatch_size=2, micro_batch_size=1))
    said = rollout.batch.response
    assert rollout.advantages[said].mean().item() == pytest.approx(0, abs=1e-5)
    assert rollout.advantages[said].var(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert rollout.advantages[:2][said[:2]].mean().abs() > 1e-3


def test_the_forward_that_is_kept_gives_the_gradients_of_a_second_one_bit_for_bit(models: Models) -> None:
    config = config_of(micro_batch_size=8, minibatch_size=4)
    prompts = [models.tokenizer.encode_chat(question(number))[: 3 + number] for number in range(8)]
    examples, finished = sample(models, config, prompts, 0, should_stop=lambda: False)
    found = []
    for again in (False, True):
        rollout, kept = collect(models, examples, finished, config, config.kl_coef)
        assert kept is not None
        add_policy_gradient(models, rollout, [0, 1, 2, 3], config, None if again else kept)
        add_value_gradient(models, rollout, [0, 1, 2, 3], config, None if again else kept)
        found.append(gradients(models.policy) + gradients(models.value))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert collect(models, examples, finished, config_of(micro_batch_size=2, minibatch_size=4), 0.0)[1] is None


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_micro_batch_size_does_not_change_the_gradient(models: Models, micro_batch_size: int) -> None:
    found = []
    for size in (8, micro_batch_size):
        config = config_of(micro_batch_size=size)
        rollout = rolled_out(models, config)
        add_policy_gradient(models, rollout, list(range(8)), config)
        add_value_gradient(models, rollout, list(range(8)), config)
        found.append(gradients(models.policy) + gradients(models.value))
    for whole, cut in zip(*found, strict=True):
        assert torch.allclose(whole, cut, rtol=1e-4, atol=1e-6)


def test_gradient_with_pretraining_mix_is_the_sum_of_both(models: Models) -> None:
    config = config_of(ptx_coef=27.8)
    rollout, text = rolled_out(models, config), [Example([5], [6, 7, 8]), Example([9], [10])]
    add_policy_gradient(models, rollout, list(range(8)), config)
    alone = gradients(models.policy)
    add_pretraining_gradient(models, text, config_of(ptx_coef=1.0))
    pretraining = gradients(models.policy)
    add_policy_gradient(models, rollout, list(range(8)), config)
    add_pretraining_gradient(models, text, config)
    for both, ppo, ptx in zip(gradients(models.policy), alone, pretraining, strict=True):
        expected = ppo + 27.8 * ptx
        assert (both - expected).norm() <= 1e-6 * expected.norm()


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "corpus.jsonl"
    dialogue = {"messages": [*question(0), {"role": "assistant", "content": "good"}]}
    path.write_text("".join(json.dumps(row) + "\n" for row in [{"text": SENTENCE}] * 5 + [dialogue] * 5))
    return str(path)


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    return load_policy(run_folder / "model")[0].state_dict()


def test_no_pretraining_weight_is_plain_ppo_bit_for_bit(train: Train, corpus: str) -> None:
    plain = weights(train("ppo", out="plain").out)
    zero = weights(train("ppo", {"ptx_coef": 0.0}, corpus=corpus, out="zero").out)
    mixed = weights(train("ppo", {"ptx_coef": 1.0, "ptx_length": 16}, corpus=corpus, out="mixed").out)
    assert all(torch.equal(plain[name], zero[name]) for name in plain)
    assert any(not torch.equal(plain[name], mixed[name]) for name in plain)


def test_pretraining_mix_lowers_the_loss_on_its_corpus(train: Train, corpus: str) -> None:
    params = {"ptx_coef": 10.0, "ptx_length": 16, "episodes": 80, "warmup_steps": 0, "learning_rate": 3e-3}
    losses = train("ppo", params, corpus=corpus).series("ptx_loss")
    assert losses[-1] < losses[0] - 1


def test_policy_says_more_of_what_people_preferred(train: Train, tmp_path: Path) -> None:
    """The whole loop: shown both, told that one is better, the policy turns to it."""
    texts = ["good fish", "dogs ran"]
    shown = [demonstration(n, split="train", completion=texts[n % 2], messages=question(n // 2)) for n in range(16)]
    ranked = [ranking(n, [1, 2], split="train", completions=texts, finish_reasons=["stop"] * 2) for n in range(16)]
    prompts = [prompt(n) for n in range(8)]
    snapshot = str(write_snapshot(tmp_path / "s", rankings=ranked, demonstrations=shown, prompts=prompts))
    shape = {"episodes": 320, "batch_size": 32, "minibatch_size": 32, "micro_batch_size": 32, "learning_rate": 2e-3}
    policy = (
        train("sft", {"epochs": 120, "batch_size": 16, "learning_rate": 1e-2}, snapshot=snapshot, out="policy").out
        / "model"
    )
    reward = train("reward", {"epochs": 5}, snapshot=snapshot, policy=str(policy), out="reward").out / "model"
    params = {**shape, "warmup_steps": 0, "max_new_tokens": 12, "kl_coef": 0.05, "missing_eos_penalty": 5.0}
    done = train("ppo", params, snapshot=snapshot, policy=str(policy), reward_model=str(reward))
    rewards, kl = done.series("reward"), done.series("kl")
    assert sum(rewards[-5:]) / 5 > rewards[0] + 0.25
    assert kl[0] == 0 < kl[-1]
    sampling, questions = SamplingConfig(max_new_tokens=12), [question(n) for n in range(8)]
    preferred = []
    for model in (policy, done.out / "model"):
        samples = Sampler.load(model).sample(questions, 16, sampling, seeds=range(8))
        preferred.append(sum(sample.text == "good fish" for row in samples for sample in row))
    assert preferred[1] > preferred[0] + 20  # of 128


def test_kl_weight_adapts_towards_its_target(train: Train) -> None:
    params = {"kl_target": 50.0, "kl_horizon": 100, "kl_coef": 0.1}
    coefs = train("ppo", params).series("kl_coef")
    assert coefs == pytest.approx([0.1, 0.1 * (1 - 0.2 * 8 / 100), 0.1 * (1 - 0.2 * 8 / 100) ** 2])


def test_run_ends_early_where_kl_passes_its_limit(train: Train) -> None:
    params = {"kl_stop": 1e-6, "learning_rate": 1e-2, "warmup_steps": 0, "episodes": 400, "kl_coef": 0.0}
    done = train("ppo", params)
    assert done.code == 0
    assert 1 <= done.result["step"] < done.result["total"] == 50
    assert any("kl_stop" in warning for warning in done.result["warnings"])
    assert (done.out / "model").exists()


def test_moving_average_follows_quickly_at_first_and_slowly_later() -> None:
    average, model = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(average.weight)
    torch.nn.init.ones_(model.weight)
    update_average(average, model, decay=0.992, updates=1)
    assert average.weight.item() == pytest.approx(1 - 2 / 11)
    torch.nn.init.zeros_(average.weight)
    update_average(average, model, decay=0.992, updates=10_000)
    assert average.weight.item() == pytest.approx(0.008)


def test_the_average_is_exported_unless_it_is_off(train: Train) -> None:
    averaged = weights(train("ppo", {"ema_decay": 0.9}, out="averaged").out)
    last = weights(train("ppo", {"ema_decay": 0.0}, out="last").out)
    assert any(not torch.equal(averaged[name], last[name]) for name in last)


def test_exported_policy_names_its_parents_and_speaks_its_languages(train: Train) -> None:
    _, _, manifest = load_policy(train("ppo").out / "model")
    assert manifest["kind"] == "policy" and manifest["languages"] == ["en"]
    assert len(manifest["parents"]) == 2


def test_reward_model_with_another_vocabulary_is_refused(train: Train, tmp_path: Path) -> None:
    other = train_sentencepiece([SENTENCE] * 4, 300)
    model = RewardModel.from_policy(tiny_policy(other), seeded("head"))
    save_checkpoint(tmp_path / "other", model, other, kind="reward", languages=["en"])
    done = train("ppo", reward_model=str(tmp_path / "other"))
    assert done.code == 2
    assert "different vocabularies (310 and 300 tokens)" in done.message
    assert "\n" not in done.message


def test_reward_model_with_equally_many_other_tokens_is_refused(train: Train, tmp_path: Path) -> None:
    other = train_sentencepiece(["wholly other words stand here, 반갑습니다 여러분 모두 " + SENTENCE[::-1]] * 4, 310)
    model = RewardModel.from_policy(tiny_policy(other), seeded("head"))
    save_checkpoint(tmp_path / "other", model, other, kind="reward", languages=["en"])
    done = train("ppo", reward_model=str(tmp_path / "other"))
    assert done.code == 2 and "the same text gets other tokens" in done.message


def test_prompts_are_taken_by_language_and_too_long_ones_are_counted(train: Train, tmp_path: Path) -> None:
    long = [{"role": "user", "content": "cat " * 200}]
    rows = [prompt(0), prompt(1, language="ko"), prompt(2, messages=long)]
    snapshot = str(write_snapshot(tmp_path / "s", rankings=[], demonstrations=[], prompts=rows))
    done = train("ppo", snapshot=snapshot, languages=["en"])
    assert done.code == 0
    assert "Left out of the prompts: 1 too long." in done.result["warnings"]
    assert train("ppo", snapshot=snapshot, languages=["fr"], out="none").code == 2


def test_pretraining_mix_without_a_corpus_is_refused(train: Train) -> None:
    done = train("ppo", {"ptx_coef": 1.0})
    assert done.code == 2 and "corpus" in done.message


def test_reference_may_be_another_policy(train: Train, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "reference", tiny_policy(tokenizer, seed=7), tokenizer, kind="sft", languages=["en"])
    assert train("ppo", reference=str(tmp_path / "reference")).series("kl")[0] != 0


def test_value_model_starts_as_the_reward_model(train: Train, reward_directory: Path) -> None:
    reward, tokenizer, _ = load_reward_model(reward_directory)
    models = Models(tiny_policy(tokenizer), tiny_policy(tokenizer), reward, copy.deepcopy(reward), tokenizer)
    rollout = rolled_out(models, config_of())
    ended = torch.tensor([[5, 6, 7]])
    assert (
        models.value.values(ended, torch.ones_like(ended).bool())[0, -1]
        == reward(ended, torch.ones_like(ended).bool())[0]
    )
    assert rollout.values[rollout.batch.response].abs().max() > 0
