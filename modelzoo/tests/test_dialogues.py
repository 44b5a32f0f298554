"""A CSV of questions and answers becomes what the trainers read, and held-out rows stay out."""

import json
from pathlib import Path

import pytest

from modelzoo.__main__ import main
from modelzoo.data import Snapshot, SnapshotError
from modelzoo.dialogues import Dialogue, read_dialogues, write_dialogues

COLUMNS = ("--prompt", "Q", "--response", "A", "--language", "ko")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """200 questions, each asked in two ways with one answer."""
    path = tmp_path / "talk.csv"
    lines = [f"{way} 날씨 {number}?,답 {number}" for number in range(200) for way in ("오늘", "내일")]
    path.write_text("\n".join(["Q,A", *lines, "오늘 날씨 7?,답 7", " ,답", "질문만,"]), encoding="utf-8-sig")
    return path


def test_repeated_and_incomplete_rows_are_passed_over(table: Path) -> None:
    dialogues = read_dialogues(table, prompt="Q", response="A")
    assert len(dialogues) == 400
    assert dialogues[0] == Dialogue("오늘 날씨 0?", "답 0")


def test_questions_that_share_an_answer_fall_on_the_same_side(table: Path) -> None:
    heldout = {dialogue.response for dialogue in read_dialogues(table, prompt="Q", response="A") if dialogue.is_heldout}
    train = {
        dialogue.response for dialogue in read_dialogues(table, prompt="Q", response="A") if not dialogue.is_heldout
    }
    assert heldout.isdisjoint(train)
    assert 1 <= len(heldout) <= 25  # 5% of 200, by chance


def test_held_out_rows_are_in_no_corpus_and_marked_in_the_snapshot(table: Path, tmp_path: Path) -> None:
    assert main(["dialogues", str(table), str(tmp_path / "out"), *COLUMNS]) == 0
    corpus = [json.loads(line)["messages"] for line in (tmp_path / "out/corpus.jsonl").read_text().splitlines()]
    snapshot = Snapshot.open(tmp_path / "out/snapshot")
    train = snapshot.rows("demonstrations.jsonl", split="train", languages=["ko"])
    heldout = snapshot.rows("demonstrations.jsonl", split="heldout", languages=["ko"])
    assert len(corpus) == len(train) == 400 - len(heldout)
    assert [row["completion"] for row in train] == [messages[-1]["content"] for messages in corpus]
    lines = (tmp_path / "out/heldout.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == [f"{row['messages'][0]['content']},{row['completion']}" for row in heldout]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("질문,답\n가,나\n", "no column 'Q'"),
        ("", "no column 'Q'"),
        ("Q,A\n가,나\n", "too few"),
        ("Q,A\n" + '"' + "가" * 200_000, "not a CSV"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(content, encoding="utf-8")
    with pytest.raises(SnapshotError, match=said):
        read_dialogues(tmp_path / "bad.csv", prompt="Q", response="A")


def test_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_bytes("Q,A\n가,나\n".encode("cp949"))
    with pytest.raises(SnapshotError, match="not UTF-8"):
        read_dialogues(tmp_path / "bad.csv", prompt="Q", response="A")


def test_nothing_is_written_over(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    assert main(["dialogues", str(table), str(tmp_path / "out"), *COLUMNS]) == 2
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(SnapshotError, match="exists already"):
        write_dialogues(read_dialogues(table, prompt="Q", response="A"), tmp_path / "out", language="ko", source="talk")
