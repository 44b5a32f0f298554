import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelzoo.__main__ import main
from modelzoo.checkpoint import load_policy
from modelzoo.config import SamplingConfig
from modelzoo.corpus import read_corpus
from modelzoo.data import SnapshotError
from modelzoo.sampler import Sampler
from modelzoo.tests.conftest import SENTENCE, Finished
from modelzoo.tokenizer import Tokenizer

QUESTIONS = {"안녕": "반가워요", "날씨 어때": "맑아요", "배고파": "밥 먹어요", "what is it": "a cat"}
TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_length": 32,
    "batch_size": 4,
    "learning_rate": 1e-2,
}

Pretrain = Callable[..., Finished]


@pytest.fixture
def pretrained(tmp_path: Path) -> Pretrain:
    """Tokenizer and model from a corpus, by the commands a person would type."""

    def run(out: str = "out", **changes: Any) -> Finished:
        corpus, tokenizer = str(tmp_path / "corpus.jsonl"), str(tmp_path / "tokenizer")
        turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in QUESTIONS.items()]
        lines = [json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in turns] * 60
        (tmp_path / "corpus.jsonl").write_text("".join(lines))
        (tmp_path / "text.txt").write_text("".join(f"{q}\n{a}\n" for q, a in QUESTIONS.items()) * 60)
        assert main(["tokenizer", tokenizer, "--text", str(tmp_path / "text.txt"), "--vocab-size", "300"]) == 0
        params = TINY | {"epochs": 6}
        spec = {"stage": "pretrain", "corpus": corpus, "tokenizer": tokenizer, "languages": ["ko"], "params": params}
        (tmp_path / "spec.json").write_text(json.dumps(spec | changes))
        code = main(["pretrain", "--spec", str(tmp_path / "spec.json"), "--out", str(tmp_path / out)])
        return Finished(code, tmp_path / out)

    return run


def test_a_korean_policy_from_scratch_answers_what_it_read(pretrained: Pretrain) -> None:
    done = pretrained()
    assert done.code == 0
    assert done.series("heldout_loss")[-1] < 1.0 < done.series("loss")[0]
    samples = Sampler.load(done.out / "model").sample(
        [[{"role": "user", "content": question}] for question in QUESTIONS], 8, SamplingConfig(max_new_tokens=24)
    )
    answers = [sample.text == answer for answer, row in zip(QUESTIONS.values(), samples, strict=True) for sample in row]
    assert sum(answers) >= 0.5 * len(answers)
    _, _, manifest = load_policy(done.out / "model")
    assert manifest["kind"] == "base" and manifest["languages"] == ["ko"]


def test_the_same_seed_gives_the_same_model_and_another_another(pretrained: Pretrain) -> None:
    one, same = pretrained("one", params=TINY), pretrained("same", params=TINY)
    other = pretrained("other", params=TINY | {"seed": 1})
    assert one.series("loss") == same.series("loss")
    assert one.series("loss") != other.series("loss")


def test_a_model_from_scratch_must_state_its_languages(pretrained: Pretrain) -> None:
    done = pretrained(languages=None)
    assert done.code == 2 and '"languages"' in done.message


def test_a_model_from_scratch_can_be_of_any_variant(pretrained: Pretrain) -> None:
    gpt2 = {"position": "learned", "norm": "layernorm", "mlp": "gelu_tanh", "bias": "all", "num_key_value_heads": 4}
    albert = {"num_hidden_groups": 1, "embedding_size": 16, "tie_word_embeddings": False}
    done = pretrained(params=TINY | gpt2 | albert)
    assert done.code == 0 and done.series("loss")[-1] < done.series("loss")[0] - 1
    model, _, _ = load_policy(done.out / "model")
    assert {name: getattr(model.config, name) for name in gpt2 | albert} == gpt2 | albert
    assert pretrained("alibi", params=TINY | {"position": "alibi", "qk_norm": True, "head_dim": 12}).code == 0


def test_a_shape_that_cannot_be_is_refused(pretrained: Pretrain) -> None:
    done = pretrained(params=TINY | {"num_attention_heads": 5})
    assert done.code == 2 and "32 is not divisible by 5 heads" in done.message
    done = pretrained(params=TINY | {"position": "sinusoidal"})
    assert done.code == 2 and "position: must be one of rope, learned, alibi" in done.message


def test_documents_and_dialogues_end_and_nothing_else_is_added(tokenizer: Tokenizer, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "cat"}, {"role": "assistant", "content": "mat"}]
    lines = [json.dumps({"text": SENTENCE}), "", json.dumps({"messages": turns})]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    stream, _ = read_corpus(tmp_path / "corpus.jsonl", tokenizer)
    dialogue = tokenizer.encode_chat(turns, add_generation_prompt=False)
    assert stream == [*tokenizer.encode(SENTENCE), tokenizer.eos_id, *dialogue]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"title": "x"}', '{"messages": []}', '{"text": null}', '{"messages": [{}]}']
)
def test_a_corpus_with_a_broken_line_is_refused_by_its_number(tokenizer: Tokenizer, tmp_path: Path, line: str) -> None:
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": "cat"}) + "\n" + line + "\n")
    with pytest.raises(SnapshotError, match="Line 2 of the corpus"):
        read_corpus(tmp_path / "corpus.jsonl", tokenizer)
