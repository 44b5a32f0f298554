"""Each check of a run's beginning, once on input that is really broken and once on input that is not."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelzoo.batches import seeded
from modelzoo.chat_template import PLAIN_TEMPLATE, TURN_TEMPLATE
from modelzoo.config import PPOConfig, build
from modelzoo.failures import SelfCheckError
from modelzoo.rollout import Models
from modelzoo.run import Run
from modelzoo.selfcheck import check_chat_template, check_models
from modelzoo.spec import Spec
from modelzoo.tests.conftest import Train, demonstration, prompt, question, ranking, write_snapshot
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel, Transformer

LONG = [{"role": "user", "content": "the cat sat on a mat " * 30}]
STAGES = ["sft", "reward", "dpo", "ppo"]


@pytest.fixture
def run(tmp_path: Path) -> Run[PPOConfig]:
    config = build(PPOConfig, {"batch_size": 8, "minibatch_size": 8, "max_new_tokens": 6})
    return Run(Spec("ppo", config, None, None, None, None, None, None, None, ()), tmp_path)


@pytest.fixture
def models(policy: Transformer, tokenizer: Tokenizer) -> Models:
    reward = RewardModel.from_policy(policy, seeded("head"))
    return Models(policy, copy.deepcopy(policy), reward, copy.deepcopy(reward), tokenizer)


# A run on good input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_good_input_raises_no_warning_and_says_what_was_checked(
    train: Train, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    done = train(stage)
    assert (done.code, done.result["warnings"]) == (0, [])
    assert "check passed: the chat template" in capsys.readouterr().err


# Rows that are too long ---------------------------------------------------------------------------------------------


def some_long(tmp_path: Path, count: int, of: int) -> str:
    """A snapshot in which the first `count` of `of` rows, of each kind, do not fit the tiny model."""
    changes: list[dict[str, Any]] = [{"messages": LONG} if n < count else {} for n in range(of)]
    directory = write_snapshot(
        tmp_path / f"snapshot-{count}",
        rankings=[ranking(n, split="train", **change) for n, change in enumerate(changes)],
        demonstrations=[demonstration(n, split="train", **change) for n, change in enumerate(changes)],
        prompts=[prompt(n, **change) for n, change in enumerate(changes)],
    )
    return str(directory)


@pytest.mark.parametrize(
    ("stage", "what"), [("sft", "demonstrations"), ("reward", "rankings"), ("dpo", "rankings"), ("ppo", "prompts")]
)
def test_rows_that_would_lose_their_target_are_counted_and_refused_if_all_would(
    train: Train, tmp_path: Path, stage: str, what: str
) -> None:
    some = train(stage, snapshot=some_long(tmp_path, 3, of=8), out="some")
    counted = next(warning for warning in some.result["warnings"] if warning.startswith(f"Left out of the {what}:"))
    assert some.code == 0 and ("3 too long" in counted or "12 completions too long" in counted)
    every = train(stage, snapshot=some_long(tmp_path, 8, of=8), out="every")
    assert (every.code, every.metrics) == (2, [])
    assert f"None of the {what} can be used" in every.message and "raise max_length" in every.message


# Endings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_completions_of_which_none_ended_are_a_warning(train: Train, tmp_path: Path, stage: str) -> None:
    def warnings(reasons: list[str]) -> list[str]:
        rows = [ranking(n, finish_reasons=reasons) for n in range(10)]
        snapshot = write_snapshot(tmp_path / reasons[0], rankings=rows, demonstrations=[demonstration(0)], prompts=[])
        return train(stage, snapshot=str(snapshot), out=f"out-{reasons[0]}").result["warnings"]

    (warning,) = warnings(["length"] * 4)
    assert "None of the ranked completions ends by itself" in warning
    assert warnings(["stop", "length", "length", "length"]) == []


def test_every_demonstration_ends_with_a_token_that_stops_generation(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train("sft")
    assert "16 of 16 demonstrations end with a token that stops generation" in capsys.readouterr().err


# Tokenizer and chat template ----------------------------------------------------------------------------------------


def with_tokenizer(directory: Path, policy_directory: Path, **changes: Any) -> str:
    """A copy of a checkpoint whose tokenizer_config.json says something else, under a manifest that fits."""
    directory.mkdir()
    for path in policy_directory.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    config = json.loads((directory / "tokenizer_config.json").read_text()) | changes
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    manifest = json.loads((directory / "manifest.json").read_text())
    digest = hashlib.sha256((directory / "tokenizer_config.json").read_bytes()).hexdigest()
    manifest["files"]["tokenizer_config.json"] = digest
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return str(directory)


def test_padding_with_the_end_of_text_is_refused(train: Train, policy_directory: Path, tmp_path: Path) -> None:
    done = train("sft", policy=with_tokenizer(tmp_path / "pad", policy_directory, pad_token="<|end|>"))
    assert done.code == 2 and "padding and end of text are both '<|end|>'" in done.message


NO_PROMPT = TURN_TEMPLATE.partition("{% if add_generation_prompt")[0]
WRONG = {
    "beginning-of-text token twice": "{{ bos_token + bos_token }}" + TURN_TEMPLATE,
    "leaves out what the user": TURN_TEMPLATE.replace(
        "message['content']", "(message['content'] if message['role'] == 'assistant' else '')"
    ),
    "has no roles": TURN_TEMPLATE.replace("message['role']", "'user'"),
    "does not open the assistant's turn": NO_PROMPT,
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("stage", ["sft", "reward", "dpo"])
def test_a_wrong_chat_template_is_refused_in_words(
    train: Train, policy_directory: Path, tmp_path: Path, stage: str, what: str
) -> None:
    done = train(stage, policy=with_tokenizer(tmp_path / "wrong", policy_directory, chat_template=WRONG[what]))
    assert (done.code, done.metrics) == (2, [])
    assert what in done.message and "\n" not in done.message


CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|system|>Be kind.<|end|>\n{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BRACKETS = (  # opens no turn, and needs none: what follows [/INST] is the answer
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + BRACKETS
)


@pytest.mark.parametrize("template", [TURN_TEMPLATE, PLAIN_TEMPLATE, CHATML, BRACKETS, STRICT])
def test_templates_that_people_use_are_taken(tokenizer: Tokenizer, run: Run[Any], template: str) -> None:
    other = copy.copy(tokenizer)
    other.chat_template = template
    check_chat_template(run, other)
    assert run.warnings == []


def test_a_template_that_thinks_before_a_new_answer_is_a_warning(tokenizer: Tokenizer, run: Run[Any]) -> None:
    other = copy.copy(tokenizer)
    other.chat_template = TURN_TEMPLATE.replace("{{ '<|assistant|>' }}", "{{ '<|assistant|><think>' }}")
    check_chat_template(run, other)
    assert "something else before a new answer" in run.warnings[0]


# Models before PPO --------------------------------------------------------------------------------------------------


def check(run: Run[PPOConfig], models: Models) -> None:
    prompts = [models.tokenizer.encode_chat(question(n)) for n in range(2)]  # type: ignore[attr-defined]
    check_models(run, models, prompts, reference_is_policy=True)


def test_a_reference_that_is_not_the_policy_is_refused_however_near_it_is(run: Run[PPOConfig], models: Models) -> None:
    check(run, models)
    with torch.no_grad():
        models.reference.model.norm.weight[0] += 1e-5
    with pytest.raises(SelfCheckError, match="where KL must be 0"):
        check(run, models)


def test_a_reward_model_that_gives_no_numbers_is_refused(run: Run[PPOConfig], models: Models) -> None:
    with torch.no_grad():
        models.reward.score.weight[0, 0] = torch.inf
    with pytest.raises(SelfCheckError, match="scores that are not numbers"):
        check(run, models)
