import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelzoo.batches import Example, collate, endless_indices, micro_batches, step_indices
from modelzoo.data import Snapshot, SnapshotError, encode_demonstrations, encode_prompts, encode_rankings
from modelzoo.tests.conftest import demonstration, prompt, ranking, write_snapshot
from modelzoo.tokenizer import Tokenizer


def test_each_demonstration_has_one_end_of_turn_to_learn(tokenizer: Tokenizer) -> None:
    rows = [demonstration(number) for number in range(7)]
    examples, left_out = encode_demonstrations(rows, tokenizer, 128)
    batch = collate(examples, tokenizer.pad_id)
    ends = (batch.tokens == tokenizer.end_of_turn_id) & batch.response
    assert ends.sum(dim=1).tolist() == [1] * 7
    assert not left_out
    assert tokenizer.pad_id not in tokenizer.stop_ids


def test_prompt_and_padding_are_not_learned(tokenizer: Tokenizer) -> None:
    batch = collate([Example([5, 6, 7], [8, 9]), Example([5], [6])], tokenizer.pad_id)
    assert batch.response.tolist() == [[False, False, False, True, True], [False, True, False, False, False]]
    assert batch.tokens[1, 2:].tolist() == [tokenizer.pad_id] * 3
    assert batch.mask.sum(dim=1).tolist() == [5, 2]


def test_cut_completion_has_no_end_of_turn(tokenizer: Tokenizer) -> None:
    (one,), _ = encode_rankings([ranking(0)], tokenizer, 128, ties="drop")
    ends = [example.response[-1] == tokenizer.end_of_turn_id for example in one.examples]
    assert ends == [True, False, True, True]  # the second was cut


def test_demonstrations_with_nothing_to_learn_or_too_long_are_counted(tokenizer: Tokenizer) -> None:
    rows = [demonstration(0), demonstration(1, completion=" \n"), demonstration(2, completion="cat " * 200)]
    examples, left_out = encode_demonstrations(rows, tokenizer, 64)
    assert len(examples) == 1
    assert str(left_out) == "1 empty, 1 too long"


def test_rankings_without_a_pair_are_counted(tokenizer: Tokenizer) -> None:
    rows = [ranking(0), ranking(1, [2, 2, 2]), ranking(2, [1, 2], completions=["cat", "sea " * 100])]
    rankings, left_out = encode_rankings(rows, tokenizer, 64, ties="drop")
    assert len(rankings) == 1
    assert left_out == {"all tied": 1, "completions too long": 1, "with fewer than two usable completions": 1}


def test_all_tied_rankings_are_used_where_ties_are_modelled(tokenizer: Tokenizer) -> None:
    rankings, left_out = encode_rankings([ranking(1, [2, 2, 2])], tokenizer, 64, ties="model")
    assert len(rankings) == 1 and not left_out


def test_too_long_completion_leaves_the_others_of_its_ranking(tokenizer: Tokenizer) -> None:
    row = ranking(0, [1, 2, 3], completions=["cat", "sea " * 100, "mat"])
    (one,), left_out = encode_rankings([row], tokenizer, 64, ties="drop")
    assert one.tiers == [1, 3]
    assert str(left_out) == "1 completions too long"


def test_too_long_prompts_are_counted(tokenizer: Tokenizer) -> None:
    rows = [prompt(0), prompt(1, messages=[{"role": "user", "content": "cat " * 100}])]
    prompts, left_out = encode_prompts(rows, tokenizer, 32)
    assert len(prompts) == 1 and str(left_out) == "1 too long"


def test_rows_are_chosen_by_split_and_language(tmp_path: Path) -> None:
    demonstrations = [demonstration(n, language=language) for n, language in enumerate(["en", "ko", "en", "ko", "en"])]
    directory = write_snapshot(tmp_path / "s", rankings=[], demonstrations=demonstrations, prompts=[])
    snapshot = Snapshot.open(directory)

    def ids(split: str, languages: list[str] | None) -> list[str]:
        return [row["id"] for row in snapshot.rows("demonstrations.jsonl", split=split, languages=languages)]

    assert ids("train", ["ko"]) == ["demo-1", "demo-3"]
    assert ids("train", None) == ["demo-0", "demo-1", "demo-2", "demo-3"]
    assert ids("heldout", ["en"]) == ["demo-4"]


def test_a_line_separator_inside_a_text_does_not_cut_its_row(tmp_path: Path) -> None:
    row = demonstration(0, completion="one\u2028two\x85three")
    directory = write_snapshot(tmp_path / "s", rankings=[], demonstrations=[row], prompts=[])
    assert Snapshot.open(directory).rows("demonstrations.jsonl", split="train", languages=None) == [row]


def no_manifest(directory: Path) -> None:
    (directory / "manifest.json").unlink()


def damaged_manifest(directory: Path) -> None:
    (directory / "manifest.json").write_text("{")


def another_kind(directory: Path) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(manifest | {"kind": "policy"}))


def changed_rows(directory: Path) -> None:
    with (directory / "rankings.jsonl").open("a") as file:
        file.write("\n")


def missing_rows(directory: Path) -> None:
    (directory / "rankings.jsonl").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_manifest, "There is no snapshot"),
        (damaged_manifest, "is damaged"),
        (another_kind, "is not a snapshot"),
        (changed_rows, "was changed after it was frozen"),
        (missing_rows, "is missing"),
    ],
)
def test_a_damaged_snapshot_is_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    directory = write_snapshot(tmp_path / "s", rankings=[ranking(0)], demonstrations=[], prompts=[])
    damage(directory)
    with pytest.raises(SnapshotError, match=message):
        Snapshot.open(directory).rows("rankings.jsonl", split="train", languages=None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"split": "train"}, "Line 2 of rankings.jsonl has no 'language'"),
        (ranking(1, tiers="best"), "Line 2 of rankings.jsonl has an unusable 'tiers'"),
        (ranking(1) | {"tiers": [1, 2]}, "Line 2 of rankings.jsonl has an unusable 'tiers'"),
        (["not", "an", "object"], "Line 2 of rankings.jsonl is not a JSON object"),
    ],
)
def test_a_broken_row_is_named_by_its_line(tmp_path: Path, row: Any, message: str) -> None:
    directory = write_snapshot(tmp_path / "s", rankings=[ranking(0), row], demonstrations=[], prompts=[])
    with pytest.raises(SnapshotError, match=message):
        Snapshot.open(directory).rows("rankings.jsonl", split="train", languages=None)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (9, 3), (2, 5)])
def test_each_epoch_reads_everything_once_in_an_order_of_its_own(count: int, batch_size: int) -> None:
    steps = -(-count // batch_size)
    epochs = [
        [i for step in range(epoch * steps, (epoch + 1) * steps) for i in step_indices(count, batch_size, 0, step)]
        for epoch in range(6)
    ]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_rollouts_read_every_prompt_equally_often() -> None:
    taken = [i for step in range(6) for i in endless_indices(4, step * 6, 6, 0)]
    assert [taken.count(i) for i in range(4)] == [9] * 4
    assert endless_indices(4, 0, 36, 0) == taken


def test_micro_batches_hold_everything_once() -> None:
    groups = list(micro_batches([3, 1, 2, 5, 4], 2, lambda n: n))
    assert groups == [[1, 2], [3, 4], [5]]
