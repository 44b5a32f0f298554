from pathlib import Path

import pytest
import torch

from modelzoo.batches import collate
from modelzoo.checkpoint import load_policy, load_reward_model
from modelzoo.data import encode_demonstrations, encode_example
from modelzoo.tests.conftest import Train, demonstration, question, ranking, write_snapshot


def test_reward_model_orders_held_out_completions_and_says_on_how_many_pairs(train: Train) -> None:
    done = train("reward", {"epochs": 6})
    assert done.result["metrics"]["heldout_accuracy"] >= 0.9
    assert done.result["metrics"]["heldout_pairs"] == 4 * 5  # four rankings [2, 1, 2, 3]: five untied pairs each
    model, tokenizer, manifest = load_reward_model(done.out / "model")
    good, bad = (
        collate([encode_example(tokenizer, question(3), text, finished=True)], tokenizer.pad_id)
        for text in ("good fish", "dogs ran over hills")
    )
    assert model(good.tokens, good.mask) > model(bad.tokens, bad.mask)
    assert manifest["kind"] == "reward" and manifest["snapshot"]


def test_demonstrations_score_0_on_average_also_after_loading(train: Train) -> None:
    done = train("reward")
    model, tokenizer, _ = load_reward_model(done.out / "model")
    rows = [demonstration(number) for number in range(20) if number % 5 != 4]
    examples, _ = encode_demonstrations(rows, tokenizer, 128)
    batch = collate(examples, tokenizer.pad_id)
    with torch.no_grad():
        assert model(batch.tokens, batch.mask).mean().item() == pytest.approx(0, abs=1e-6)
    assert model.score_offset != 0


def test_without_demonstrations_completions_score_0_on_average(train: Train, tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path / "s", rankings=[ranking(0), ranking(1)], demonstrations=[], prompts=[])
    done = train("reward", snapshot=str(snapshot))
    model, tokenizer, _ = load_reward_model(done.out / "model")
    examples = [
        encode_example(tokenizer, row["messages"], text, finished=reason == "stop")
        for row in (ranking(0), ranking(1))
        for text, reason in zip(row["completions"], row["finish_reasons"], strict=True)
    ]
    batch = collate(examples, tokenizer.pad_id)
    with torch.no_grad():
        assert model(batch.tokens, batch.mask).mean().item() == pytest.approx(0, abs=1e-6)
    assert any("no demonstrations" in warning for warning in done.result["warnings"])
    assert any("No ranking is held out" in warning for warning in done.result["warnings"])


def test_micro_batch_size_changes_neither_loss_nor_gradient(train: Train, tmp_path: Path) -> None:
    rankings = [ranking(0), ranking(1, [1, 2]), ranking(2, [3, 2, 1, 4, 2, 1]), ranking(3, [1, 1, 2])]
    snapshot = str(write_snapshot(tmp_path / "s", rankings=rankings, demonstrations=[], prompts=[]))
    runs = [train("reward", {"micro_batch_size": size}, snapshot=snapshot, out=f"out-{size}") for size in (1, 6, 64)]
    for name in ("loss", "grad_norm", "accuracy"):
        values = [run.series(name)[0] for run in runs]
        assert values == pytest.approx([values[0]] * 3, rel=1e-4)


def test_ranking_with_all_tied_is_skipped_and_counted(train: Train, tmp_path: Path) -> None:
    rows = [ranking(0), ranking(1, [1, 1, 1])]
    snapshot = str(write_snapshot(tmp_path / "s", rankings=rows, demonstrations=[], prompts=[]))
    done = train("reward", snapshot=snapshot)
    assert "Left out of the rankings: 1 all tied." in done.result["warnings"]


def test_modelled_ties_pull_scores_together(train: Train, tmp_path: Path) -> None:
    rows = [ranking(number, [1, 1], completions=["good fish", "dogs ran"], split="train") for number in range(8)]
    snapshot = str(write_snapshot(tmp_path / "s", rankings=rows, demonstrations=[], prompts=[]))
    losses = train("reward", {"ties": "model", "epochs": 12}, snapshot=snapshot).series("loss")
    assert losses[0] > losses[-1] >= 0.693147


def test_snapshot_with_only_ties_is_refused(train: Train, tmp_path: Path) -> None:
    snapshot = str(write_snapshot(tmp_path / "s", rankings=[ranking(0, [1, 1])], demonstrations=[], prompts=[]))
    done = train("reward", snapshot=snapshot)
    assert done.code == 2
    assert "no ranking to learn from (left out: 1 all tied)" in done.message


def test_policy_is_left_as_it_was(train: Train, policy_directory: Path) -> None:
    before = load_policy(policy_directory)[0].state_dict()
    train("reward", policy=str(policy_directory))
    after = load_policy(policy_directory)[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
