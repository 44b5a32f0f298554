from pathlib import Path

import pytest
import torch

from modelzoo.checkpoint import load_policy
from modelzoo.config import SamplingConfig
from modelzoo.generate import generate, row_generators
from modelzoo.tests.conftest import Train, demonstration, question, write_snapshot


def test_fine_tuned_policy_says_what_was_shown_and_stops(train: Train) -> None:
    done = train("sft", {"epochs": 200, "batch_size": 16, "learning_rate": 1e-2, "checkpoint_every": 1000})
    policy, tokenizer, manifest = load_policy(done.out / "model")
    numbers = [number for number in range(20) if number % 5 != 4]
    prompts = [tokenizer.encode_chat(question(number)) for number in numbers]
    sampling = SamplingConfig(max_new_tokens=32)
    streams = [stream for number in numbers for stream in row_generators(number, 20)]
    responses = generate(policy, prompts, 20, sampling, tokenizer.stop_ids, streams)
    reasons = [row.finish_reason for rows in responses for row in rows]
    assert reasons.count("stop") >= 0.99 * len(reasons)
    texts = [tokenizer.decode(row.token_ids) for rows in responses for row in rows]
    assert sum(text.startswith("good ") for text in texts) >= 0.95 * len(texts)
    assert manifest["kind"] == "sft" and manifest["languages"] == ["en"]


def test_fine_tuning_lowers_the_held_out_loss_and_records_its_course(train: Train) -> None:
    done = train("sft", {"epochs": 10, "learning_rate": 3e-3})
    heldout = done.series("heldout_loss")
    assert done.code == 0
    assert heldout[-1] < heldout[0] - 1
    assert len(heldout) == 11  # before, and after each epoch
    assert [line["step"] for line in done.metrics if "loss" in line] == list(range(1, 21))
    assert done.result["metrics"]["heldout_loss"] == heldout[-1]
    assert done.result["step"] == done.result["total"] == 20


def test_learning_rate_falls_to_a_tenth(train: Train) -> None:
    rates = train("sft", {"epochs": 5, "learning_rate": 1e-3}).series("learning_rate")
    assert rates[0] == 1e-3
    assert rates[-1] == pytest.approx(1e-4)
    assert rates == sorted(rates, reverse=True)


def test_micro_batch_size_changes_neither_loss_nor_gradient(train: Train) -> None:
    runs = [train("sft", {"micro_batch_size": size, "batch_size": 16}, out=f"out-{size}") for size in (1, 3, 16)]
    for name in ("loss", "grad_norm"):
        values = [run.series(name)[0] for run in runs]
        assert values == pytest.approx([values[0]] * 3, rel=1e-5)
    weights = [load_policy(run.out / "model")[0].model.norm.weight for run in runs]
    assert torch.allclose(weights[0], weights[2], atol=1e-5)


def test_adam_is_recorded_with_its_epsilon(train: Train) -> None:
    _, _, manifest = load_policy(train("sft", {"adam_eps": 1e-5}).out / "model")
    assert manifest["params"]["adam_eps"] == 1e-5
    assert manifest["seed"] == 0 and len(manifest["parents"]) == 1


def test_rows_left_out_are_a_warning(train: Train, tmp_path: Path) -> None:
    rows = [demonstration(number) for number in range(8)] + [demonstration(9, split="train", completion="")]
    snapshot = write_snapshot(tmp_path / "s", rankings=[], demonstrations=rows, prompts=[])
    done = train("sft", snapshot=str(snapshot))
    assert done.result["warnings"] == ["Left out of the demonstrations: 1 empty."]


def test_snapshot_without_demonstrations_in_the_language_is_refused(train: Train) -> None:
    done = train("sft", languages=["ko"])
    assert done.code == 2
    assert done.result["error"]["kind"] == "bad_input"
    assert "no demonstration" in done.message
