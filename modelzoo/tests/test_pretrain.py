import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelzoo.__main__ import main
from modelzoo.checkpoint import load_policy
from modelzoo.config import SamplingConfig
from modelzoo.corpus import documents
from modelzoo.sampler import Sampler
from modelzoo.schedules import wsd_rate
from modelzoo.tests.conftest import Finished, Train
from modelzoo.tests.test_resume import assert_same_model
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
    assert done.series("loss")[-1] < 1.0 < done.series("loss")[0]
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


def test_held_out_documents_are_measured_on_the_way_and_in_bits_per_byte(
    train: Train, corpus: str, tokenizer: Tokenizer
) -> None:
    params = TINY | {"max_length": 16, "batch_size": 10, "epochs": 8, "evaluate_every": 20}
    done = train("pretrain", params, corpus=corpus)
    losses, bits = done.series("heldout_loss"), done.series("bits_per_byte")
    steps = [line["step"] for line in done.metrics if "bits_per_byte" in line]
    assert steps == [*range(20, done.result["total"], 20), done.result["total"]]
    assert losses[-1] < losses[0] - 0.3
    heldout = [document for document in documents(Path(corpus), tokenizer) if document.heldout]
    predicted = sum(len(document.tokens) for document in heldout) - 1  # a stream's first token has nothing before it
    for loss, bit in zip(losses, bits, strict=True):
        assert bit == pytest.approx(loss * predicted / math.log(2) / sum(document.bytes for document in heldout))


def test_shards_and_jsonl_give_the_same_model(
    train: Train, corpus: str, policy_directory: Path, tmp_path: Path
) -> None:
    shards = str(tmp_path / "shards")
    assert main(["shards", shards, "--corpus", corpus, "--tokenizer", str(policy_directory)]) == 0
    params = TINY | {"max_length": 16}
    runs = [train("pretrain", params, corpus=path, out=name) for name, path in (("a", corpus), ("b", shards))]
    assert [line["loss"] for line in runs[0].metrics if "loss" in line] == runs[1].series("loss")
    assert_same_model(*runs)


def test_wsd_stays_at_its_peak_and_falls_late(train: Train, corpus: str) -> None:
    params = TINY | {"max_length": 16, "schedule": "wsd", "warmup_ratio": 0.1, "decay_ratio": 0.25, "epochs": 4}
    done = train("pretrain", params, corpus=corpus)
    rates, total = done.series("learning_rate"), done.result["total"]
    warmup, decay = round(0.1 * total), round(0.25 * total)
    assert rates[:warmup] == pytest.approx([1e-2 * (n + 1) / warmup for n in range(warmup)])
    assert rates[warmup : total - decay] == [1e-2] * (total - decay - warmup)
    assert rates[total - decay :] == sorted(rates[total - decay :], reverse=True)
    assert rates[-1] == pytest.approx(1e-3)


def test_a_longer_wsd_run_shares_its_stable_part_with_a_shorter_one() -> None:
    same = {"peak": 1.0, "warmup_ratio": 0.0, "final_ratio": 0.1}
    short, long = ([wsd_rate(n, total, decay_ratio=0.2, **same) for n in range(total)] for total in (50, 100))
    assert short[:40] == long[:40]
    assert long[80:] == pytest.approx([0.1 + 0.9 * (1 - math.sqrt((n + 1) / 20)) for n in range(20)])
